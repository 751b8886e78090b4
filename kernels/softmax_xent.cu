#include "kernels/softmax_xent.h"

#include <limits>

#include "kernels/launch.h"
#include "kernels/threads.h"

namespace charrnn::cuda {

namespace {

constexpr unsigned kBlock = 256, kSumBlock = 1024;

/// A warp has a row. Lane k of the warp has columns k, k + 32, ...
template <class Real>
__global__ void softmax_xent_kernel(SoftmaxXent s) {
  const std::int64_t row = thread_index() / kWarp;
  const int lane = static_cast<int>(threadIdx.x % kWarp);
  if (row >= s.rows) return;
  const float* const logits = s.logits + row * s.stride;
  Real* const dlogits = s.dlogits == nullptr ? nullptr : static_cast<Real*>(s.dlogits) + row * s.stride;
  const float weight = s.weights[row];
  if (weight == 0.0F) {
    for (int v = lane; dlogits != nullptr && v < s.vocabulary; v += kWarp) dlogits[v] = from_float<Real>(0.0F);
    if (lane == 0) s.losses[row] = {0.0F, 0.0F, 0.0F};
    return;
  }
  float largest = -std::numeric_limits<float>::infinity();
  for (int v = lane; v < s.vocabulary; v += kWarp) {
    const float x = logits[v] + s.bias[v];
    largest = x > largest ? x : largest;
  }
  largest = warp_max(largest);
  float sum = 0.0F;
  int first = s.vocabulary;  // the lowest id with the largest logit
  for (int v = lane; v < s.vocabulary; v += kWarp) {
    const float x = logits[v] + s.bias[v];
    sum += exp_of(x - largest);
    if (x == largest && v < first) first = v;
  }
  sum = warp_sum(sum);
  for (unsigned distance = kWarp / 2; distance > 0; distance /= 2) {
    const int other = __shfl_xor_sync(kEveryLane, first, distance);
    first = other < first ? other : first;
  }
  const int target = s.targets[row];
  if (lane == 0) {
    const float nats = std::log(sum) - (logits[target] + s.bias[target] - largest);
    s.losses[row] = {weight * nats, weight, first == target ? weight : 0.0F};
  }
  if (dlogits == nullptr) return;
  const float scale = weight * *s.loss_scale * s.update_state->loss_scale;
  for (int v = lane; v < s.vocabulary; v += kWarp) {
    const float probability = exp_of(logits[v] + s.bias[v] - largest) / sum;
    dlogits[v] = from_float<Real>(scale * (probability - (v == target ? 1.0F : 0.0F)));
  }
}

__global__ void __launch_bounds__(kSumBlock)
    sum_losses_kernel(const RowLoss* losses, std::int64_t rows, WindowSums* to) {
  __shared__ double partial[kWarp];
  double nats = 0, weight = 0, correct = 0;
  for (std::int64_t i = threadIdx.x; i < rows; i += blockDim.x) {
    nats += losses[i].nats;
    weight += losses[i].weight;
    correct += losses[i].correct;
  }
  nats = block_sum(nats, partial);
  weight = block_sum(weight, partial);
  correct = block_sum(correct, partial);
  if (threadIdx.x == 0) *to = {nats, weight, correct};
}

__global__ void add_bias_kernel(const float* logits, const float* bias, std::int64_t rows, int vocabulary, int stride,
                                float* to) {
  const std::int64_t n = rows * vocabulary;
  for (std::int64_t i = thread_index(); i < n; i += thread_count()) {
    const std::int64_t row = i / vocabulary, v = i % vocabulary;
    to[i] = logits[row * stride + v] + bias[v];
  }
}

}  // namespace

void softmax_xent(const SoftmaxXent& s, cudaStream_t stream) {
  constexpr std::int64_t kRowsABlock = kBlock / kWarp;
  const LaunchShape shape{dim3(static_cast<unsigned>((s.rows + kRowsABlock - 1) / kRowsABlock)), dim3(kBlock), 0};
  with_element(s.element,
               [&](auto real) { launch("softmax_xent", softmax_xent_kernel<decltype(real)>, shape, stream, s); });
}

void sum_losses(const RowLoss* losses, std::int64_t rows, WindowSums* to, cudaStream_t stream) {
  launch("sum_losses", sum_losses_kernel, {dim3(1), dim3(kSumBlock), 0}, stream, losses, rows, to);
}

void add_bias(const float* logits, const float* bias, std::int64_t rows, int vocabulary, int stride, float* to,
              cudaStream_t stream) {
  launch("add_bias", add_bias_kernel, cover(rows * vocabulary), stream, logits, bias, rows, vocabulary, stride, to);
}

}  // namespace charrnn::cuda
