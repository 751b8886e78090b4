#include "kernels/draw.h"

#include <cmath>

#include "kernels/launch.h"
#include "kernels/philox.h"
#include "kernels/threads.h"

namespace charrnn::cuda {

namespace {

constexpr unsigned kBlock = 128;

/// Whether fewer than k ids are likelier than `id`; of equal logits the lower id is the likelier.
__device__ bool among_top(const float* logits, int vocabulary, int id, int k) {
  int likelier = 0;
  for (int v = 0; v < vocabulary; ++v) likelier += logits[v] > logits[id] || (logits[v] == logits[id] && v < id);
  return likelier < k;
}

/// A block has a lane of the batch. Weights are made side by side and summed up one after another by one thread, in the
/// order of the ids: the order in which the host sums.
__global__ void draw_kernel(Draw d) {
  __shared__ float logits[kMostDrawn];
  __shared__ double weights[kMostDrawn];
  const int lane = static_cast<int>(blockIdx.x);
  const int step = static_cast<int>(blockDim.x);
  const DrawRule rule = *d.rule;
  for (int v = static_cast<int>(threadIdx.x); v < d.vocabulary; v += step) {
    logits[v] = d.logits[std::int64_t{lane} * d.stride + v] + d.bias[v];
  }
  __syncthreads();
  int best = 0;
  for (int v = 1; v < d.vocabulary; ++v) best = logits[v] > logits[best] ? v : best;
  const bool all = rule.top_k <= 0 || rule.top_k >= d.vocabulary;
  for (int v = static_cast<int>(threadIdx.x); v < d.vocabulary; v += step) {
    const bool allowed = all || among_top(logits, d.vocabulary, v, rule.top_k);
    weights[v] = allowed ? exp((double{logits[v]} - double{logits[best]}) / rule.temperature) : 0.0;
    if (logits[v] - logits[v] != 0.0F) atomicMax(d.failed, v + 1);
  }
  __syncthreads();
  if (threadIdx.x != 0) return;
  int chosen = best;
  if (!rule.greedy) {
    double sum = 0;
    for (int v = 0; v < d.vocabulary; ++v) sum += weights[v];
    const double random =
        stream_uniform(rule.seed, rule.first_stream + static_cast<std::uint64_t>(lane) * rule.stream_step,
                       static_cast<std::uint64_t>(rule.next_draw));
    double below = 0;
    for (int v = 0; v < d.vocabulary; ++v) {
      below += weights[v];
      if (weights[v] > 0 && random * sum < below) {
        chosen = v;
        break;
      }
    }
  }
  d.drawn[rule.row * d.lanes + lane] = static_cast<DeviceId>(chosen);
  d.ids[lane] = static_cast<DeviceId>(chosen);
}

__global__ void advance_draw_kernel(DrawRule* rule) {
  ++rule->next_draw;
  ++rule->row;
}

}  // namespace

void draw(const Draw& d, cudaStream_t stream) {
  launch("draw", draw_kernel, {dim3(static_cast<unsigned>(d.lanes)), dim3(kBlock), 0}, stream, d);
  launch("advance_draw", advance_draw_kernel, {dim3(1), dim3(1), 0}, stream, d.rule);
}

}  // namespace charrnn::cuda
