// The reference itself is held to three things that know nothing of it: cases small enough to be worked out on paper,
// finite differences, and PyTorch's numbers.
#include "reference/reference.h"

#include <cmath>
#include <cstdint>
#include <limits>
#include <numeric>
#include <random>
#include <sstream>
#include <string>
#include <vector>

#include "charrnn/error.h"
#include "support/catch.h"
#include "support/fixtures.h"

using namespace charrnn;
using charrnn::testing::Fixture;
using charrnn::testing::FixtureTraining;
using charrnn::testing::FixtureWindow;

namespace {

constexpr double kEpsilon = std::numeric_limits<double>::epsilon();
const std::vector<Cell> kCells{Cell::kLstm, Cell::kGru, Cell::kRnnTanh, Cell::kRnnRelu};

/// Bound of a difference: absolute + relative * |expected|.
struct Bound {
  double relative = 0;
  double absolute = 0;
};

/// Empty if all elements are close; otherwise says which is furthest off.
std::string off(const std::vector<double>& actual, const std::vector<double>& expected, Bound bound) {
  if (actual.size() != expected.size()) return "sizes differ";
  std::ostringstream message;
  message.precision(17);
  double worst = 1;
  for (std::size_t k = 0; k < actual.size(); ++k) {
    if (actual[k] == expected[k]) continue;
    const double excess = std::abs(actual[k] - expected[k]) / (bound.absolute + bound.relative * std::abs(expected[k]));
    if (excess <= worst) continue;  // false for a NaN, which is so reported
    message.str("");
    message << "element " << k << " is " << actual[k] << ", expected " << expected[k] << ": " << excess
            << " bounds off";
    worst = excess;
  }
  return message.str();
}

/// A network and a window of random numbers; sizes all distinct, so that no two axes can be swapped unseen.
struct Problem {
  static constexpr int kSteps = 4, kBatch = 3;

  explicit Problem(Cell cell, std::uint32_t seed = 11) : shape{cell, 2, 5, 7}, layout(shape), random(seed) {
    parameters.resize(layout.arena_size());
    for (const ParameterTensor& t : layout.tensors()) {
      for (std::size_t k = 0; k < t.count(); ++k) parameters[t.offset + k] = uniform(0.6);
    }
    state = reference::State::zero(shape, kBatch);
    for (double& h : state.h) h = uniform(0.8);
    for (double& c : state.c) c = uniform(0.8);
    for (int k = 0; k < kSteps * kBatch; ++k) {
      ids.push_back(static_cast<TokenId>(random() % 7));
      targets.push_back(static_cast<TokenId>(random() % 7));
      weights.push_back(k % 5 == 3 ? 0.0 : 1 + uniform(0.5));
    }
  }

  double uniform(double bound) { return std::uniform_real_distribution<double>(-bound, bound)(random); }
  reference::Window window() const {
    return {.steps = kSteps,
            .batch = kBatch,
            .ids = ids,
            .inputs = {},
            .targets = targets,
            .weights = weights,
            .reset = reset,
            .loss_scale = 0.3};
  }

  NetworkShape shape;
  ParameterLayout layout;
  std::mt19937 random;
  std::vector<double> parameters;
  reference::State state;
  std::vector<TokenId> ids, targets;
  std::vector<double> weights;
  std::vector<std::uint8_t> reset{0, 1, 0};
};

/// Rounding leaves 2^-53 |f| / step, about 1e-10 for a loss near 10, and truncation step^2 f''' / 6, which is below it.
constexpr Bound kNumeric{.relative = 1e-7, .absolute = 2e-9};

reference::DropoutMask half_mask() {
  return
      [](int layer, int t, int lane, int unit) { return (3 * layer + 5 * t + 7 * lane + unit) % 2 == 0 ? 0.0 : 2.0; };
}

reference::Window as_window(const Fixture& f, const FixtureWindow& w) {
  return {.steps = f.steps,
          .batch = f.batch,
          .ids = w.ids,
          .inputs = {},
          .targets = w.targets,
          .weights = w.weights,
          .reset = w.reset,
          .loss_scale = 1 / w.weight_sum()};
}

}  // namespace

