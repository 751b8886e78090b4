// What the CPU's sessions promise beyond the seam: inputs multiplied some steps ahead, and steps that allocate nothing.
#include <algorithm>
#include <vector>

#include "cpu/cpu_backend.h"
#include "cpu/cpu_network.h"
#include "cpu/slice.h"
#include "model/initialize.h"
#include "support/approx.h"
#include "support/catch.h"
#include "support/largest_allocation.h"
#include "support/test_device.h"

using namespace charrnn;
using namespace charrnn::tests;

namespace {

std::vector<TokenId> random_ids(Rng& rng, int count, int vocabulary) {
  std::vector<TokenId> ids(static_cast<std::size_t>(count));
  for (TokenId& id : ids) id = static_cast<TokenId>(rng.next_u32() % static_cast<unsigned>(vocabulary));
  return ids;
}

void write_random(Network& network, Rng& rng, double scale) {
  std::vector<float> parameters(network.layout().arena_size());
  for (float& p : parameters) p = static_cast<float>(scale * rng.normal());
  network.write(Arena::kParameters, parameters);
}

}  // namespace

TEST_CASE("a window whose inputs are multiplied in several parts equals one step at a time", "[cpu]") {
  // 1100 lanes of 4 x 128 gates leave room for one step, 400 for five, of the seven.
  for (const int batch : {1100, 400}) {
    for (const Cell cell : {Cell::kLstm, Cell::kGru}) {
      const NetworkShape shape{cell, 2, 128, 9};
      constexpr int kSteps = 7;
      const auto backend = cpu::make_cpu_backend(1);
      const auto network = backend->make_network(shape, test_precision());
      Rng rng(3);
      write_random(*network, rng, 0.1);
      const std::vector<TokenId> ids = random_ids(rng, kSteps * batch, shape.vocabulary);
      const auto row = static_cast<std::size_t>(batch * shape.vocabulary);
      std::vector<float> whole(kSteps * row), single(row);
      const auto session = network->open({batch, kSteps, false}), stepping = network->open({batch, 1, false});
      session->forward({.steps = kSteps, .batch = batch, .ids = ids}, whole);
      for (int t = 0; t < kSteps; ++t) {
        const std::span<const TokenId> now(ids.data() + t * batch, static_cast<std::size_t>(batch));
        stepping->forward({.steps = 1, .batch = batch, .ids = now}, single);
        const auto begin = whole.begin() + static_cast<std::ptrdiff_t>(t) * static_cast<std::ptrdiff_t>(row);
        const std::vector<float> expected(begin, begin + static_cast<std::ptrdiff_t>(row));
        INFO(batch << " lanes, step " << t);
        CHECK_ALL_CLOSE(single, expected, Tolerance::network(shape, kSteps, batch, test_epsilon()));
      }
    }
  }
}

TEST_CASE("a training step allocates nothing, after the first", "[cpu]") {
  constexpr int kSteps = 12, kBatch = 6;
  const NetworkShape shape{Cell::kLstm, 2, 48, 20};
  const auto backend = cpu::make_cpu_backend(2);
  const auto network = backend->make_network(shape, test_precision());
  Rng rng(4);
  write_random(*network, rng, 0.1);
  const auto session = network->open({kBatch, kSteps, true});
  const std::vector<TokenId> ids = random_ids(rng, kSteps * kBatch, shape.vocabulary);
  const Window window{.steps = kSteps, .batch = kBatch, .ids = ids, .targets = ids, .loss_scale = 1.0F / 72};
  UpdateSettings settings;
  for (std::uint64_t step = 1; step <= 4; ++step) {
    if (step == 3) reset_largest_allocation();
    session->submit_step(window, {0.5F, 1, step, 0}, settings);
    session->next_result();
  }
  // oneDNN makes itself a table of a primitive's arguments whenever one runs: a node of a map is less than this. The
  // smallest array of a step that we could have made, [b,H] of a slice, is more.
  CHECK(largest_allocation() < std::size_t{3} * 48 * sizeof(float));
}
