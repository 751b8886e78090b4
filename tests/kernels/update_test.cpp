// The optimizer's step: norm, decision, update.
#include "kernels/update.h"

#include <cmath>
#include <limits>

#include "kernel_test.h"
#include "reference/reference.h"

using namespace charrnn::cuda;
using namespace kernel_test;
using charrnn::ClipConfig;
using charrnn::OptimizerConfig;
using charrnn::OptimizerFactors;
using charrnn::OptimizerKind;

namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr OptimizerKind kOptimizers[] = {OptimizerKind::kRmsprop, OptimizerKind::kAdam, OptimizerKind::kAdagrad,
                                         OptimizerKind::kSgd};

/// What decide() starts from. By default the sum of squares is 9: the norm of scaled gradients is 3.
struct Step {
  Numbers partial{4, 5};
  bool has_window = true;
  WindowSums window{6, 4, 0};
  StepInputs inputs{.dropout = {},
                    .rule = {{.optimizer = OptimizerKind::kSgd, .learning_rate = 0.25}, ClipConfig::Kind::kNone, 0},
                    .window = 3,
                    .windows_per_epoch = 5,
                    .slot = 6};
  DeviceUpdateState state{};
};
struct Decided {
  UpdateDecision decision;
  StepRecord record;
  StepInputs inputs;
  DeviceUpdateState state;
};
constexpr std::uint32_t kRingSize = 4;

Decided decided(const Step& s) {
  Decided y{};
  in_any_order([&](cudaStream_t stream) {
    const Device<double> partial(s.partial);
    const Device<WindowSums> window(std::vector<WindowSums>{s.window});
    const Device<StepInputs> inputs(std::vector<StepInputs>{s.inputs});
    const Device<DeviceUpdateState> state(std::vector<DeviceUpdateState>{s.state});
    const Device<UpdateDecision> decision(std::vector<UpdateDecision>{{.scale = -77, .clip_value = -77}});
    const Pinned<StepRecord> ring(kRingSize);
    for (std::uint32_t i = 0; i < kRingSize; ++i) ring[i] = {kUntouched, kUntouched, -1};
    decide({.partial = partial,
            .chunks = static_cast<std::int64_t>(s.partial.size()),
            .window = s.has_window ? static_cast<const WindowSums*>(window) : nullptr,
            .inputs = inputs,
            .state = state,
            .decision = decision,
            .ring = ring,
            .ring_size = kRingSize},
           stream);
    host_cuda_test::succeed(cudaStreamSynchronize(stream));
    const std::uint32_t slot = s.inputs.slot % kRingSize;
    y = {decision.read(1).front(), ring[slot], inputs.read(1).front(), state.read(1).front()};
    Outcome numbers{{y.decision.scale, y.record.gradient_norm}};
    for (std::uint32_t i = 0; i < kRingSize; ++i) {
      CHECK((ring[i].skipped == -1) == (i != slot));
      numbers.push_back({ring[i].nats_per_char, ring[i].gradient_norm});
    }
    return numbers;
  });
  return y;
}

}  // namespace

// Quarters: squares and sums are exact.
TEST_CASE("sums of squares are those of their chunks") {
  for (const int n : {1, 255, 257, 8191, 8192, 8193, 20001}) {
    Numbers g;
    for (int i = 0; i < n; ++i) g.push_back((i * 29 % 83 - 40) / 4.0);
    const auto chunks = static_cast<std::size_t>(square_chunks(n));
    Numbers expected(chunks);
    for (std::size_t i = 0; i < g.size(); ++i) expected[i / 8192] += g[i] * g[i];
    CHECK(in_any_order([&](cudaStream_t stream) {
            const Floats on_g(g);
            const Device<double> partial(chunks);
            square_sums(on_g, n, partial, stream);
            host_cuda_test::succeed(cudaStreamSynchronize(stream));
            return Outcome{partial.read(chunks)};
          }) == Outcome{expected});
  }
}