TEST_CASE("the reference's analytic gradients equal its numeric ones", "[reference]") {
  const Cell cell = GENERATE(from_range(kCells));
  CAPTURE(static_cast<int>(cell));
  const Problem p(cell);
  SECTION("without dropout") {
    const auto analytic = reference::forward_backward(p.layout, p.parameters, p.window(), p.state).gradients;
    CHECK(off(analytic, reference::numeric_gradients(p.layout, p.parameters, p.window(), p.state), kNumeric) == "");
  }
  SECTION("with dropout") {
    const auto mask = half_mask();
    const auto analytic = reference::forward_backward(p.layout, p.parameters, p.window(), p.state, mask).gradients;
    CHECK(off(analytic, reference::numeric_gradients(p.layout, p.parameters, p.window(), p.state, mask), kNumeric) ==
          "");
  }
  SECTION("on dense input vectors") {
    Problem q(cell, 12);
    std::vector<double> inputs;
    for (int k = 0; k < Problem::kSteps * Problem::kBatch * 7; ++k) inputs.push_back(q.uniform(1));
    reference::Window window = q.window();
    window.ids = {};
    window.inputs = inputs;
    const auto analytic = reference::forward_backward(q.layout, q.parameters, window, q.state).gradients;
    CHECK(off(analytic, reference::numeric_gradients(q.layout, q.parameters, window, q.state), kNumeric) == "");
  }
}

TEST_CASE("one LSTM unit with every gate's sum 0 halves its cell", "[reference]") {
  // sigmoid(0) = 1/2 and tanh(0) = 0: c = c_prev / 2, h = tanh(c) / 2, whatever the input.
  const ParameterLayout layout({Cell::kLstm, 1, 1, 2});
  const std::vector<double> parameters(layout.arena_size());
  const std::vector<TokenId> ids{1};
  const auto r = reference::forward(layout, parameters, {.steps = 1, .batch = 1, .ids = ids}, {{0.9}, {0.8}});
  CHECK(r.state.c[0] == Approx(0.4).epsilon(1e-15));
  CHECK(r.state.h[0] == Approx(std::tanh(0.4) / 2).epsilon(1e-15));
}

TEST_CASE("one LSTM unit reads its gates in the order i f g o", "[reference]") {
  const ParameterLayout layout({Cell::kLstm, 1, 1, 2});
  std::vector<double> parameters(layout.arena_size());
  double* bias = &parameters[layout.bias_ih(0).offset];
  bias[0] = std::log(3.0);    // i = 3/4
  bias[1] = -std::log(3.0);   // f = 1/4
  bias[2] = std::atanh(0.5);  // g = 1/2
  bias[3] = std::log(4.0);    // o = 4/5
  const std::vector<TokenId> ids{0};
  const auto r = reference::forward(layout, parameters, {.steps = 1, .batch = 1, .ids = ids}, {{0.0}, {0.8}});
  CHECK(r.state.c[0] == Approx(0.25 * 0.8 + 0.75 * 0.5).epsilon(1e-14));
  CHECK(r.state.h[0] == Approx(0.8 * std::tanh(0.575)).epsilon(1e-14));
}

TEST_CASE("one GRU unit resets after the product", "[reference]") {
  // r = 1/4, z = 1/5; W_hn h + b_hn = 2 * 0.5 + 1 = 2, of which r lets 1/2 through, the bias included.
  const ParameterLayout layout({Cell::kGru, 1, 1, 2});
  std::vector<double> parameters(layout.arena_size());
  double* bias_ih = &parameters[layout.bias_ih(0).offset];
  bias_ih[0] = -std::log(3.0);
  bias_ih[1] = -std::log(4.0);
  bias_ih[2] = -0.2;
  parameters[layout.weight_hh(0).offset + 2] = 2;
  parameters[layout.bias_hh(0).offset + 2] = 1;
  const std::vector<TokenId> ids{0};
  const auto r = reference::forward(layout, parameters, {.steps = 1, .batch = 1, .ids = ids}, {{0.5}, {}});
  // The recurrent bias of r and z is 0 and so are their weights: the sums above are theirs.
  CHECK(r.state.h[0] == Approx(0.8 * std::tanh(-0.2 + 0.25 * 2) + 0.2 * 0.5).epsilon(1e-14));
}

