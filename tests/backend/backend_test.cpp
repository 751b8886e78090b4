// Every backend against the double-precision reference, at odd and distinct sizes.
#include <bit>
#include <cmath>
#include <cstring>
#include <memory>

#include "backend/backend.h"
#include "charrnn/error.h"
#include "kernels/philox.h"
#include "model/initialize.h"
#include "reference/reference.h"
#include "support/approx.h"
#include "support/catch.h"
#include "support/test_device.h"

using namespace charrnn;
using tests::Tolerance;

namespace {

constexpr Cell kCells[] = {Cell::kLstm, Cell::kGru, Cell::kRnnTanh, Cell::kRnnRelu};

struct Case {
  NetworkShape network;
  int steps = 1, batch = 1, threads = 1;
};

/// All sizes distinct; 37 and 21 are no multiples of a vector, 1 is the smallest of everything.
std::vector<Case> cases() {
  std::vector<Case> all;
  for (const Cell cell : kCells) {
    all.push_back({{cell, 2, 37, 11}, 4, 3, 2});
    all.push_back({{cell, 3, 21, 5}, 7, 6, 3});
    all.push_back({{cell, 1, 1, 2}, 1, 1, 2});
    all.push_back({{cell, 2, 64, 100}, 9, 5, 1});
  }
  return all;
}

std::vector<double> to_double(const std::vector<float>& x) { return {x.begin(), x.end()}; }

/// A network with weights large enough for every nonlinearity to matter, a window with weights and resets, and a state.
struct Setup {
  Case size;
  std::unique_ptr<Backend> backend;
  std::unique_ptr<Network> network;
  std::unique_ptr<Session> session;
  std::vector<float> parameters, h, c, weights;
  std::vector<TokenId> ids, targets;
  std::vector<std::uint8_t> reset;
  float loss_scale = 0;

  explicit Setup(const Case& s, bool training = true, int max_steps = 0)
      : size(s),
        backend(tests::open_test_backend(s.threads)),
        network(backend->make_network(s.network, tests::test_precision())),
        session(network->open({s.batch, max_steps > 0 ? max_steps : s.steps, training})) {
    Rng rng(7);
    parameters.assign(network->layout().arena_size(), 0.0F);
    for (const auto& tensor : network->layout().tensors()) {
      const double scale = tensor.cols == 0 ? 0.3 : 1.0 / std::sqrt(static_cast<double>(tensor.cols));
      for (std::size_t i = 0; i < tensor.count(); ++i) {
        parameters[tensor.offset + i] = static_cast<float>(scale * rng.normal());
      }
    }
    network->write(Arena::kParameters, parameters);
    const auto state = static_cast<std::size_t>(s.network.layers * s.batch * s.network.hidden);
    h.resize(state);
    for (float& x : h) x = static_cast<float>(0.5 * rng.normal());
    if (has_cell_state(s.network.cell)) c = h;
    session->set_state(h, c);
    const auto count = static_cast<std::size_t>(s.steps * s.batch);
    double sum = 0;
    for (std::size_t i = 0; i < count; ++i) {
      ids.push_back(static_cast<TokenId>(rng.next_u32() % static_cast<unsigned>(s.network.vocabulary)));
      targets.push_back(static_cast<TokenId>(rng.next_u32() % static_cast<unsigned>(s.network.vocabulary)));
      weights.push_back(i % 5 == 3 ? 0.0F : i % 3 == 1 ? 0.5F : 1.0F);
      if (weights.back() == 0.0F) targets.back() = -1;  // a target of weight 0 is not read
      sum += static_cast<double>(weights.back());
    }
    loss_scale = static_cast<float>(1 / sum);
    for (int lane = 0; lane < s.batch; ++lane) reset.push_back(lane % 3 == 2 ? 1 : 0);
  }

  Window window() const { return {size.steps, size.batch, ids, targets, weights, reset, loss_scale}; }

  reference::Result reference_result(const reference::DropoutMask& mask = {}) const {
    const std::vector<double> w = to_double(weights), p = to_double(parameters);
    const reference::Window window{size.steps, size.batch, ids, {}, targets, w, reset, static_cast<double>(loss_scale)};
    return reference::forward_backward(network->layout(), p, window, {to_double(h), to_double(c)}, mask);
  }

  Tolerance tolerance() const {
    return Tolerance::network(size.network, size.steps, size.batch, tests::test_epsilon());
  }

