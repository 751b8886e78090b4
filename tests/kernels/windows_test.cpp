// Windows of characters and the states of lanes: all of it exact.
#include "kernels/windows.h"

#include "kernel_test.h"

using namespace charrnn::cuda;
using namespace kernel_test;

namespace {

std::vector<DeviceId> ids(std::size_t count, int vocabulary, std::uint64_t seed) {
  std::vector<DeviceId> values(count);
  const Numbers random = noise(count, seed);
  for (std::size_t i = 0; i < count; ++i) {
    values[i] = static_cast<DeviceId>((random[i] + 1) / 2 * vocabulary);
  }
  return values;
}

/// The device's side of a window, and what it holds.
struct Window {
  explicit Window(const WindowShape& s)
      : rows(static_cast<std::size_t>(s.steps * s.lanes)),
        lanes(static_cast<std::size_t>(s.lanes)),
        ids(rows),
        targets(rows),
        weights(rows),
        reset(lanes),
        loss_scale(1) {}
  WindowArrays arrays() const { return {ids, targets, weights, reset, loss_scale}; }
  Outcome read() const {
    return {as_numbers(ids.read(rows)), as_numbers(targets.read(rows)), as_numbers(weights.read(rows)),
            as_numbers(reset.read(lanes)), as_numbers(loss_scale.read(1))};
  }
  std::size_t rows, lanes;
  Device<DeviceId> ids, targets;
  Device<float> weights;
  Device<std::uint8_t> reset;
  Device<float> loss_scale;
};

StepInputs inputs_at(std::int64_t window, int slot) {
  StepInputs inputs;
  inputs.window = window;
  inputs.slot = static_cast<std::uint32_t>(slot);
  return inputs;
}

struct Shape {
  int steps, batch, lanes;
};
constexpr Shape kShapes[] = {{1, 1, 1}, {3, 4, 7}, {1, 5, 5}, {71, 5, 9}};

/// Lanes of the states, and which slots are which.
struct States {
  int layers, slots, lanes, hidden;
  std::size_t slot() const { return static_cast<std::size_t>(lanes * hidden); }
  std::size_t layer() const { return static_cast<std::size_t>(slots) * slot(); }
  std::size_t all() const { return static_cast<std::size_t>(layers) * layer(); }
  std::size_t at(int l, int t, std::size_t i) const {
    return static_cast<std::size_t>(l) * layer() + static_cast<std::size_t>(t) * slot() + i;
  }
  LaneStates on(const Array& h, float* c) const {
    return {h.at(),
            c,
            h.element() == host_cuda::Element::kFloat  ? Element::kF32
            : h.element() == host_cuda::Element::kHalf ? Element::kF16
                                                       : Element::kBf16,
            layers,
            lanes,
            hidden,
            static_cast<std::int64_t>(layer())};
  }
};
constexpr States kStates[] = {{1, 2, 1, 1}, {3, 5, 4, 7}, {2, 4, 9, 37}};

}  // namespace

TEST_CASE("a window is cut from the text lane by lane, and padding lanes hold no character and reset") {
  for (const auto& [steps, batch, lanes] : kShapes) {
    for (const int window : {0, 2}) {
      const WindowShape shape{steps, batch, lanes};
      const std::int64_t stride = 3 * steps + 2;
      // The last character that is read is the text's last.
      const auto length = static_cast<std::size_t>((batch - 1) * stride + (window + 1) * steps + 1);
      std::vector<std::uint8_t> text(length);
      for (std::size_t i = 0; i < length; ++i) text[i] = static_cast<std::uint8_t>(i * 31 + i / 7);
      const std::vector<DeviceId> of_bytes = ids(256, 250, 3);
      const Outcome y = in_any_order([&](cudaStream_t stream) {
        const Device<std::uint8_t> device_text(text);
        const Device<DeviceId> device_ids(of_bytes);
        const Device<StepInputs> inputs(std::vector<StepInputs>{inputs_at(window, 0)});
        const Window to(shape);
        cut_window({device_text, device_ids, stride}, inputs, shape, to.arrays(), stream);
        host_cuda_test::succeed(cudaStreamSynchronize(stream));
        return to.read();
      });
      Outcome expected{{}, {}, {}, {}, {static_cast<double>(1.0F / static_cast<float>(steps * batch))}};
      for (int t = 0; t < steps; ++t) {
        for (int b = 0; b < lanes; ++b) {
          const auto at = static_cast<std::size_t>(b * stride + window * steps + t);
          expected[0].push_back(b < batch ? of_bytes[text[at]] : 0xFFFF);
          expected[1].push_back(b < batch ? of_bytes[text[at + 1]] : 0xFFFF);
          expected[2].push_back(b < batch ? 1 : 0);
          if (t == 0) expected[3].push_back(window == 0 || b >= batch ? 1 : 0);
        }
      }
      CHECK(y == expected);
    }
  }
}