TEST_CASE("a plain unit is f of the sum of a column, the recurrence and both biases", "[reference]") {
  const Cell cell = GENERATE(Cell::kRnnTanh, Cell::kRnnRelu);
  const double sign = GENERATE(1.0, -1.0);
  const ParameterLayout layout({cell, 1, 1, 2});
  std::vector<double> parameters(layout.arena_size());
  parameters[layout.weight_ih(0).offset + 1] = sign * 0.5;  // column 1: the character below
  parameters[layout.weight_hh(0).offset] = sign * 2;
  parameters[layout.bias_ih(0).offset] = sign * 0.25;
  parameters[layout.bias_hh(0).offset] = sign * 0.125;
  const std::vector<TokenId> ids{1};
  const auto r = reference::forward(layout, parameters, {.steps = 1, .batch = 1, .ids = ids}, {{0.5}, {}});
  const double sum = sign * 1.875;
  CHECK(r.state.h[0] == Approx(cell == Cell::kRnnTanh ? std::tanh(sum) : std::max(0.0, sum)).epsilon(1e-15));
}

TEST_CASE("the loss of zero logits is ln V and its gradient softmax minus the target", "[reference]") {
  const ParameterLayout layout({Cell::kRnnTanh, 1, 1, 4});
  const std::vector<double> parameters(layout.arena_size());
  const std::vector<TokenId> ids{0}, targets{2};
  const reference::Window window{.steps = 1, .batch = 1, .ids = ids, .inputs = {}, .targets = targets};
  const auto r = reference::forward_backward(layout, parameters, window, {{0.0}, {}});
  CHECK(r.nats == Approx(std::log(4.0)).epsilon(1e-15));
  CHECK(r.weight == 1);
  CHECK(r.correct == 0);  // of equal logits the first counts
  const std::vector<double> expected{0.25, 0.25, -0.75, 0.25};
  const double* bias = &r.gradients[layout.head_bias().offset];
  CHECK(off(std::vector<double>(bias, bias + 4), expected, (Bound{.relative = 0, .absolute = 1e-15})) == "");
}

TEST_CASE("the reference's loss survives logits that overflow exp", "[reference]") {
  const ParameterLayout layout({Cell::kRnnTanh, 1, 1, 2});
  std::vector<double> parameters(layout.arena_size());
  parameters[layout.head_bias().offset] = 2000;
  const std::vector<TokenId> ids{0}, targets{1};
  const reference::Window window{.steps = 1, .batch = 1, .ids = ids, .inputs = {}, .targets = targets};
  CHECK(reference::forward(layout, parameters, window, {{0.0}, {}}).nats == Approx(2000));
}

TEST_CASE("the reference's gradients of the head's bias sum to 0", "[reference]") {
  const Cell cell = GENERATE(from_range(kCells));
  const Problem p(cell);
  const auto r = reference::forward_backward(p.layout, p.parameters, p.window(), p.state);
  const double* bias = &r.gradients[p.layout.head_bias().offset];
  CHECK(std::abs(std::accumulate(bias, bias + 7, 0.0)) < 1e-14);
}

TEST_CASE("a dense 1-of-k vector is the same input as its character", "[reference]") {
  const Cell cell = GENERATE(from_range(kCells));
  const Problem p(cell);
  std::vector<double> inputs(p.ids.size() * 7);
  for (std::size_t k = 0; k < p.ids.size(); ++k) inputs[k * 7 + static_cast<std::size_t>(p.ids[k])] = 1;
  reference::Window dense = p.window();
  dense.ids = {};
  dense.inputs = inputs;
  const auto from_ids = reference::forward_backward(p.layout, p.parameters, p.window(), p.state);
  const auto from_vectors = reference::forward_backward(p.layout, p.parameters, dense, p.state);
  CHECK(from_ids.logits == from_vectors.logits);
  CHECK(from_ids.gradients == from_vectors.gradients);
}

