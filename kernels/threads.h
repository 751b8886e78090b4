// Where a thread stands in its grid, and sums over warps and blocks in a fixed order: the same bits every time.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/math.h"

namespace charrnn::cuda {

inline constexpr unsigned kWarp = 32, kEveryLane = 0xFFFFFFFFU;

/// Kernels stride over their elements: for (i = thread_index(); i < n; i += thread_count()).
__device__ inline std::int64_t thread_index() { return std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x; }
__device__ inline std::int64_t thread_count() { return std::int64_t{gridDim.x} * blockDim.x; }

/// The sum, in every lane. All lanes of the warp call it.
template <class Real>
__device__ Real warp_sum(Real x) {
  for (unsigned distance = kWarp / 2; distance > 0; distance /= 2) x += __shfl_xor_sync(kEveryLane, x, distance);
  return x;
}

__device__ inline float warp_max(float x) {
  for (unsigned distance = kWarp / 2; distance > 0; distance /= 2) {
    const float other = __shfl_xor_sync(kEveryLane, x, distance);
    x = other > x ? other : x;
  }
  return x;
}

/// The sum, in thread 0 alone. All threads of the block call it; blockDim.x is a multiple of the warp, at most 1024.
/// @param partial  [32] shared memory that nothing else uses between two barriers
__device__ inline double block_sum(double x, double* partial) {
  x = warp_sum(x);
  __syncthreads();
  if (threadIdx.x % kWarp == 0) partial[threadIdx.x / kWarp] = x;
  __syncthreads();
  double sum = 0;
  if (threadIdx.x == 0) {
    for (unsigned w = 0; w < blockDim.x / kWarp; ++w) sum += partial[w];
  }
  return sum;
}

}  // namespace charrnn::cuda