TEST_CASE("a window is taken from the slot of its step, and padding lanes hold no character and reset") {
  for (const auto& [steps, batch, lanes] : kShapes) {
    for (const int slot : {-1, 0, 1, 2, 5}) {  // -1: no inputs
      const WindowShape shape{steps, batch, lanes};
      const auto count = static_cast<std::size_t>(steps * batch), B = static_cast<std::size_t>(batch);
      const bool odd = slot >= 0 && slot % 2 == 1;
      const auto from_ids = [&](std::uint64_t s) { return ids(count, 999, 10 + s); };
      const auto from_targets = [&](std::uint64_t s) { return ids(count, 999, 20 + s); };
      const auto from_weights = [&](std::uint64_t s) { return some(Element::kF32, count, 30 + s); };
      const auto from_reset = [&](std::uint64_t s) {
        std::vector<std::uint8_t> reset(B);
        for (std::size_t b = 0; b < B; ++b) reset[b] = (b + s) % 2;
        return reset;
      };
      const Outcome y = in_any_order([&](cudaStream_t stream) {
        const Device<StepInputs> inputs(std::vector<StepInputs>{inputs_at(0, slot)});
        const Device<DeviceId> ids0(from_ids(0)), ids1(from_ids(1)), targets0(from_targets(0)),
            targets1(from_targets(1));
        const Floats weights0(from_weights(0)), weights1(from_weights(1)), scale0(Numbers{0.25}), scale1(Numbers{0.75});
        const Device<std::uint8_t> reset0(from_reset(0)), reset1(from_reset(1));
        const ArrivedWindow slots[2] = {{ids0, targets0, weights0, reset0, scale0},
                                        {ids1, targets1, weights1, reset1, scale1}};
        const Window to(shape);
        take_window(slots, slot < 0 ? nullptr : static_cast<const StepInputs*>(inputs), shape, to.arrays(), stream);
        host_cuda_test::succeed(cudaStreamSynchronize(stream));
        return to.read();
      });
      const std::uint64_t s = odd ? 1 : 0;
      Outcome expected{{}, {}, {}, {}, {odd ? 0.75 : 0.25}};
      for (std::size_t t = 0; t < static_cast<std::size_t>(steps); ++t) {
        for (std::size_t b = 0; b < static_cast<std::size_t>(lanes); ++b) {
          const bool real = b < B;
          expected[0].push_back(real ? from_ids(s)[t * B + b] : 0xFFFF);
          expected[1].push_back(real ? from_targets(s)[t * B + b] : 0xFFFF);
          expected[2].push_back(real ? from_weights(s)[t * B + b] : 0);
          if (t == 0) expected[3].push_back(real ? from_reset(s)[b] : 1);
        }
      }
      CHECK(y == expected);
    }
  }
}

TEST_CASE("lanes that reset start from zero state, the others and later slots stay") {
  for (const States& s : kStates) {
    for (const Element element : kElements) {
      for (const bool has_c : {true, false}) {
        const Numbers h = some(element, s.all(), 1), c = some(Element::kF32, s.all(), 2);
        std::vector<std::uint8_t> reset(static_cast<std::size_t>(s.lanes));
        for (std::size_t b = 0; b < reset.size(); ++b) reset[b] = b % 3 == 0 ? static_cast<std::uint8_t>(b + 1) : 0;
        const Outcome y = in_any_order([&](cudaStream_t stream) {
          const Array on_h(element, h);
          const Floats on_c(c);
          const Device<std::uint8_t> on_reset(reset);
          start_lanes(s.on(on_h, has_c ? static_cast<float*>(on_c) : nullptr), on_reset, stream);
          host_cuda_test::succeed(cudaStreamSynchronize(stream));
          return Outcome{on_h.read(), on_c.read()};
        });
        Outcome expected{h, c};
        for (int l = 0; l < s.layers; ++l) {
          for (std::size_t i = 0; i < s.slot(); ++i) {
            if (reset[i / static_cast<std::size_t>(s.hidden)] == 0) continue;
            expected[0][s.at(l, 0, i)] = 0;
            if (has_c) expected[1][s.at(l, 0, i)] = 0;
          }
        }
        CHECK(y == expected);
      }
    }
  }
}