TEST_CASE("a reset lane forgets its state and the others keep theirs", "[reference]") {
  const Cell cell = GENERATE(from_range(kCells));
  Problem p(cell);
  const auto with_reset = reference::forward(p.layout, p.parameters, p.window(), p.state);
  p.reset.clear();
  for (int l = 0; l < 2; ++l) {
    for (int j = 0; j < 5; ++j) {
      p.state.h[static_cast<std::size_t>((l * 3 + 1) * 5 + j)] = 0;
      if (has_cell_state(cell)) p.state.c[static_cast<std::size_t>((l * 3 + 1) * 5 + j)] = 0;
    }
  }
  CHECK(with_reset.logits == reference::forward(p.layout, p.parameters, p.window(), p.state).logits);
}

TEST_CASE("stepping the reference with carried state equals one window", "[reference]") {
  const Cell cell = GENERATE(from_range(kCells));
  Problem p(cell);
  const auto whole = reference::forward(p.layout, p.parameters, p.window(), p.state);
  reference::State state = p.state;
  std::vector<double> logits;
  for (std::size_t t = 0; t < Problem::kSteps; ++t) {
    reference::Window one = p.window();
    one.steps = 1;
    one.ids = one.ids.subspan(t * 3, 3);
    one.targets = {};
    one.weights = {};
    if (t > 0) one.reset = {};
    auto r = reference::forward(p.layout, p.parameters, one, state);
    logits.insert(logits.end(), r.logits.begin(), r.logits.end());
    state = std::move(r.state);
  }
  CHECK(logits == whole.logits);
  CHECK(state.h == whole.state.h);
  CHECK(state.c == whole.state.c);
}

TEST_CASE("the target of a weight 0 is not read, and other ids outside the vocabulary are refused", "[reference]") {
  Problem p(Cell::kGru);
  const auto before = reference::forward_backward(p.layout, p.parameters, p.window(), p.state);
  p.targets[3] = -1;  // its weight is 0
  const auto after = reference::forward_backward(p.layout, p.parameters, p.window(), p.state);
  CHECK(after.gradients == before.gradients);
  p.targets[4] = 7;
  CHECK_THROWS_AS(reference::forward(p.layout, p.parameters, p.window(), p.state), ShapeError);
  p.targets[4] = 0;
  p.ids[0] = -1;
  CHECK_THROWS_AS(reference::forward(p.layout, p.parameters, p.window(), p.state), ShapeError);
}

TEST_CASE("the reference clips by value element by element and by norm all alike", "[reference]") {
  std::vector<double> g{3, -4, 0.5};
  reference::clip({ClipConfig::Kind::kValue, 1}, g);
  CHECK(g == std::vector<double>{1, -1, 0.5});
  g = {3, -4};
  reference::clip({ClipConfig::Kind::kNorm, 6}, g);
  CHECK(g == std::vector<double>{3, -4});
  reference::clip({ClipConfig::Kind::kNorm, 2.5}, g);
  CHECK(off(g, (std::vector<double>{1.5, -2}), (Bound{.relative = 1e-15})) == "");
}

