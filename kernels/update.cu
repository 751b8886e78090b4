#include "kernels/update.h"

#include <cmath>

#include "kernels/launch.h"
#include "kernels/threads.h"

namespace charrnn::cuda {

namespace {

constexpr unsigned kBlock = 256, kDecideBlock = 1024;
constexpr float kNoClip = 3.0e38F;

// fp16: the scale doubles after so many steps without overflow, and halves at one. As PyTorch's GradScaler has it.
constexpr std::int64_t kStepsToGrow = 2000;
constexpr float kLargestScale = 16777216.0F, kSmallestScale = 1.0F;

__device__ bool finite(double x) { return x - x == 0; }

__global__ void square_sums_kernel(const float* g, std::int64_t n, double* partial) {
  __shared__ double sums[kWarp];
  const std::int64_t begin = blockIdx.x * kSquareChunk;
  const std::int64_t end = begin + kSquareChunk < n ? begin + kSquareChunk : n;
  double sum = 0;
  for (std::int64_t i = begin + threadIdx.x; i < end; i += blockDim.x) sum += double{g[i]} * double{g[i]};
  sum = block_sum(sum, sums);
  if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}

__global__ void unscale_kernel(float* g, std::int64_t n, const DeviceUpdateState* state) {
  const float scale = 1.0F / state->loss_scale;  // a power of two: exact
  for (std::int64_t i = thread_index(); i < n; i += thread_count()) g[i] *= scale;
}

__device__ void adapt_scale(DeviceUpdateState& state, bool overflow) {
  if (!state.adapts) return;
  if (overflow) {
    state.loss_scale = state.loss_scale > kSmallestScale ? state.loss_scale / 2 : kSmallestScale;
    state.since_overflow = 0;
  } else if (++state.since_overflow % kStepsToGrow == 0 && state.loss_scale < kLargestScale) {
    state.loss_scale *= 2;
  }
}

__global__ void __launch_bounds__(kDecideBlock) decide_kernel(Decide d) {
  __shared__ double sums[kWarp];
  double sum = 0;
  for (std::int64_t i = threadIdx.x; i < d.chunks; i += blockDim.x) sum += d.partial[i];
  sum = block_sum(sum, sums);
  if (threadIdx.x != 0) return;

  const UpdateRule rule = d.inputs->rule;
  const double scale = d.window == nullptr ? 1.0 : d.state->loss_scale;  // an update alone has unscaled gradients
  const double norm = sqrt(sum) / scale;
  const bool loss_is_finite = d.window == nullptr || finite(d.window->nats);
  UpdateDecision y;
  y.skip = !loss_is_finite || !finite(norm);
  y.scale = static_cast<float>(1 / scale);
  y.clip_value = rule.clip == ClipConfig::Kind::kValue ? static_cast<float>(rule.clip_threshold) : kNoClip;
  if (rule.clip == ClipConfig::Kind::kNorm && norm > rule.clip_threshold) {
    y.scale = static_cast<float>(rule.clip_threshold / norm / scale);
  }
  if (d.window != nullptr && loss_is_finite) adapt_scale(*d.state, y.skip);
  if (!y.skip) y.factors = factors_of(rule, ++d.state->updates);
  *d.decision = y;

  StepRecord& record = d.ring[d.inputs->slot % d.ring_size];
  record.nats_per_char = d.window == nullptr ? 0.0 : d.window->nats / d.window->weight;
  record.gradient_norm = norm;
  record.skipped = y.skip ? 1 : 0;
  if (d.window != nullptr) d.inputs->advance();
}

__device__ float clamp(float x, float most) { return x > most ? most : (x < -most ? -most : x); }

template <OptimizerKind kKind, class Real>
__global__ void update_kernel(Update u) {
  const UpdateDecision decision = *u.decision;
  if (decision.skip) return;
  for (std::int64_t i = thread_index(); i < u.n; i += thread_count()) {
    const float g = clamp(u.g[i] * decision.scale, decision.clip_value);
    float p = u.p[i];
    if constexpr (kKind == OptimizerKind::kRmsprop) {
      rmsprop(p, g, u.moment1[i], decision.factors);
    } else if constexpr (kKind == OptimizerKind::kAdam) {
      adam(p, g, u.moment1[i], u.moment2[i], decision.factors);
    } else if constexpr (kKind == OptimizerKind::kAdagrad) {
      adagrad(p, g, u.moment1[i], decision.factors);
    } else {
      sgd(p, g, u.moment1[i], decision.factors);
    }
    u.p[i] = p;
    if (u.copy != nullptr) static_cast<Real*>(u.copy)[i] = from_float<Real>(p);
  }
}

}  // namespace

void square_sums(const float* g, std::int64_t n, double* partial, cudaStream_t stream) {
  const LaunchShape shape{dim3(static_cast<unsigned>(square_chunks(n))), dim3(kBlock), 0};
  launch("square_sums", square_sums_kernel, shape, stream, g, n, partial);
}

void unscale(float* g, std::int64_t n, const DeviceUpdateState* state, cudaStream_t stream) {
  launch("unscale", unscale_kernel, cover(n), stream, g, n, state);
}

void decide(const Decide& d, cudaStream_t stream) {
  launch("decide", decide_kernel, {dim3(1), dim3(kDecideBlock), 0}, stream, d);
}

void update(OptimizerKind kind, const Update& u, cudaStream_t stream) {
  with_element(u.element, [&](auto real) {
    const auto run = [&](auto kernel) { launch("update", kernel, cover(u.n), stream, u); };
    using Real = decltype(real);
    switch (kind) {
      case OptimizerKind::kRmsprop: return run(update_kernel<OptimizerKind::kRmsprop, Real>);
      case OptimizerKind::kAdam: return run(update_kernel<OptimizerKind::kAdam, Real>);
      case OptimizerKind::kAdagrad: return run(update_kernel<OptimizerKind::kAdagrad, Real>);
      case OptimizerKind::kSgd: return run(update_kernel<OptimizerKind::kSgd, Real>);
    }
  });
}

}  // namespace charrnn::cuda
