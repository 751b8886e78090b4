// Logits to softmax, cross-entropy and the gradient of the logits, in one kernel; and the window's sums.
#pragma once

#include <cuda_runtime_api.h>

#include "kernels/windows.h"

namespace charrnn::cuda {

struct RowLoss {
  float nats, weight, correct;  // all weighted
};

struct SoftmaxXent {
  Element element = Element::kF32;
  std::int64_t rows = 0;                            // T x lanes
  int vocabulary = 0, stride = 0;                   // V; floats from one row of logits to the next
  const float* logits = nullptr;                    // [rows,stride], without the bias
  const float* bias = nullptr;                      // [V]
  const DeviceId* targets = nullptr;                // [rows]
  const float* weights = nullptr;                   // [rows]; 0: the target is not read
  const float* loss_scale = nullptr;                // of a weighted loss in the gradient ...
  const DeviceUpdateState* update_state = nullptr;  // ... and the scale that fp16 needs on top
  void* dlogits = nullptr;                          // [rows,stride] of `element`, columns below V; or null: loss only
  RowLoss* losses = nullptr;                        // [rows]
};
void softmax_xent(const SoftmaxXent& s, cudaStream_t stream);

/// *to = the sums over rows, in double and in a fixed order.
void sum_losses(const RowLoss* losses, std::int64_t rows, WindowSums* to, cudaStream_t stream);

/// logits [rows, stride] + bias -> to [rows, V].
void add_bias(const float* logits, const float* bias, std::int64_t rows, int vocabulary, int stride, float* to,
              cudaStream_t stream);

}  // namespace charrnn::cuda
