#include "kernels/windows.h"

#include "kernels/launch.h"
#include "kernels/threads.h"

namespace charrnn::cuda {

namespace {

__global__ void cut_window_kernel(TextOnDevice text, const StepInputs* inputs, WindowShape shape, WindowArrays to) {
  const std::int64_t n = std::int64_t{shape.steps} * shape.lanes;
  const std::int64_t window = inputs->window;
  for (std::int64_t i = thread_index(); i < n; i += thread_count()) {
    const std::int64_t t = i / shape.lanes, lane = i % shape.lanes;
    const bool real = lane < shape.batch;
    const std::int64_t at = lane * text.stride + window * shape.steps + t;
    to.ids[i] = real ? text.ids_of_bytes[text.text[at]] : kNoId;
    to.targets[i] = real ? text.ids_of_bytes[text.text[at + 1]] : kNoId;
    to.weights[i] = real ? 1.0F : 0.0F;
    if (t == 0) to.reset[lane] = window == 0 || !real ? 1 : 0;
    if (i == 0) *to.loss_scale = 1.0F / static_cast<float>(std::int64_t{shape.steps} * shape.batch);
  }
}

__global__ void take_window_kernel(ArrivedWindow slot0, ArrivedWindow slot1, const StepInputs* inputs,
                                   WindowShape shape, WindowArrays to) {
  const ArrivedWindow from = inputs != nullptr && inputs->slot % 2 == 1 ? slot1 : slot0;
  const std::int64_t n = std::int64_t{shape.steps} * shape.lanes;
  for (std::int64_t i = thread_index(); i < n; i += thread_count()) {
    const std::int64_t t = i / shape.lanes, lane = i % shape.lanes;
    const bool real = lane < shape.batch;
    const std::int64_t at = t * shape.batch + lane;
    to.ids[i] = real ? from.ids[at] : kNoId;
    to.targets[i] = real ? from.targets[at] : kNoId;
    to.weights[i] = real ? from.weights[at] : 0.0F;
    if (t == 0) to.reset[lane] = real ? from.reset[lane] : 1;
    if (i == 0) *to.loss_scale = *from.loss_scale;
  }
}

template <class Real>
__global__ void start_lanes_kernel(LaneStates states, const std::uint8_t* reset) {
  const std::int64_t slot = std::int64_t{states.lanes} * states.hidden, n = states.layers * slot;
  for (std::int64_t i = thread_index(); i < n; i += thread_count()) {
    const std::int64_t layer = i / slot, at = i % slot;
    if (reset[at / states.hidden] == 0) continue;
    static_cast<Real*>(states.h)[layer * states.layer_stride + at] = from_float<Real>(0.0F);
    if (states.c != nullptr) states.c[layer * states.layer_stride + at] = 0.0F;
  }
}

template <class Real>
__global__ void finish_lanes_kernel(LaneStates states, int steps, const UpdateDecision* decision) {
  const std::int64_t slot = std::int64_t{states.lanes} * states.hidden, n = states.layers * slot;
  const bool zero = decision != nullptr && decision->skip;
  Real* const h = static_cast<Real*>(states.h);
  for (std::int64_t i = thread_index(); i < n; i += thread_count()) {
    const std::int64_t first = i / slot * states.layer_stride + i % slot, last = first + steps * slot;
    h[first] = zero ? from_float<Real>(0.0F) : h[last];
    if (states.c != nullptr) states.c[first] = zero ? 0.0F : states.c[last];
  }
}

template <class Real>
__global__ void one_hot_kernel(const DeviceId* ids, std::int64_t rows, int stride, Real* to) {
  const std::int64_t n = rows * stride;
  for (std::int64_t i = thread_index(); i < n; i += thread_count()) {
    to[i] = from_float<Real>(ids[i / stride] == i % stride ? 1.0F : 0.0F);
  }
}

__global__ void write_inputs_kernel(StepInputs inputs, StepInputs* to) { *to = inputs; }

}  // namespace

void cut_window(const TextOnDevice& text, const StepInputs* inputs, const WindowShape& shape, const WindowArrays& to,
                cudaStream_t stream) {
  launch("cut_window", cut_window_kernel, cover(std::int64_t{shape.steps} * shape.lanes), stream, text, inputs, shape,
         to);
}

void take_window(const ArrivedWindow (&slots)[2], const StepInputs* inputs, const WindowShape& shape,
                 const WindowArrays& to, cudaStream_t stream) {
  launch("take_window", take_window_kernel, cover(std::int64_t{shape.steps} * shape.lanes), stream, slots[0], slots[1],
         inputs, shape, to);
}

void start_lanes(const LaneStates& states, const std::uint8_t* reset, cudaStream_t stream) {
  with_element(states.element, [&](auto real) {
    launch("start_lanes", start_lanes_kernel<decltype(real)>,
           cover(std::int64_t{states.layers} * states.lanes * states.hidden), stream, states, reset);
  });
}

void finish_lanes(const LaneStates& states, int steps, const UpdateDecision* decision, cudaStream_t stream) {
  with_element(states.element, [&](auto real) {
    launch("finish_lanes", finish_lanes_kernel<decltype(real)>,
           cover(std::int64_t{states.layers} * states.lanes * states.hidden), stream, states, steps, decision);
  });
}

void one_hot(const DeviceId* ids, std::int64_t rows, int stride, void* to, Element element, cudaStream_t stream) {
  with_element(element, [&](auto real) {
    launch("one_hot", one_hot_kernel<decltype(real)>, cover(rows * stride), stream, ids, rows, stride,
           static_cast<decltype(real)*>(to));
  });
}

void write_inputs(const StepInputs& inputs, StepInputs* to, cudaStream_t stream) {
  launch("write_inputs", write_inputs_kernel, {dim3(1), dim3(1), 0}, stream, inputs, to);
}

}  // namespace charrnn::cuda
