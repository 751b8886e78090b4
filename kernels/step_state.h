// What a training step reads and leaves behind in device memory, so that a captured graph of it never changes.
#pragma once

#include <cstdint>

#include "charrnn/config.h"
#include "kernels/optimizer.h"

namespace charrnn::cuda {

/// The optimizer and the clip as numbers.
struct UpdateRule : OptimizerRule {
  ClipConfig::Kind clip = ClipConfig::Kind::kNone;
  double clip_threshold = 0;

  bool operator==(const UpdateRule&) const = default;
};

/// Dropout of one step; the masks are dropout_numbers().
struct DropoutStep {
  std::uint64_t seed = 0;
  std::uint64_t step = 0;
  std::uint32_t bound = 0;
  std::uint32_t first_lane = 0;
  float scale = 1.0F;

  bool operator==(const DropoutStep&) const = default;
};

/// The inputs of the next step. The step itself advances window, slot and dropout.step, so that the host writes this
/// only when a step is not simply the next one: at the start, and when the learning rate changes.
struct StepInputs {
  DropoutStep dropout;
  UpdateRule rule;
  std::int64_t window = 0;  // of the epoch, where the text is held on the device
  std::int64_t windows_per_epoch = 1;
  std::uint32_t slot = 0;  // counts steps: of the ring of results, and of the buffers that windows arrive in

  CHARRNN_HD void advance() {
    ++dropout.step;
    ++slot;
    window = window + 1 == windows_per_epoch ? 0 : window + 1;
  }
  bool operator==(const StepInputs&) const = default;
};

/// charrnn::UpdateState as the device keeps it.
struct DeviceUpdateState {
  std::int64_t updates = 0;
  std::int64_t since_overflow = 0;
  float loss_scale = 1.0F;
  bool adapts = false;  // fp16: the scale follows the gradients
};

/// Sums over a window, in double.
struct WindowSums {
  double nats, weight, correct;
};

/// What one step decided about its own update.
struct UpdateDecision {
  bool skip = false;
  float scale = 1.0F;  // on the gradients: unscale, and clip by norm
  float clip_value = 0.0F;
  OptimizerFactors<float> factors{};
};

/// A slot of the ring in pinned memory that the host reads a few dozen steps later.
struct StepRecord {
  double nats_per_char;
  double gradient_norm;
  std::int32_t skipped;
};

}  // namespace charrnn::cuda
