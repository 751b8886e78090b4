// The optimizer's step over the flat arena: norm, decision, update.
#pragma once

#include <cuda_runtime_api.h>

#include "kernels/element.h"
#include "kernels/step_state.h"

namespace charrnn::cuda {

/// Gradients are summed in chunks of so many floats, whatever the device: the same bits every time.
inline constexpr std::int64_t kSquareChunk = 1 << 13;
constexpr std::int64_t square_chunks(std::int64_t n) { return (n + kSquareChunk - 1) / kSquareChunk; }

/// partial [square_chunks(n)] = sums of squares of g.
void square_sums(const float* g, std::int64_t n, double* partial, cudaStream_t stream);

/// g *= 1 / the loss scale of fp16.
void unscale(float* g, std::int64_t n, const DeviceUpdateState* state, cudaStream_t stream);

struct Decide {
  const double* partial = nullptr;
  std::int64_t chunks = 0;
  const WindowSums* window = nullptr;  // the step's loss; null: an update alone
  StepInputs* inputs = nullptr;        // the rule is read; advanced, if a window was given
  DeviceUpdateState* state = nullptr;  // updated
  UpdateDecision* decision = nullptr;  // written
  StepRecord* ring = nullptr;          // [ring_size] pinned host memory: slot inputs->slot % ring_size is written
  std::uint32_t ring_size = 1;
};
void decide(const Decide& d, cudaStream_t stream);

struct Update {
  std::int64_t n = 0;
  float* p = nullptr;
  const float* g = nullptr;
  float* moment1 = nullptr;  // the rules' only moment; adam: the mean
  float* moment2 = nullptr;  // adam: the mean square
  void* copy = nullptr;      // of p in `element`, or null
  Element element = Element::kF32;
  const UpdateDecision* decision = nullptr;
};
void update(OptimizerKind kind, const Update& u, cudaStream_t stream);

}  // namespace charrnn::cuda