  std::vector<float> read(Arena which) const {
    std::vector<float> all(network->layout().arena_size());
    network->read(which, all);
    return all;
  }

  void check_state(const reference::State& expected) {
    std::vector<float> h_now(h.size()), c_now(c.size());
    session->get_state(h_now, c_now);
    CHECK_ALL_CLOSE(h_now, expected.h, tolerance());
    CHECK_ALL_CLOSE(c_now, expected.c, tolerance());
  }
};

double norm(const std::vector<double>& x) {
  double sum = 0;
  for (const double v : x) sum += v * v;
  return std::sqrt(sum);
}

/// A relu whose pre-activation lies within its rounding of 0 lets through all of its gradient or nothing, so that in 16
/// bits single elements are off by their whole size while the tensor as such is right: its difference stays below a
/// quarter of its norm. A swapped axis or gate gives about sqrt(2).
void check_as_a_whole(const std::vector<float>& actual, const std::vector<double>& expected) {
  std::vector<double> difference(expected.size());
  for (std::size_t i = 0; i < expected.size(); ++i) difference[i] = static_cast<double>(actual[i]) - expected[i];
  CHECK(norm(difference) <= 0.25 * norm(expected));
}

/// Tensor by tensor, so that a small gradient is held to its own size.
void check_gradients(const Setup& setup, const std::vector<double>& expected) {
  const std::vector<float> actual = setup.read(Arena::kGradients);
  for (const auto& tensor : setup.network->layout().tensors()) {
    INFO(tensor.name);
    const auto at = static_cast<std::ptrdiff_t>(tensor.offset),
               end = static_cast<std::ptrdiff_t>(tensor.offset + tensor.count());
    const std::vector<float> a(actual.begin() + at, actual.begin() + end);
    const std::vector<double> e(expected.begin() + at, expected.begin() + end);
    if (setup.size.network.cell == Cell::kRnnRelu && tests::test_precision() != Precision::kFp32) {
      check_as_a_whole(a, e);
    } else {
      CHECK_ALL_CLOSE(a, e, setup.tolerance());
    }
  }
}

std::string describe(const Case& c) {
  return "cell " + std::to_string(static_cast<int>(c.network.cell)) + " layers " + std::to_string(c.network.layers) +
         " hidden " + std::to_string(c.network.hidden) + " T " + std::to_string(c.steps) + " B " +
         std::to_string(c.batch);
}

}  // namespace

TEST_CASE("forward gives the reference's logits and state", "[backend]") {
  for (const Case& size : cases()) {
    INFO(describe(size));
    Setup s(size, false);
    std::vector<float> logits(s.ids.size() * static_cast<std::size_t>(size.network.vocabulary));
    s.session->forward(s.window(), logits);
    const auto expected = s.reference_result();
    CHECK_ALL_CLOSE(logits, expected.logits, s.tolerance());
    s.check_state(expected.state);
  }
}

TEST_CASE("evaluate gives the reference's weighted loss", "[backend]") {
  for (const Case& size : cases()) {
    INFO(describe(size));
    Setup s(size, false);
    const WindowLoss loss = s.session->evaluate(s.window());
    const auto expected = s.reference_result();
    CHECK(loss.nats == Approx(expected.nats).epsilon(s.tolerance().relative));
    CHECK(loss.weight == expected.weight);
    CHECK(loss.correct == expected.correct);
    s.check_state(expected.state);
  }
}

TEST_CASE("gradients are the reference's, for every tensor", "[backend]") {
  for (const Case& size : cases()) {
    INFO(describe(size));
    Setup s(size);
    const WindowLoss loss = s.session->gradients(s.window(), {});
    const auto expected = s.reference_result();
    CHECK(loss.nats == Approx(expected.nats).epsilon(s.tolerance().relative));
    check_gradients(s, expected.gradients);
    s.check_state(expected.state);
  }
}

TEST_CASE("gradients with dropout are the reference's under the same masks", "[backend]") {
  for (const Case& size : cases()) {
    INFO(describe(size));
    Setup s(size);
    const DropoutKey key{0.4F, 0x123456789abcdefU, 0x2'0000'0005U, 3};
    s.session->gradients(s.window(), key);
    const auto mask = [&](int layer, int t, int lane, int unit) {
      const PhiloxBlock x =
          dropout_numbers(key.seed, key.step, static_cast<std::uint32_t>(layer), static_cast<std::uint32_t>(t),
                          static_cast<std::uint32_t>(key.first_lane + lane), static_cast<std::uint32_t>(unit / 4));
      const std::uint32_t numbers[] = {x.x0, x.x1, x.x2, x.x3};
      return numbers[unit % 4] < dropout_bound(key.probability) ? 0.0 : 1 / (1 - static_cast<double>(key.probability));
    };
    check_gradients(s, s.reference_result(mask).gradients);
  }
}