TEST_CASE("squares are summed in double, without overflow") {
  Numbers g(300, std::ldexp(1, -80));
  g[0] = 0x1p100;  // its square is no float, and neither are the others'
  const auto sum = [&] {
    return in_any_order([&](cudaStream_t stream) {
      const Floats on_g(g);
      const Device<double> partial(1);
      square_sums(on_g, 300, partial, stream);
      host_cuda_test::succeed(cudaStreamSynchronize(stream));
      return Outcome{partial.read(1)};
    })[0][0];
  };
  CHECK(sum() == 0x1p200);
  g[0] = 0;
  CHECK(sum() == 299 * 0x1p-160);
  g[299] = -kInfinity;
  CHECK(sum() == kInfinity);
  g[1] = std::nan("");
  CHECK(std::isnan(sum()));
}

TEST_CASE("gradients are divided by the loss scale, exactly") {
  for (const std::size_t n : {std::size_t{1}, std::size_t{777}}) {
    Numbers g = some(Element::kF32, n, 1, 1000);
    Numbers expected = g;
    for (double& x : expected) x /= 4096;
    g.push_back(kUntouched);
    expected.push_back(kUntouched);
    CHECK(in_any_order([&](cudaStream_t stream) {
            const Floats on_g(g);
            const Device<DeviceUpdateState> state(std::vector<DeviceUpdateState>{{.loss_scale = 4096}});
            unscale(on_g, static_cast<std::int64_t>(n), state, stream);
            host_cuda_test::succeed(cudaStreamSynchronize(stream));
            return Outcome{on_g.read()};
          }) == Outcome{expected});
  }
}

TEST_CASE("a step's record has its loss and norm, its slot is written, and the inputs advance") {
  const Decided y = decided({});
  CHECK_FALSE(y.decision.skip);
  CHECK(y.decision.scale == 1);
  CHECK(y.record.nats_per_char == 1.5);
  CHECK(y.record.gradient_norm == 3);
  CHECK(y.record.skipped == 0);
  StepInputs advanced = Step{}.inputs;
  advanced.advance();
  CHECK(y.inputs == advanced);
  CHECK(y.state.updates == 1);
  CHECK(y.state.loss_scale == 1);
  CHECK(y.state.since_overflow == 0);
}

TEST_CASE("an update alone has no loss, takes gradients as they are, and leaves inputs and scale") {
  const Step s{.has_window = false, .state = {.updates = 8, .since_overflow = 1999, .loss_scale = 16, .adapts = true}};
  const Decided y = decided(s);
  CHECK_FALSE(y.decision.skip);
  CHECK(y.decision.scale == 1);
  CHECK(y.record.nats_per_char == 0);
  CHECK(y.record.gradient_norm == 3);
  CHECK(y.inputs == s.inputs);
  CHECK(y.state.updates == 9);
  CHECK(y.state.loss_scale == 16);
  CHECK(y.state.since_overflow == 1999);
}

TEST_CASE("the norm is over all chunks, more and fewer than there are threads") {
  for (const std::size_t chunks : {std::size_t{0}, std::size_t{1}, std::size_t{33}, std::size_t{2500}}) {
    Step s;
    s.partial.clear();
    double sum = 0;
    for (std::size_t i = 0; i < chunks; ++i) sum += s.partial.emplace_back(static_cast<double>(i % 23) / 4);
    CHECK(decided(s).record.gradient_norm == std::sqrt(sum));
  }
}

TEST_CASE("clipping by norm scales gradients down to the threshold, together with the loss scale") {
  Step s;
  s.inputs.rule.clip = ClipConfig::Kind::kNorm;
  s.state.loss_scale = 4;  // the norm is 3 / 4
  for (const double threshold : {0.5, 0.75, 2.0}) {
    s.inputs.rule.clip_threshold = threshold;
    const Decided y = decided(s);
    CHECK(y.record.gradient_norm == 0.75);
    CHECK(y.decision.scale == (threshold < 0.75 ? static_cast<float>(threshold / 0.75 / 4) : 0.25F));
    CHECK(y.decision.clip_value > 1e38F);
  }
}

TEST_CASE("clipping by value leaves the scale alone") {
  Step s;
  s.inputs.rule.clip = ClipConfig::Kind::kValue;
  s.inputs.rule.clip_threshold = 0.1;
  const Decided y = decided(s);
  CHECK(y.decision.scale == 1);
  CHECK(y.decision.clip_value == 0.1F);
  s.inputs.rule.clip = ClipConfig::Kind::kNone;
  CHECK(decided(s).decision.clip_value > 1e38F);
}

