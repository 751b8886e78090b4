// Draws characters from logits on the device, as model/sampler.cpp does on the host: the same numbers give the same
// ids.
#pragma once

#include <cuda_runtime_api.h>

#include "kernels/windows.h"

namespace charrnn::cuda {

/// What stays the same over the characters of a text. In device memory.
struct DrawRule {
  double temperature = 1.0;
  int top_k = 0;  // 0: all
  bool greedy = false;
  std::uint64_t seed = 0, first_stream = 0, stream_step = 0;
  std::int64_t next_draw = 0;  // advanced by advance_draw()
  std::int64_t row = 0;        // of `drawn`; advanced too
};

inline constexpr int kMostDrawn = 1024;  // characters of a vocabulary that can be drawn from

struct Draw {
  int lanes = 0, vocabulary = 0, stride = 0;
  const float* logits = nullptr;  // [lanes,stride], without the bias
  const float* bias = nullptr;    // [V]
  DrawRule* rule = nullptr;
  int* failed = nullptr;      // becomes 1 + an id whose logit was not finite
  DeviceId* drawn = nullptr;  // [rows,lanes]: row rule->row is written
  DeviceId* ids = nullptr;    // [lanes] overwritten: the next step's input
};
void draw(const Draw& d, cudaStream_t stream);

}  // namespace charrnn::cuda