TEST_CASE("dropout keeps the share that it should, independently of the step before", "[backend]") {
  const std::uint32_t bound = dropout_bound(0.3F);
  constexpr int kBlocks = 20000;
  int dropped = 0, both = 0;
  for (std::uint32_t k = 0; k < kBlocks; ++k) {
    const bool now = dropout_numbers(5, 8, 1, 2, 3, k).x2 < bound;
    const bool next = dropout_numbers(5, 9, 1, 2, 3, k).x2 < bound;
    dropped += now ? 1 : 0;
    both += now && next ? 1 : 0;
  }
  const auto within = [](int count, double p) {  // five standard errors of a binomial share
    return std::abs(count / double{kBlocks} - p) < 5 * std::sqrt(p * (1 - p) / kBlocks);
  };
  CHECK(within(dropped, 0.3));
  CHECK(within(both, 0.09));
}

TEST_CASE("philox gives the published test vectors", "[backend]") {
  // Random123's kat_vectors: philox4x32, 10 rounds.
  const auto check = [](PhiloxBlock counter, std::uint32_t k0, std::uint32_t k1, PhiloxBlock expected) {
    const PhiloxBlock x = philox(counter, k0, k1);
    CHECK(x.x0 == expected.x0);
    CHECK(x.x1 == expected.x1);
    CHECK(x.x2 == expected.x2);
    CHECK(x.x3 == expected.x3);
  };
  check({0, 0, 0, 0}, 0, 0, {0x6627e8d5U, 0xe169c58dU, 0xbc57ac4cU, 0x9b00dbd8U});
  check({0xffffffffU, 0xffffffffU, 0xffffffffU, 0xffffffffU}, 0xffffffffU, 0xffffffffU,
        {0x408f276dU, 0x41c83b0eU, 0xa20bc7c6U, 0x6d5451fdU});
  check({0x243f6a88U, 0x85a308d3U, 0x13198a2eU, 0x03707344U}, 0xa4093822U, 0x299f31d0U,
        {0xd16cfe09U, 0x94fdccebU, 0x5001e420U, 0x24126ea1U});
}

TEST_CASE("stepping T times equals one T-step forward", "[backend]") {
  for (const Case& size : cases()) {
    INFO(describe(size));
    Setup whole(size, false), stepped(size, false);
    const auto row = static_cast<std::size_t>(size.batch);
    const auto logits_row = row * static_cast<std::size_t>(size.network.vocabulary);
    std::vector<float> all(logits_row * static_cast<std::size_t>(size.steps)), one(all.size());
    whole.session->forward(whole.window(), all);
    for (std::size_t t = 0; t < static_cast<std::size_t>(size.steps); ++t) {
      Window w{.steps = 1, .batch = size.batch, .ids = std::span(stepped.ids).subspan(t * row, row)};
      if (t == 0) w.reset = stepped.reset;
      stepped.session->forward(w, std::span(one).subspan(t * logits_row, logits_row));
    }
    CHECK_ALL_CLOSE(one, all, whole.tolerance());
  }
}

TEST_CASE("lanes of a batch do not affect each other", "[backend]") {
  for (const Cell cell : kCells) {
    const Case size{{cell, 2, 19, 7}, 5, 4, 2};
    Setup a(size, false), b(size, false);
    for (std::size_t i = 0; i < b.ids.size(); ++i) {
      if (i % 4 != 1) b.ids[i] = (b.ids[i] + 3) % 7;  // all lanes but lane 1 read another text
    }
    std::vector<float> logits_a(a.ids.size() * 7), logits_b(logits_a.size());
    a.session->forward(a.window(), logits_a);
    b.session->forward(b.window(), logits_b);
    for (std::size_t t = 0; t < 5; ++t) {
      CHECK(std::memcmp(&logits_a[(t * 4 + 1) * 7], &logits_b[(t * 4 + 1) * 7], 7 * sizeof(float)) == 0);
    }
  }
}