TEST_CASE("lanes go on from the window's last slot, or from zero where the step was skipped") {
  for (const States& s : kStates) {
    for (const Element element : kElements) {
      for (const int decision : {-1, 0, 1}) {  // none, not skipped, skipped
        for (const bool has_c : {true, false}) {
          const int steps = s.slots > 2 ? s.slots - 2 : 1;  // shorter than the longest
          const Numbers h = some(element, s.all(), 1), c = some(Element::kF32, s.all(), 2);
          const Outcome y = in_any_order([&](cudaStream_t stream) {
            const Array on_h(element, h);
            const Floats on_c(c);
            const Device<UpdateDecision> on_decision(std::vector<UpdateDecision>{{.skip = decision == 1}});
            finish_lanes(s.on(on_h, has_c ? static_cast<float*>(on_c) : nullptr), steps,
                         decision < 0 ? nullptr : static_cast<const UpdateDecision*>(on_decision), stream);
            host_cuda_test::succeed(cudaStreamSynchronize(stream));
            return Outcome{on_h.read(), on_c.read()};
          });
          Outcome expected{h, c};
          for (int l = 0; l < s.layers; ++l) {
            for (std::size_t i = 0; i < s.slot(); ++i) {
              expected[0][s.at(l, 0, i)] = decision == 1 ? 0 : h[s.at(l, steps, i)];
              if (has_c) expected[1][s.at(l, 0, i)] = decision == 1 ? 0 : c[s.at(l, steps, i)];
            }
          }
          CHECK(y == expected);
        }
      }
    }
  }
}

TEST_CASE("a row of 1-of-k has its one at the character's column, and none without a character") {
  for (const auto& [rows, vocabulary] : {std::pair{1, 1}, {5, 11}, {37, 16}, {70, 33}}) {
    for (const Element element : kElements) {
      const int stride = one_hot_stride(vocabulary);
      std::vector<DeviceId> from = ids(static_cast<std::size_t>(rows), vocabulary, 5);
      if (rows > 1) from[1] = kNoId;
      const Outcome y = in_any_order([&](cudaStream_t stream) {
        const Device<DeviceId> on_ids(from);
        const Array to(element, static_cast<std::size_t>(rows * stride));
        one_hot(on_ids, rows, stride, to.at(), element, stream);
        host_cuda_test::succeed(cudaStreamSynchronize(stream));
        return Outcome{to.read()};
      });
      Numbers expected(static_cast<std::size_t>(rows * stride));
      for (std::size_t r = 0; r < from.size(); ++r) {
        if (from[r] != kNoId) expected[r * static_cast<std::size_t>(stride) + from[r]] = 1;
      }
      CHECK(y == Outcome{expected});
    }
  }
}

TEST_CASE("the inputs of a step are written as they are, and advance by one step") {
  UpdateRule rule;
  rule.optimizer = charrnn::OptimizerKind::kAdam;
  rule.learning_rate = 0.1;
  rule.beta1 = 0.9;
  StepInputs inputs{.dropout = {.seed = 1ULL << 40U, .step = 0xFFFFFFFFU, .bound = 3, .first_lane = 4, .scale = 1.5F},
                    .rule = rule,
                    .window = 6,
                    .windows_per_epoch = 8,
                    .slot = 0xFFFFFFFFU};
  host_cuda_test::begin();
  const Stream stream;
  const Device<StepInputs> to(std::vector<StepInputs>{{}});  // of a struct, bytes between members too are written
  write_inputs(inputs, to, stream);
  stream.wait();
  CHECK(to.read(1).front() == inputs);
  CHECK(host_cuda_test::findings() == "");

  inputs.advance();
  CHECK(inputs.dropout.step == 1ULL << 32U);
  CHECK(inputs.slot == 0);
  CHECK(inputs.window == 7);
  inputs.advance();
  CHECK(inputs.window == 0);  // of the next epoch
}

TEST_CASE("windows and lanes of no size launch nothing") {
  launches_nothing([](cudaStream_t stream) {
    cut_window({}, nullptr, {0, 3, 4}, {}, stream);
    const ArrivedWindow slots[2]{};
    take_window(slots, nullptr, {3, 0, 0}, {}, stream);
    start_lanes({}, nullptr, stream);
    finish_lanes({}, 1, nullptr, stream);
    one_hot(nullptr, 0, 8, nullptr, Element::kF16, stream);
  });
}