TEST_CASE("a loss or a norm that is not finite skips the step") {
  for (const double bad : {std::nan(""), kInfinity, -kInfinity}) {
    for (const bool in_loss : {true, false}) {
      Step s;
      (in_loss ? s.window.nats : s.partial[1]) = bad;
      const Decided y = decided(s);
      CHECK(y.decision.skip);
      CHECK(y.record.skipped == 1);
      CHECK(y.state.updates == 0);
      CHECK(y.inputs.slot == s.inputs.slot + 1);  // the text goes on
    }
  }
  Step alone{.partial = {kInfinity}, .has_window = false};
  CHECK(decided(alone).decision.skip);
  alone = {.has_window = false, .window = {kInfinity, 1, 1}};
  CHECK_FALSE(decided(alone).decision.skip);
}

TEST_CASE("fp16's scale halves at an overflow, doubles after 2000 steps without, within its limits") {
  struct Case {
    float scale;
    std::int64_t since;
    bool overflow, adapts;
    float scale_after;
    std::int64_t since_after;
  };
  for (const Case& c : {Case{1024, 77, true, true, 512, 0},
                        {1, 5, true, true, 1, 0},
                        {2, 0, true, true, 1, 0},
                        {1024, 77, false, true, 1024, 78},
                        {1024, 1998, false, true, 1024, 1999},
                        {1024, 1999, false, true, 2048, 2000},
                        {1024, 3999, false, true, 2048, 4000},
                        {8388608, 1999, false, true, 16777216, 2000},
                        {16777216, 1999, false, true, 16777216, 2000},
                        {1, 1999, false, false, 1, 1999},
                        {1, 1999, true, false, 1, 1999}}) {
    Step s;
    s.state = {.updates = 3, .since_overflow = c.since, .loss_scale = c.scale, .adapts = c.adapts};
    if (c.overflow) s.partial[0] = kInfinity;
    const Decided y = decided(s);
    CHECK(y.state.loss_scale == c.scale_after);
    CHECK(y.state.since_overflow == c.since_after);
    CHECK(y.state.updates == (c.overflow ? 3 : 4));
    if (!c.overflow) CHECK(y.decision.scale == 1 / c.scale);  // the gradients were made with the scale before
  }
}

TEST_CASE("a loss that is not finite says nothing of fp16's scale") {
  Step s{.window = {std::nan(""), 1, 0}, .state = {.since_overflow = 9, .loss_scale = 64, .adapts = true}};
  s.partial[0] = kInfinity;
  const Decided y = decided(s);
  CHECK(y.decision.skip);
  CHECK(y.state.loss_scale == 64);
  CHECK(y.state.since_overflow == 9);
}

TEST_CASE("the optimizer's factors are formed in double, with Adam's corrections by the count of updates") {
  for (const OptimizerKind kind : kOptimizers) {
    for (const std::int64_t updates : {0, 1, 9, 1000000}) {
      Step s;
      s.inputs.rule = {{.optimizer = kind, .learning_rate = 0.002, .epsilon = 1e-8, .decay = 0.999, .beta1 = 0.9},
                       ClipConfig::Kind::kNone,
                       0};
      s.state.updates = updates;
      const OptimizerFactors<float> f = decided(s).decision.factors;
      const double t = static_cast<double>(updates + 1);
      CHECK(f.decay == 0.999F);
      CHECK(f.fresh == static_cast<float>(1 - 0.999));
      CHECK(f.epsilon == 1e-8F);
      if (kind == OptimizerKind::kAdam) {
        CHECK(f.rate == static_cast<float>(0.002 / (1 - std::pow(0.9, t))));
        CHECK(f.second_correction == static_cast<float>(1 / std::sqrt(1 - std::pow(0.999, t))));
        CHECK(f.decay1 == 0.9F);
        CHECK(f.fresh1 == static_cast<float>(1 - 0.9));
      } else {
        CHECK(f.rate == 0.002F);
      }
    }
  }
}

