// THE SEAM between what trains and what computes (docs/decisions/0001).
//
// A backend knows sizes, numbers and nothing else: no config, no file, no text, no schedule. Neutral code hands it host
// memory in canonical layouts and never sees device memory, a stream, a packed weight or a saved activation.
//
//   Backend   a device                       makes networks
//   Network   weights, gradients, moments    updates them; opens sessions on them
//   Session   B lanes of carried h and c     runs windows of T steps through the network: forward, loss, backward
//
// Every operation spans T steps and all layers, so that a backend is free to multiply over all T where the recurrence
// allows, to run slices of the batch free of each other, to hand whole layers to cuDNN, or to replay a captured graph.
// submit_step() does not wait; next_result() does. Everything is ordered as it was called. Not safe for concurrent
// calls.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "backend/parameter_layout.h"
#include "charrnn/config.h"
#include "charrnn/error.h"
#include "charrnn/network_shape.h"

namespace charrnn {

/// T x B characters. Row-major, time first. All spans are host memory, read before the call returns.
struct Window {
  int steps = 0;                       // T
  int batch = 0;                       // B: must be the session's
  std::span<const TokenId> ids{};      // [T,B] input characters, in [0, V)
  std::span<const TokenId> targets{};  // [T,B] the characters to predict; not read by forward()
  std::span<const float> weights{};    // [T,B] weight of each loss, or empty: all 1. Weight 0: the target is not read
  std::span<const std::uint8_t> reset{};  // [B] non-zero: the lane starts this window from zero state; or empty: none
  float loss_scale = 1.0F;                // of each weighted loss in the gradient: 1 / (sum of weights over all ranks)
};

/// Dropout masks are a function of this key and of (layer, t, lane, unit): equal on every backend, kept nowhere.
struct DropoutKey {
  float probability = 0.0F;  // of zeroing; survivors are scaled by 1 / (1 - probability)
  std::uint64_t seed = 0;
  std::uint64_t step = 0;
  int first_lane = 0;  // global number of this session's lane 0 (ranks hold different lanes)
};

/// Sums over the characters of a window, weighted.
struct WindowLoss {
  double nats = 0;
  double weight = 0;   // nats / weight = nats per character
  double correct = 0;  // weight of the characters whose logit was the largest

  WindowLoss& operator+=(const WindowLoss& o) {
    nats += o.nats;
    weight += o.weight;
    correct += o.correct;
    return *this;
  }
};

struct UpdateSettings {
  OptimizerConfig optimizer;  // its learning_rate is the one of this step
  ClipConfig clip;
};

struct StepResult {
  double nats_per_char = 0;
  double gradient_norm = 0;  // of the mean nats per character, before clipping
  bool skipped = false;      // loss or gradient was NaN or infinite: weights and moments are as before,
                             // and the lanes start again from zero state
  double device_ms = 0;      // on the device's own clock; 0: it has none
};

/// What the updates have left behind besides moments. Only the device knows it in time: skipped steps do not count.
struct UpdateState {
  std::int64_t updates = 0;         // that the moments have seen, for Adam's bias correction
  double loss_scale = 1;            // fp16: a power of two by which gradients are scaled on their way back; else 1
  std::int64_t since_overflow = 0;  // fp16: steps since they last overflowed

  bool operator==(const UpdateState&) const = default;
};

/// A text whose windows a session may cut by itself, so that no ids cross the seam in a step. Lane b of window w reads
/// `steps` characters from b * stride + w * steps, and predicts the character that follows each. Window 0 starts from
/// zero state, and follows the last one of an epoch.
struct TextWindows {
  std::string_view text{};                  // the whole text; the caller keeps it as long as the session
  std::span<const TokenId> ids_of_bytes{};  // [256] the character of each byte, -1: not in the vocabulary
  int batch = 0, steps = 0;                 // B: the session's, T
  std::int64_t stride = 0;                  // characters from one lane's start to the next's
  std::int64_t windows_per_epoch = 0;
};

/// How characters are drawn: from softmax(logits / temperature), the largest top_k alone if that is not 0. The n-th
/// draw of lane b takes number (first_draw + n) of stream (first_stream + b * stream_step) under `seed`
/// (kernels/philox.h, stream_uniform), so that random numbers depend neither on how many texts there are nor on the
/// backend.
struct DrawSettings {
  double temperature = 1.0;
  int top_k = 0;  // 0: all
  bool greedy = false;
  std::uint64_t seed = 0;
  std::uint64_t first_stream = 0, stream_step = 0;
  std::int64_t first_draw = 0;
};

struct SessionShape {
  int batch = 1;          // B
  int max_steps = 1;      // windows may be shorter
  bool training = false;  // keeps what backward needs
};

class Session {
 public:
  virtual ~Session() = default;

  /// All lanes to zero state.
  virtual void reset() = 0;
  /// h [L,B,H] and c [L,B,H] (c empty for cells without it). Waits.
  virtual void get_state(std::span<float> h, std::span<float> c) = 0;
  virtual void set_state(std::span<const float> h, std::span<const float> c) = 0;