TEST_CASE("the first step of each optimizer is the one worked out by hand", "[reference]") {
  const std::vector<double> g{0.5, -2};
  std::vector<double> p{1, 1};
  reference::OptimizerState state(2);
  OptimizerConfig config;
  config.learning_rate = 0.1;
  config.epsilon = 0;
  SECTION("rmsprop: lr / sqrt(1 - decay) against the sign") {
    config.name = OptimizerKind::kRmsprop;
    config.decay_rate = 0.75;
    reference::update(config, 1, g, p, state);
    CHECK(off(p, (std::vector<double>{0.8, 1.2}), (Bound{.relative = 1e-15})) == "");
  }
  SECTION("adam: lr against the sign") {
    config.name = OptimizerKind::kAdam;
    reference::update(config, 1, g, p, state);
    CHECK(off(p, (std::vector<double>{0.9, 1.1}), (Bound{.relative = 1e-14})) == "");
  }
  SECTION("adagrad: lr against the sign") {
    config.name = OptimizerKind::kAdagrad;
    reference::update(config, 1, g, p, state);
    CHECK(off(p, (std::vector<double>{0.9, 1.1}), (Bound{.relative = 1e-15})) == "");
  }
  SECTION("sgd: lr times the gradient, then with momentum") {
    config.name = OptimizerKind::kSgd;
    config.momentum = 0.5;
    reference::update(config, 1, g, p, state);
    CHECK(off(p, (std::vector<double>{0.95, 1.2}), (Bound{.relative = 1e-15})) == "");
    reference::update(config, 2, g, p, state);
    CHECK(off(p, (std::vector<double>{0.875, 1.5}), (Bound{.relative = 1e-15})) == "");
  }
}

// Both sides are double: they differ by the order of their sums alone. The longest chain of products runs through
// K = V + H = 12 of a cell and H = 5 of the head, in T = 4 steps and 2 layers: about 200 accumulated in all, so
// 4 ceil(log2(200)) eps.
TEST_CASE("the reference equals PyTorch: window and gradients", "[reference][pytorch]") {
  const std::string cell = GENERATE(from_range(charrnn::testing::fixture_cells()));
  const Fixture f = charrnn::testing::read_fixture(cell);
  CAPTURE(cell, f.seed, f.torch_version);
  const auto r = reference::forward_backward(f.layout, f.parameters, as_window(f, f.window), {f.h, f.c});
  const Bound tolerance{.relative = 32 * kEpsilon, .absolute = 32 * kEpsilon};
  CHECK(off(r.logits, f.logits, tolerance) == "");
  CHECK(off(r.state.h, f.final_h, tolerance) == "");
  CHECK(off(r.state.c, f.final_c, tolerance) == "");
  CHECK(r.nats == Approx(f.nats).epsilon(tolerance.relative));
  CHECK(r.weight == Approx(f.weight).epsilon(tolerance.relative));
  CHECK(r.correct == Approx(f.correct).epsilon(tolerance.relative));
  CHECK(off(r.gradients, f.gradients, tolerance) == "");
}

// Ten steps feed each other, and RMSProp, Adam and Adagrad divide a gradient by its own size: an element near 0 gets
// its absolute error, some 1e-16, divided by itself and multiplied by the rate. At 1e-10 that leaves room for gradients
// down to 1e-8, under which the epsilon of 1e-8 takes over.
TEST_CASE("the reference equals PyTorch: ten steps of each optimizer", "[reference][pytorch]") {
  const std::string cell = GENERATE(from_range(charrnn::testing::fixture_cells()));
  const Fixture f = charrnn::testing::read_fixture(cell);
  REQUIRE(f.training.size() == 4);
  REQUIRE(f.training_windows.size() == 10);
  const Bound tolerance{.relative = 1e-10, .absolute = 1e-10};
  for (const FixtureTraining& training : f.training) {
    CAPTURE(cell, f.seed, f.torch_version, training.name);
    std::vector<double> parameters = f.parameters, losses, norms;
    reference::OptimizerState moments(parameters.size());
    reference::State state{f.h, f.c};
    for (std::size_t step = 0; step < f.training_windows.size(); ++step) {
      auto r = reference::forward_backward(f.layout, parameters, as_window(f, f.training_windows[step]), state);
      losses.push_back(r.nats / r.weight);
      norms.push_back(reference::norm(r.gradients));
      reference::clip(training.clip, r.gradients);
      reference::update(training.optimizer, static_cast<std::int64_t>(step) + 1, r.gradients, parameters, moments);
      state = std::move(r.state);
    }
    CHECK(off(losses, training.losses, tolerance) == "");
    CHECK(off(norms, training.gradient_norms, tolerance) == "");
    CHECK(off(parameters, training.parameters, tolerance) == "");
  }
}
