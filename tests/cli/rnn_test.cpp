#include "charrnn/rnn.h"

#include <filesystem>

#include "charrnn/charrnn.h"
#include "cli/small_network.h"
#include "support/catch.h"
#include "support/temp_folder.h"

namespace charrnn {
namespace {

namespace fs = std::filesystem;
using testing::SmallNetwork;

/// A checkpoint of a small network in a folder of its own, removed with this object.
struct SavedNetwork {
  tests::TempFolder folder;
  SmallNetwork small;

  explicit SavedNetwork(Cell cell) : small(cell) { save_checkpoint(checkpoint(), small.checkpoint()); }
  fs::path checkpoint() const { return folder / "checkpoint"; }
};

std::vector<float> copy(std::span<const float> y) { return {y.begin(), y.end()}; }

}  // namespace

TEST_CASE("stepping a loaded network gives the logits of its network", "[rnn]") {
  SavedNetwork saved(GENERATE(Cell::kLstm, Cell::kGru, Cell::kRnnTanh));
  Rnn rnn = Rnn::load(saved.checkpoint(), "cpu", 1);
  CHECK(rnn.vocabulary() == saved.small.vocabulary);
  CHECK(rnn.shape() == saved.small.network->layout().shape());
  const auto session = saved.small.network->open({.batch = 1, .max_steps = 1, .training = false});
  std::vector<float> expected(11);
  for (const TokenId x : {3, 0, 10, 3}) {
    session->forward({.steps = 1, .batch = 1, .ids = {&x, 1}, .targets = {}, .weights = {}, .reset = {}}, expected);
    CHECK(copy(rnn.step(x)) == expected);
  }
}

TEST_CASE("a 1-of-k vector and its index give the same step", "[rnn]") {
  // This is where the one-hot vectors of the article went: a product with one is a column of the matrix.
  SavedNetwork saved(GENERATE(Cell::kLstm, Cell::kGru, Cell::kRnnTanh));
  Rnn by_id = Rnn::load(saved.checkpoint(), "cpu", 1);
  Rnn by_vector = Rnn::load(saved.checkpoint(), "cpu", 1);
  for (const TokenId x : {4, 9, 0, 4}) {
    std::vector<float> one_hot(11);
    one_hot[static_cast<std::size_t>(x)] = 1;
    const auto a = copy(by_id.step(x));
    const auto b = copy(by_vector.step(one_hot));
    for (std::size_t i = 0; i < a.size(); ++i) CHECK(b[i] == Approx(a[i]).epsilon(3e-6).margin(3e-6));
  }
}

TEST_CASE("networks can be stacked: y = rnn2.step(rnn1.step(x))", "[rnn]") {
  SavedNetwork saved(Cell::kLstm);
  Rnn rnn1 = Rnn::load(saved.checkpoint(), "cpu", 1);
  Rnn rnn2 = Rnn::load(saved.checkpoint(), "cpu", 1);
  const auto y = copy(rnn2.step(rnn1.step(5)));
  CHECK(y.size() == 11);
  rnn1.reset();
  CHECK(copy(rnn2.step(rnn1.step(5))) != y);  // rnn2 has a state by now
  rnn2.reset();
  rnn1.reset();
  CHECK(copy(rnn2.step(rnn1.step(5))) == y);
  CHECK_NOTHROW(rnn1.step(rnn1.step(5)));  // the argument may be what it returned itself
}

TEST_CASE("a state can be taken out and put back", "[rnn]") {
  SavedNetwork saved(GENERATE(Cell::kLstm, Cell::kGru, Cell::kRnnRelu));
  Rnn rnn = Rnn::load(saved.checkpoint(), "cpu", 1);
  rnn.step(1);
  rnn.step(2);
  const Rnn::State state = rnn.state();
  CHECK(state.h.size() == 26);
  CHECK(state.c.size() == (has_cell_state(rnn.shape().cell) ? 26U : 0U));
  const auto y = copy(rnn.step(3));
  rnn.step(7);
  rnn.set_state(state);
  CHECK(copy(rnn.step(3)) == y);
}

TEST_CASE("wrong sizes are refused and change nothing", "[rnn]") {
  SavedNetwork saved(Cell::kLstm);
  Rnn rnn = Rnn::load(saved.checkpoint(), "cpu", 1);
  rnn.step(1);
  const Rnn::State before = rnn.state();
  CHECK_THROWS_AS(rnn.step(-1), ShapeError);
  CHECK_THROWS_AS(rnn.step(11), ShapeError);
  CHECK_THROWS_AS(rnn.step(std::vector<float>(10)), ShapeError);
  CHECK_THROWS_AS(rnn.set_state({std::vector<float>(26), std::vector<float>(25)}), ShapeError);
  CHECK(rnn.state().h == before.h);
  CHECK(rnn.state().c == before.c);
}

TEST_CASE("what is no checkpoint cannot be loaded", "[rnn]") {
  SavedNetwork saved(Cell::kLstm);
  CHECK_THROWS_AS(Rnn::load(saved.folder / "absent", "cpu", 1), FormatError);
  CHECK_THROWS_AS(Rnn::load(saved.checkpoint(), "tpu", 1), ConfigError);
}

TEST_CASE("a sampler from a checkpoint draws texts", "[rnn][sampler]") {
  SavedNetwork saved(Cell::kGru);
  Sampler sampler = Sampler::load(saved.checkpoint(), "cpu", 1);
  SampleSettings settings;
  settings.length = 30;
  settings.prime = "abc";
  CHECK(sampler.draw_texts(settings) == sample_texts(*saved.small.network, saved.small.vocabulary, settings));
}

}  // namespace charrnn
