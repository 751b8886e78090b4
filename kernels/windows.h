// Windows of characters: cut from a text on the device, or taken from where the host's copies arrive; and the lanes'
// states at a window's start and end.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "kernels/element.h"
#include "kernels/step_state.h"

namespace charrnn::cuda {

using DeviceId = std::uint16_t;

/// A window on the device. `lanes` counts the padding too: those lanes have id kNoId and weight 0, and reset in every
/// window, so that their state cannot grow: a gradient of 0 times infinity would spoil the weights'.
struct WindowArrays {
  DeviceId* ids = nullptr;        // [T,lanes]
  DeviceId* targets = nullptr;    // [T,lanes]
  float* weights = nullptr;       // [T,lanes]
  std::uint8_t* reset = nullptr;  // [lanes]
  float* loss_scale = nullptr;    // one
};
inline constexpr DeviceId kNoId = 0xFFFF;

struct WindowShape {
  int steps = 0;  // T
  int batch = 0;  // B: the lanes that hold text
  int lanes = 0;  // B and padding
};

struct TextOnDevice {
  const std::uint8_t* text = nullptr;
  const DeviceId* ids_of_bytes = nullptr;  // [256]
  std::int64_t stride = 0;                 // between lanes
};

/// Window inputs->window of the text; loss_scale becomes 1 / (T B).
void cut_window(const TextOnDevice& text, const StepInputs* inputs, const WindowShape& shape, const WindowArrays& to,
                cudaStream_t stream);

/// A copy of a window as the host sends it: B lanes, no padding, in one piece of memory.
struct ArrivedWindow {
  DeviceId* ids = nullptr;        // [T,B]
  DeviceId* targets = nullptr;    // [T,B]
  float* weights = nullptr;       // [T,B]
  std::uint8_t* reset = nullptr;  // [B]
  float* loss_scale = nullptr;
};
/// Takes slot (inputs->slot % 2) of two, or slot 0 where `inputs` is null.
void take_window(const ArrivedWindow (&slots)[2], const StepInputs* inputs, const WindowShape& shape,
                 const WindowArrays& to, cudaStream_t stream);

/// The states of all layers: slot t of layer l begins at (l * layer_stride + t * lanes * hidden).
struct LaneStates {
  void* h = nullptr;   // of `element`
  float* c = nullptr;  // or null
  Element element = Element::kF32;
  int layers = 0, lanes = 0, hidden = 0;
  std::int64_t layer_stride = 0;
};
/// Slot 0 becomes zero in the lanes that reset.
void start_lanes(const LaneStates& states, const std::uint8_t* reset, cudaStream_t stream);
/// Slot 0 becomes slot `steps`; or zero in all lanes if the step was skipped (`decision` may be null).
void finish_lanes(const LaneStates& states, int steps, const UpdateDecision* decision, cudaStream_t stream);

/// Elements from one 1-of-k vector, or row of logits, to the next: aligned to what products like.
constexpr int one_hot_stride(int vocabulary) { return (vocabulary + 7) / 8 * 8; }
/// Row r becomes the 1-of-k vector of ids[r]; zero where that is kNoId. to [rows, stride].
void one_hot(const DeviceId* ids, std::int64_t rows, int stride, void* to, Element element, cudaStream_t stream);

/// Overwrites *to on the device.
void write_inputs(const StepInputs& inputs, StepInputs* to, cudaStream_t stream);

}  // namespace charrnn::cuda
