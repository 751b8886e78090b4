// What the tests of kernels share: launches repeated in several orders, arrays of each element, tolerances, and Philox
// written a second time.
#pragma once

#include <array>
#include <bit>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

#include "host_cuda/device_array.h"
#include "host_cuda/test_support.h"
#include "kernels/element.h"
#include "support/approx.h"
#include "support/catch.h"

namespace kernel_test {

using charrnn::cuda::Element;
using charrnn::tests::Tolerance;
using host_cuda::noise;
using host_cuda_test::Device;
using host_cuda_test::Pinned;
using host_cuda_test::Stream;
using Numbers = std::vector<double>;

constexpr Element kElements[] = {Element::kF32, Element::kF16, Element::kBf16};
/// What stands where a kernel must not write.
constexpr double kUntouched = -77.0;

inline host_cuda::Element in_host_cuda(Element element) {
  switch (element) {
    case Element::kF16: return host_cuda::Element::kHalf;
    case Element::kBf16: return host_cuda::Element::kBfloat16;
    case Element::kF32: break;
  }
  return host_cuda::Element::kFloat;
}

/// Numbers on the device, stored as `element`; without values nobody has written them.
struct Array : host_cuda::DeviceArray {
  Array(Element element, std::size_t count) : DeviceArray(in_host_cuda(element), count) {}
  Array(Element element, const Numbers& values) : DeviceArray(in_host_cuda(element), values) {}
};
struct Floats : Array {
  explicit Floats(std::size_t count) : Array(Element::kF32, count) {}
  explicit Floats(const Numbers& values) : Array(Element::kF32, values) {}
  operator float*() const { return static_cast<float*>(at()); }
};

inline Numbers rounded(Element element, Numbers values) {
  for (double& x : values) x = host_cuda::rounded(in_host_cuda(element), x);
  return values;
}
/// Numbers as a kernel will read them, in [-size, size).
inline Numbers some(Element element, std::size_t count, std::uint64_t seed, double size = 1) {
  Numbers values = noise(count, seed);
  for (double& x : values) x *= size;
  return rounded(element, values);
}
/// In (0, 1), as gates are.
inline Numbers fractions(Element element, std::size_t count, std::uint64_t seed) {
  Numbers values = noise(count, seed);
  for (double& x : values) x = 0.5 + 0.49 * x;
  return rounded(element, values);
}

/// `roundings` of floats one after another, each by half a unit in the last place of a number no larger than the
/// array's largest, and at the end one rounding to `element`.
inline Tolerance stored(Element element, double roundings) {
  const double last = element == Element::kF32 ? 0 : element == Element::kF16 ? 0x1p-11 : 0x1p-8;
  return {roundings * 0x1p-24 + last};
}

template <class T>
Numbers as_numbers(const std::vector<T>& values) {
  return Numbers(values.begin(), values.end());
}

/// The arrays that a launch leaves behind.
using Outcome = std::vector<Numbers>;

inline bool same_bits(const Outcome& a, const Outcome& b) {
  if (a.size() != b.size()) return false;
  for (std::size_t i = 0; i < a.size(); ++i) {
    if (a[i].size() != b[i].size()) return false;
    for (std::size_t k = 0; k < a[i].size(); ++k) {
      if (std::bit_cast<std::uint64_t>(a[i][k]) != std::bit_cast<std::uint64_t>(b[i][k])) return false;
    }
  }
  return true;
}

/// Calls run(stream), which launches and reads the results, with blocks and threads in several orders: the bits must be
/// the same, and the checker must have nothing to say.
template <class Run>
Outcome in_any_order(const Run& run) {
  constexpr std::uint64_t kSeeds = 3;
  Outcome first;
  for (std::uint64_t seed = 0; seed < kSeeds; ++seed) {
    host_cuda_test::begin(seed);
    try {
      const Stream stream;
      Outcome now = run(stream);
      if (seed == 0)
        first = std::move(now);
      else
        CHECK(same_bits(now, first));
    } catch (const std::runtime_error&) {  // of a kernel that was ended; the finding says why
      CHECK(host_cuda_test::findings() == "");
      throw;
    }
    CHECK(host_cuda_test::findings() == "");
    CHECK(host_cuda::leaks().empty());
  }
  return first;
}

/// For launches of nothing: no kernel runs, and nothing is read or written.
template <class Run>
void launches_nothing(const Run& run) {
  host_cuda_test::begin();
  {
    const Stream stream;
    run(stream);
    stream.wait();
  }
  CHECK(host_cuda::counts().launches == 0);
  CHECK(host_cuda_test::findings() == "");
}

/// Philox 4x32-10 from the paper, apart from kernels/philox.h; philox_known_answers() holds it to the numbers of its
/// authors.
inline std::array<std::uint32_t, 4> philox_of(std::array<std::uint32_t, 4> counter, std::array<std::uint32_t, 2> key) {
  const auto high = [](std::uint64_t a, std::uint64_t b) { return static_cast<std::uint32_t>((a * b) >> 32U); };
  for (int round = 0; round < 10; ++round) {
    const auto [c0, c1, c2, c3] = counter;
    counter = {high(0xCD9E8D57U, c2) ^ c1 ^ key[0], 0xCD9E8D57U * c2, high(0xD2511F53U, c0) ^ c3 ^ key[1],
               0xD2511F53U * c0};
    key[0] += 0x9E3779B9U;  // the golden ratio
    key[1] += 0xBB67AE85U;  // sqrt(3) - 1
  }
  return counter;
}

/// From kat_vectors of Random123.
inline void philox_known_answers() {
  using Four = std::array<std::uint32_t, 4>;
  constexpr std::uint32_t kAll = 0xFFFFFFFFU;
  CHECK(philox_of({0, 0, 0, 0}, {0, 0}) == Four{0x6627e8d5U, 0xe169c58dU, 0xbc57ac4cU, 0x9b00dbd8U});
  CHECK(philox_of({kAll, kAll, kAll, kAll}, {kAll, kAll}) == Four{0x408f276dU, 0x41c83b0eU, 0xa20bc7c6U, 0x6d5451fdU});
  CHECK(philox_of({0x243f6a88U, 0x85a308d3U, 0x13198a2eU, 0x03707344U}, {0xa4093822U, 0x299f31d0U}) ==
        Four{0xd16cfe09U, 0x94fdccebU, 0x5001e420U, 0x24126ea1U});
}

}  // namespace kernel_test