TEST_CASE("a 1-of-k vector times W is a column of W: ids and one-hot vectors give the same logits", "[backend]") {
  for (const Case& size : cases()) {
    INFO(describe(size));
    Setup by_id(size, false), by_vector(size, false);
    by_id.reset.clear();  // dense windows have no resets
    const auto V = static_cast<std::size_t>(size.network.vocabulary);
    std::vector<float> one_hot(by_id.ids.size() * V), a(one_hot.size()), b(one_hot.size());
    for (std::size_t i = 0; i < by_id.ids.size(); ++i) one_hot[i * V + static_cast<std::size_t>(by_id.ids[i])] = 1.0F;
    by_id.session->forward(by_id.window(), a);
    by_vector.session->forward_dense(size.steps, one_hot, b);
    CHECK_ALL_CLOSE(b, a, by_id.tolerance());
  }
}

TEST_CASE("a window shorter than the session's longest gives the same as a session of its size", "[backend]") {
  for (const Cell cell : kCells) {
    const Case size{{cell, 2, 13, 6}, 3, 5, 2};
    Setup exact(size), roomy(size, true, 8);
    exact.session->gradients(exact.window(), {});
    roomy.session->gradients(roomy.window(), {});
    CHECK(exact.read(Arena::kGradients) == roomy.read(Arena::kGradients));
  }
}

TEST_CASE("the loss of zero logits is ln V, and rows of its gradient sum to zero", "[backend]") {
  Setup s({{Cell::kLstm, 1, 5, 9}, 3, 2, 1});
  s.network->write(Arena::kParameters, std::vector<float>(s.parameters.size()));
  const WindowLoss loss = s.session->gradients(s.window(), {});
  CHECK(loss.nats / loss.weight == Approx(std::log(9.0)).epsilon(1e-6));
  const std::vector<float> g = s.read(Arena::kGradients);
  const auto& bias = s.network->layout().head_bias();
  double sum = 0;
  for (std::size_t v = 0; v < 9; ++v) sum += static_cast<double>(g[bias.offset + v]);
  CHECK(std::abs(sum) < 9 * 1e-7);  // nine terms below 1, each rounded to fp32
}

TEST_CASE("optimizers are the reference's over ten steps", "[backend]") {
  const OptimizerKind kinds[] = {OptimizerKind::kRmsprop, OptimizerKind::kAdam, OptimizerKind::kAdagrad,
                                 OptimizerKind::kSgd};
  const ClipConfig clips[] = {{ClipConfig::Kind::kNone, 0},
                              {ClipConfig::Kind::kValue, 0.3},
                              {ClipConfig::Kind::kNorm, 0.7}};
  for (const OptimizerKind kind : kinds) {
    for (const ClipConfig& clip : clips) {
      INFO("optimizer " << static_cast<int>(kind) << " clip " << static_cast<int>(clip.kind));
      Setup s({{Cell::kGru, 1, 7, 5}, 1, 1, 2});
      UpdateSettings settings;
      settings.optimizer.name = kind;
      settings.optimizer.learning_rate = 0.01;
      settings.optimizer.momentum = 0.9;
      settings.clip = clip;
      std::vector<double> p = to_double(s.parameters);
      reference::OptimizerState state(p.size());
      Rng rng(3);
      for (int step = 1; step <= 10; ++step) {
        std::vector<float> g(p.size());
        for (const auto& tensor : s.network->layout().tensors()) {
          for (std::size_t i = 0; i < tensor.count(); ++i) g[tensor.offset + i] = static_cast<float>(rng.normal());
        }
        s.network->write(Arena::kGradients, g);
        const StepResult result = s.network->update(settings);
        std::vector<double> gradients = to_double(g);
        CHECK(result.gradient_norm == Approx(reference::norm(gradients)).epsilon(1e-12));
        CHECK_FALSE(result.skipped);
        reference::clip(clip, gradients);
        reference::update(settings.optimizer, step, gradients, p, state);
      }
      CHECK_ALL_CLOSE(s.read(Arena::kParameters), p, Tolerance::fp32(4, 10));
      CHECK_ALL_CLOSE(s.read(Arena::kMoment1), state.moment1, Tolerance::fp32(4, 10));
      CHECK_ALL_CLOSE(s.read(Arena::kMoment2), state.moment2, Tolerance::fp32(4, 10));
    }
  }
}