  /// logits [T,B,V] = network(ids); dropout off. Carries the state. `logits` may be empty (priming). Waits.
  virtual void forward(const Window& window, std::span<float> logits) = 0;
  /// The same for dense input vectors x [T,B,V] in place of characters.
  virtual void forward_dense(int steps, std::span<const float> x, std::span<float> logits) = 0;
  /// Loss of the window; dropout off. Carries the state. Waits.
  virtual WindowLoss evaluate(const Window& window) = 0;

  /// Overwrites the network's gradients with d(loss_scale * sum of weighted nats); truncated at the window's start.
  /// Carries the state. Only for training sessions. Waits.
  virtual WindowLoss gradients(const Window& window, const DropoutKey& dropout) = 0;

  /// gradients() and Network::update() in one: the training step, which a backend may capture and replay. Does not
  /// wait.
  virtual void submit_step(const Window& window, const DropoutKey& dropout, const UpdateSettings& settings) = 0;
  /// The result of the oldest submitted step. Waits for it.
  virtual StepResult next_result() = 0;

  /// Takes a text to cut windows from. @returns false if this backend wants windows, or the text does not fit its
  /// memory: the caller goes on with submit_step().
  /// @throws DataError for a byte that is not in the vocabulary
  virtual bool hold_text(const TextWindows& /*windows*/) { return false; }
  /// submit_step() of window `window` (of the epoch, from 0) of the text that is held; loss_scale is 1 / (T B).
  virtual void submit_text_step(std::int64_t /*window*/, const DropoutKey& /*dropout*/,
                                const UpdateSettings& /*settings*/) {
    throw ShapeError("Session::submit_text_step: this session holds no text");
  }

  /// Draws `steps` characters in every lane, each the input of the next step: first reads `ids` [B], writes `drawn`
  /// [steps,B], carries the state. `steps` may exceed the session's max_steps. Waits. @returns false if this backend
  /// does not draw: the caller uses forward(). @throws RunError for a logit that is not finite, in any lane; the state
  /// is then undefined until reset() or set_state().
  virtual bool generate(int /*steps*/, std::span<const TokenId> /*ids*/, const DrawSettings& /*settings*/,
                        std::span<TokenId> /*drawn*/) {
    return false;
  }
};

/// Arrays of the canonical arena (ParameterLayout) that a network owns on its device.
enum class Arena { kParameters, kGradients, kMoment1, kMoment2 };

class Network {
 public:
  virtual ~Network() = default;
  virtual const ParameterLayout& layout() const = 0;
  virtual Precision precision() const = 0;  // never kAuto

  /// [arena_size] floats each. Waits.
  virtual void read(Arena which, std::span<float> to) = 0;
  virtual void write(Arena which, std::span<const float> from) = 0;

  /// As new at first; set when a run goes on. Waits.
  virtual UpdateState update_state() = 0;
  virtual void set_update_state(const UpdateState& state) = 0;

  /// Clip, then the optimizer's step, from the gradients that stand in the arena. Skips both if the norm is not finite.
  virtual StepResult update(const UpdateSettings& settings) = 0;

  /// @throws DeviceError when memory is short: what was needed and what would fit
  virtual std::unique_ptr<Session> open(const SessionShape& shape) = 0;
};

struct DeviceInfo {
  std::string backend;                // cpu | cuda
  std::string name;                   // as its maker calls it
  int threads = 0;                    // CPU only
  std::vector<Precision> precisions;  // the first is what `auto` takes
  int steps_in_flight = 0;            // how many submitted steps may be outstanding before next_result() is called
  std::string implementation;  // what computes the recurrence: auto | cudnn | fused; empty where there is no choice
  bool accelerator = false;    // beside the host, with memory, a clock and a profiler's window of its own
};

/// What a device has spent, for `bench`.
struct DeviceUse {
  std::size_t peak_bytes = 0;        // of device memory that was held at once
  std::int64_t launches_a_step = 0;  // of kernels, by the training step that was last built; 0: not a GPU
};

class Backend {
 public:
  virtual ~Backend() = default;
  virtual const DeviceInfo& info() const = 0;

  /// Parameters, gradients and moments start as zeros.
  /// @throws DeviceError (exit 4) for a precision that the device lacks, naming those it has
  virtual std::unique_ptr<Network> make_network(const NetworkShape& shape, Precision precision) = 0;

  /// Bytes that a network of this shape with these sessions needs, for plans and messages.
  virtual std::size_t memory_bytes(const NetworkShape& shape, const SessionShape& session) const = 0;

  /// Matrix products a second (2*M*N*K flops) at this size, measured now: the machine's own rate for `bench`, in
  /// GFLOP/s.
  virtual double product_gflops(int m, int n, int k, Precision precision) = 0;

  virtual DeviceUse use() const { return {}; }
  /// Opens or closes the window that a profiler records. Waits for the device.
  virtual void profile(bool /*on*/) {}
  /// Sentences for the log that came up since the last call: what was fallen back from.
  virtual std::vector<std::string> take_notes() { return {}; }
};

}  // namespace charrnn
