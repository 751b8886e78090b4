// Products of tiles against sums in double precision, on every instruction set that was compiled and that this
// processor runs.
#include "cpu/lane_kernels.h"

#include <hwy/targets.h>

#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include "cpu/element.h"
#include "cpu/host_buffer.h"
#include "model/initialize.h"
#include "support/catch.h"

using namespace charrnn;
using namespace charrnn::cpu;

namespace {

/// As large as weights and activations are, and zeros and tiny ones among them.
float some_number(Rng& rng) {
  const std::uint32_t kind = rng.next_u32() % 16;
  if (kind == 0) return 0.0F;
  return static_cast<float>(rng.normal()) * (kind == 1 ? 1e-30F : 0.3F);
}

template <class E>
void check_product(const LaneKernels& kernels, int vectors, int k) {
  constexpr int kPair = sizeof(float) / sizeof(E);
  Rng rng(static_cast<std::uint64_t>(100 * k + vectors));
  const int rows = vectors * kLaneRows;
  HostBuffer weights_at(static_cast<std::size_t>(rows * k)), x_at(static_cast<std::size_t>(k));
  auto* const weights = reinterpret_cast<E*>(weights_at.data());
  auto* const x = reinterpret_cast<E*>(x_at.data());
  std::vector<float> sums(static_cast<std::size_t>(rows));
  std::vector<double> expected, sizes;  // sizes: sums of absolute values
  for (float& s : sums) {
    s = some_number(rng);
    expected.push_back(static_cast<double>(s));
    sizes.push_back(std::abs(static_cast<double>(s)));
  }
  for (int i = 0; i < k; ++i) x[i] = from_float<E>(some_number(rng));
  for (int row = 0; row < rows; ++row) {
    for (int i = 0; i < k; ++i) {
      const E w = from_float<E>(some_number(rng));
      weights[((i / kPair * vectors + row / kLaneRows) * kLaneRows + row % kLaneRows) * kPair + i % kPair] = w;
      const double product = static_cast<double>(to_float(w)) * static_cast<double>(to_float(x[i]));
      expected[static_cast<std::size_t>(row)] += product;
      sizes[static_cast<std::size_t>(row)] += std::abs(product);
    }
  }
  kernels.product({.weights = weights, .x = x, .k = k, .vectors = vectors, .sums = sums.data()});
  for (std::size_t row = 0; row < sums.size(); ++row) {
    // Each of at most k + 3 additions and k products rounds by half of epsilon of a sum that is no larger than `sizes`;
    // what is lost as a denormal is at most the smallest normal number, each time.
    const double bound = (2 * k + 3) * (0x1p-24 * sizes[row] + 0x1p-126);
    INFO(kernels.instructions << ", k " << k << ", row " << row << " of " << rows);
    CHECK(std::abs(static_cast<double>(sums[row]) - expected[row]) <= bound);
  }
}

void check_products(const LaneKernels& floats, const LaneKernels& pairs) {
  for (const int vectors : {1, 2, 3, 4}) {
    for (const int k : {8, 24, 104, 512}) {
      check_product<float>(floats, vectors, k);
      check_product<Bf16>(pairs, vectors, k);
    }
  }
}

}  // namespace

TEST_CASE("a tile's product is the sum of its products on every instruction set", "[lane]") {
  std::vector<std::string> seen;
  for (const std::int64_t target : hwy::SupportedAndGeneratedTargets()) {
    hwy::SetSupportedTargetsForTest(target);
    const LaneKernels floats = lane_kernels(Cell::kLstm, Precision::kFp32, true);
    CHECK(std::string(floats.instructions) == hwy::TargetName(target));
    check_products(floats, lane_kernels(Cell::kLstm, Precision::kBf16, true));
  }
  hwy::SetSupportedTargetsForTest(0);
  check_products(lane_kernels(Cell::kLstm, Precision::kFp32), lane_kernels(Cell::kLstm, Precision::kBf16));
}