// Roundings: the factors, and some ten operations, one after another.
TEST_CASE("every optimizer takes the step of its definition, clipped, and copies what it makes") {
  for (const OptimizerKind kind : kOptimizers) {
    for (const Element element : kElements) {
      for (const std::size_t n : {std::size_t{1}, std::size_t{777}}) {
        const OptimizerConfig config{.name = kind,
                                     .learning_rate = 0.05,
                                     .decay_rate = 0.9,
                                     .beta1 = 0.8,
                                     .beta2 = 0.95,
                                     .momentum = 0.7,
                                     .epsilon = 1e-3};
        const bool is_adam = kind == OptimizerKind::kAdam;
        const double decay = kind == OptimizerKind::kRmsprop ? 0.9 : is_adam ? 0.95 : 0.7;
        const Numbers g = some(Element::kF32, n, 1, 4), p = some(Element::kF32, n, 2, 0.1);
        const Numbers mean = some(Element::kF32, n, 3, 0.3), square = fractions(Element::kF32, n, 4);
        constexpr double kScale = 0.25, kClip = 0.5;  // half of the gradients are clipped
        constexpr std::int64_t kStep = 3;
        const bool signed_moment = is_adam || kind == OptimizerKind::kSgd;

        charrnn::reference::OptimizerState state(n);
        state.moment1 = signed_moment ? mean : square;
        state.moment2 = square;
        const Outcome before{p, state.moment1, state.moment2};
        Numbers expected_p = p, clipped = g;
        for (double& x : clipped) x *= kScale;
        charrnn::reference::clip({ClipConfig::Kind::kValue, kClip}, clipped);
        charrnn::reference::update(config, kStep, clipped, expected_p, state);

        UpdateDecision decision{.scale = kScale, .clip_value = kClip};
        OptimizerFactors<float>& f = decision.factors;
        f.rate = static_cast<float>(is_adam ? 0.05 / (1 - std::pow(0.8, kStep)) : 0.05);
        f.decay = static_cast<float>(decay);
        f.fresh = static_cast<float>(1 - decay);
        f.decay1 = 0.8F;
        f.fresh1 = static_cast<float>(1 - 0.8);
        f.epsilon = 1e-3F;
        f.second_correction = static_cast<float>(1 / std::sqrt(1 - std::pow(0.95, kStep)));
        for (const bool skip : {false, true}) {
          decision.skip = skip;
          for (const bool copies : {true, false}) {
            const Outcome y = in_any_order([&](cudaStream_t stream) {
              const Floats on_p(p), on_g(g), moment1(before[1]), moment2(before[2]);
              const Array copy(element, Numbers(n, kUntouched));
              const Device<UpdateDecision> on_decision(std::vector<UpdateDecision>{decision});
              update(kind,
                     {.n = static_cast<std::int64_t>(n),
                      .p = on_p,
                      .g = on_g,
                      .moment1 = moment1,
                      .moment2 = is_adam ? static_cast<float*>(moment2) : nullptr,
                      .copy = copies ? copy.at() : nullptr,
                      .element = element,
                      .decision = on_decision},
                     stream);
              host_cuda_test::succeed(cudaStreamSynchronize(stream));
              return Outcome{on_p.read(), moment1.read(), moment2.read(), copy.read()};
            });
            CHECK(y[3] == (copies && !skip ? rounded(element, y[0]) : Numbers(n, kUntouched)));
            if (skip) {
              CHECK(same_bits({y[0], y[1], y[2]}, before));
              continue;
            }
            CHECK_ALL_CLOSE(y[0], expected_p, stored(Element::kF32, 16));
            CHECK_ALL_CLOSE(y[1], state.moment1, stored(Element::kF32, 16));
            CHECK_ALL_CLOSE(y[2], state.moment2, stored(Element::kF32, 16));
          }
        }
      }
    }
  }
}

TEST_CASE("updates of nothing launch nothing") {
  launches_nothing([](cudaStream_t stream) {
    square_sums(nullptr, 0, nullptr, stream);
    unscale(nullptr, 0, nullptr, stream);
    update(OptimizerKind::kAdam, {}, stream);
  });
}