TEST_CASE("a skipped update does not count for Adam's bias correction", "[backend]") {
  Setup plain({{Cell::kGru, 1, 7, 5}, 1, 1, 2}), skipping({{Cell::kGru, 1, 7, 5}, 1, 1, 2});
  UpdateSettings settings;
  settings.optimizer.name = OptimizerKind::kAdam;
  skipping.network->write(Arena::kGradients, std::vector<float>(plain.parameters.size(), std::nanf("")));
  CHECK(skipping.network->update(settings).skipped);
  for (Setup* s : {&plain, &skipping}) {
    s->network->write(Arena::kGradients, std::vector<float>(plain.parameters.size(), 0.5F));
    CHECK_FALSE(s->network->update(settings).skipped);
    CHECK(s->network->update_state().updates == 1);
  }
  CHECK(plain.read(Arena::kParameters) == skipping.read(Arena::kParameters));
}

TEST_CASE("a zero gradient leaves RMSProp's weights alone", "[backend]") {
  Setup s({{Cell::kRnnTanh, 1, 3, 4}, 1, 1, 1});
  s.network->update({});
  CHECK(s.read(Arena::kParameters) == s.parameters);
}

TEST_CASE("a gradient that is not finite changes nothing", "[backend]") {
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    Setup s({{Cell::kLstm, 2, 9, 6}, 3, 2, 2});
    std::vector<float> g(s.parameters.size(), 0.1F);
    g[g.size() / 2] = bad;
    s.network->write(Arena::kGradients, g);
    CHECK(s.network->update({}).skipped);
    CHECK(s.read(Arena::kParameters) == s.parameters);
    CHECK(s.read(Arena::kMoment1) == std::vector<float>(s.parameters.size()));
  }
}

TEST_CASE("a step whose loss is not finite is skipped, and its lanes start again from zero", "[backend]") {
  Setup s({{Cell::kLstm, 2, 9, 6}, 3, 4, 2});
  std::vector<float> poisoned = s.parameters;
  poisoned[s.network->layout().head_bias().offset] = std::numeric_limits<float>::quiet_NaN();
  s.network->write(Arena::kParameters, poisoned);
  s.session->submit_step(s.window(), {}, {});
  CHECK(s.session->next_result().skipped);
  std::vector<float> h(s.h.size()), c(s.c.size());
  s.session->get_state(h, c);
  CHECK(h == std::vector<float>(h.size()));
  CHECK(c == std::vector<float>(c.size()));
  s.network->write(Arena::kParameters, s.parameters);  // and the next step is a good one
  s.session->submit_step(s.window(), {}, {});
  CHECK_FALSE(s.session->next_result().skipped);
}

TEST_CASE("the same steps on the same threads give the same bits", "[backend]") {
  for (const Cell cell : kCells) {
    const Case size{{cell, 2, 33, 10}, 6, 7, 3};
    std::vector<float> first;
    for (int run = 0; run < 3; ++run) {
      Setup s(size);
      for (int step = 1; step <= 5; ++step) {
        UpdateSettings settings;
        s.session->submit_step(s.window(), {0.5F, 1, static_cast<std::uint64_t>(step), 0}, settings);
        s.session->next_result();
      }
      const std::vector<float> now = s.read(Arena::kParameters);
      if (run == 0) first = now;
      CHECK(std::memcmp(first.data(), now.data(), now.size() * sizeof(float)) == 0);
    }
  }
}

TEST_CASE("wrong sizes are refused by name, and nothing happens", "[backend]") {
  Setup s({{Cell::kLstm, 1, 4, 3}, 2, 2, 1});
  Window w = s.window();
  w.steps = 3;
  CHECK_THROWS_AS(s.session->gradients(w, {}), ShapeError);
  s.ids[0] = 3;
  CHECK_THROWS_AS(s.session->forward(s.window(), {}), ShapeError);
  s.ids[0] = -1;
  CHECK_THROWS_AS(s.session->evaluate(s.window()), ShapeError);
  s.ids[0] = 0;
  const auto refused = [&s](Window bad) { CHECK_THROWS_AS(s.session->evaluate(bad), ShapeError); };
  Window bad = s.window();
  bad.targets = {};
  refused(bad);
  bad = s.window();
  bad.weights = bad.weights.subspan(1);
  refused(bad);
  bad = s.window();
  bad.reset = bad.reset.subspan(1);
  refused(bad);
  CHECK_THROWS_AS(s.session->next_result(), ShapeError);
  if (tests::on_cpu()) CHECK_THROWS_AS(s.backend->make_network(s.size.network, Precision::kFp16), DeviceError);
}
