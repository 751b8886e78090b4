// Correct kernels: their results, and that the checker has nothing to say, whatever the order of blocks and threads.
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <algorithm>
#include <cstdint>
#include <numeric>

#include "host_cuda/test_support.h"
#include "support/catch.h"

using namespace host_cuda_test;

namespace {

std::vector<float> counting(std::size_t n) {
  std::vector<float> values(n);
  std::iota(values.begin(), values.end(), 1.0F);
  return values;
}

__global__ void scaled(const float* x, float* y, float factor, int n) {
  for (int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x); i < n;
       i += static_cast<int>(gridDim.x * blockDim.x)) {
    y[i] = factor * __ldg(x + i);
  }
}

template <int kThreads>
__global__ void __launch_bounds__(kThreads) block_sums(const float* __restrict__ x, float* __restrict__ y) {
  __shared__ float part[kThreads];
  const unsigned t = threadIdx.x;
  part[t] = x[blockIdx.x * kThreads + t];
  __syncthreads();
  for (unsigned d = kThreads / 2; d >= 32; d /= 2) {
    if (t < d) part[t] += part[t + d];
    __syncthreads();
  }
  if (t >= 32) return;
  float sum = part[t];
  for (int d = 16; d > 0; d /= 2) sum += __shfl_xor_sync(0xffffffffU, sum, d);
  if (t == 0) y[blockIdx.x] = sum;
}

constexpr int kTile = 8;
__global__ void transposed(const float* x, float* y, int rows, int columns) {
  __shared__ float tile[kTile][kTile + 1];
  const int row = static_cast<int>(blockIdx.y) * kTile + static_cast<int>(threadIdx.y);
  const int column = static_cast<int>(blockIdx.x) * kTile + static_cast<int>(threadIdx.x);
  if (row < rows && column < columns) tile[threadIdx.y][threadIdx.x] = x[row * columns + column];
  __syncthreads();
  const int to_row = static_cast<int>(blockIdx.x) * kTile + static_cast<int>(threadIdx.y);
  const int to_column = static_cast<int>(blockIdx.y) * kTile + static_cast<int>(threadIdx.x);
  if (to_row < columns && to_column < rows) y[to_row * rows + to_column] = tile[threadIdx.x][threadIdx.y];
}

__global__ void histogram(const std::uint8_t* text, int n, unsigned* counts) {
  for (unsigned i = blockIdx.x * blockDim.x + threadIdx.x; i < static_cast<unsigned>(n); i += gridDim.x * blockDim.x) {
    atomicAdd(counts + text[i], 1U);
  }
}

__global__ void reversed_in_warps(int* x) {
  __shared__ int part[64];
  const unsigned t = threadIdx.x;
  part[t] = x[t];
  __syncwarp();
  const int other = part[t ^ 31U];
  __syncwarp();
  part[t] = other + 1;
  __syncwarp();
  x[t] = part[t] - 1;
}

__global__ void prefix_sums(const int* x, int* y) {
  int sum = x[threadIdx.x];
  const int lane = static_cast<int>(threadIdx.x % 32);
  for (int d = 1; d < 32; d *= 2) {
    const int before = __shfl_up_sync(0xffffffffU, sum, d);
    if (lane >= d) sum += before;
  }
  y[threadIdx.x] = sum;
}

__global__ void votes(const int* x, unsigned* y) {
  const bool odd = x[threadIdx.x] % 2 != 0;
  const unsigned ballot = __ballot_sync(0xffffffffU, odd);
  const int any = __any_sync(0xffffffffU, x[threadIdx.x] > 31);
  const int all = __all_sync(0xffffffffU, x[threadIdx.x] > 0);
  const double last = __shfl_sync(0xffffffffU, static_cast<double>(x[threadIdx.x]), 31);
  const int quarter = __shfl_down_sync(0xffffffffU, x[threadIdx.x], 4, 8);
  const int many = __syncthreads_count(odd);
  if (threadIdx.x != 0) return;
  y[0] = ballot;
  y[1] = static_cast<unsigned>(any);
  y[2] = static_cast<unsigned>(all);
  y[3] = static_cast<unsigned>(last);
  y[4] = static_cast<unsigned>(quarter);
  y[5] = static_cast<unsigned>(__popc(ballot) + __ffs(static_cast<int>(ballot)) + __clz(1));
  y[6] = static_cast<unsigned>(many);
}

__global__ void halves_of_a_warp(int* x) {
  const unsigned mask = threadIdx.x < 16 ? 0x0000ffffU : 0xffff0000U;
  int value = x[threadIdx.x];
  for (int i = 0; i < (threadIdx.x < 16 ? 3 : 5); ++i) value += __shfl_xor_sync(mask, value, 1);
  x[threadIdx.x] = value;
}

__global__ void bf16_of_float4(const float4* x, __nv_bfloat162* y, int n) {
  const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (i >= n) return;
  const float4 v = __ldg(x + i);
  y[2 * i] = __floats2bfloat162_rn(v.x, v.y);
  y[2 * i + 1] = __floats2bfloat162_rn(v.z, v.w);
}

__global__ void half_rounding(const float* x, __half* y) { y[threadIdx.x] = __float2half_rn(x[threadIdx.x]); }

__global__ void running_sum(float* x, int n) {
  CHARRNN_DYNAMIC_SHARED(float, part);
  const int t = static_cast<int>(threadIdx.x);
  part[t] = x[t];
  for (int d = 1; d < n; d *= 2) {
    __syncthreads();
    const float before = t >= d ? part[t - d] : 0.0F;
    __syncthreads();
    part[t] += before;
  }
  x[t] = part[t];
}

struct Big {
  float factor[24];
  const float* x;
};
__global__ void takes_a_struct(Big big, float* y) { y[threadIdx.x] = big.factor[threadIdx.x] * big.x[threadIdx.x]; }

__constant__ const int kTable[5] = {3, 1, 4, 1, 5};
__global__ void reads_a_table(int* y) { y[threadIdx.x] = kTable[threadIdx.x % 5]; }

__global__ void bytes_of_neighbours(std::uint8_t* x) { x[threadIdx.x] = static_cast<std::uint8_t>(threadIdx.x); }

__global__ void last_block(const float* x, float* parts, unsigned* arrived, float* y) {
  __shared__ bool last;
  if (threadIdx.x == 0) {
    atomicExch(parts + blockIdx.x, x[blockIdx.x]);
    __threadfence();
    last = atomicAdd(arrived, 1U) == gridDim.x - 1;
  }
  __syncthreads();
  if (last && threadIdx.x == 0) {
    float sum = 0;
    for (unsigned i = 0; i < gridDim.x; ++i) sum += atomicAdd(parts + i, 0.0F);
    *y = sum;
  }
}

}  // namespace

TEST_CASE("correct kernels compute what they should and are reported for nothing, over 200 seeds") {
  for (int seed = 0; seed < kSeeds; ++seed) {
    begin(static_cast<std::uint64_t>(seed));
    {
      const auto numbers = counting(5 * 64);
      const Device<float> x(numbers);
      Device<float> y(5 * 64);
      run(scaled, 3, 37, x, y, 2.0F, 5 * 64);
      REQUIRE(y.read(320)[319] == 640);
      run(block_sums<64>, 5, 64, x, y);
      REQUIRE(y.read(5)[1] == std::accumulate(numbers.begin() + 64, numbers.begin() + 128, 0.0F));
      const Stream stream;
      succeed(host_cuda::launch("transposed", transposed, dim3(3, 2), dim3(kTile, kTile), 0, stream,
                                static_cast<const float*>(x), static_cast<float*>(y), 13, 19));
      stream.wait();
      REQUIRE(y.read(13 * 19)[5 * 13 + 7] == numbers[7 * 19 + 5]);
      succeed(host_cuda::launch("running_sum", running_sum, dim3(1), dim3(37), 37 * sizeof(float), stream,
                                static_cast<float*>(x), 37));
      stream.wait();
      REQUIRE(x.read(37)[36] == 37 * 38 / 2);
    }
    {
      std::vector<std::uint8_t> text(1000);
      for (std::size_t i = 0; i < text.size(); ++i) text[i] = static_cast<std::uint8_t>(i % 7);
      const Device<std::uint8_t> device_text(text);
      Device<unsigned> counts(std::vector<unsigned>(7, 0));
      run(histogram, 3, 65, device_text, 1000, counts);
      REQUIRE(counts.read(7)[0] == 143);
      run(bytes_of_neighbours, 1, 77, device_text);
    }
    {
      std::vector<int> numbers(64);
      std::iota(numbers.begin(), numbers.end(), 1);
      Device<int> x(numbers);
      Device<int> y(64);
      Device<unsigned> z(7);
      run(prefix_sums, 1, 64, x, y);
      REQUIRE(y.read(64)[31] == 32 * 33 / 2);
      run(votes, 1, 32, x, z);
      REQUIRE(z.read(7) == std::vector<unsigned>{0x55555555U, 1, 1, 32, 5, 16 + 1 + 31, 16});
      run(reversed_in_warps, 1, 64, x);
      REQUIRE(x.read(64)[0] == 32);
      run(halves_of_a_warp, 1, 32, x);
      REQUIRE(x.read(32)[1] == (31 + 32) * 4);
      run(reads_a_table, 1, 11, x);
      REQUIRE(x.read(11)[4] == 5);
    }
    {
      const Device<float> x(counting(4 * 33));
      Device<__nv_bfloat16> y(4 * 33);
      run(bf16_of_float4, 2, 32, reinterpret_cast<const float4*>(static_cast<float*>(x)),
          reinterpret_cast<__nv_bfloat162*>(static_cast<__nv_bfloat16*>(y)), 33);
      REQUIRE(__bfloat162float(y.read(132)[129]) == 130);
      Device<__half> z(9);
      run(half_rounding, 1, 9, x, z);
      REQUIRE(__half2float(z.read(9)[8]) == 9);
      Device<float> parts(33);
      succeed(cudaMemset(parts, 0, 33 * sizeof(float)));
      Device<unsigned> arrived(std::vector<unsigned>(1, 0));
      Device<float> sum(1);
      succeed(cudaDeviceSynchronize());
      run(last_block, 33, 3, x, parts, arrived, sum);
      REQUIRE(sum.read(1)[0] == 33 * 34 / 2);
      Big big{};
      big.x = x;
      for (int i = 0; i < 24; ++i) big.factor[i] = 2;
      run(takes_a_struct, 1, 24, big, parts);
      REQUIRE(parts.read(24)[23] == 48);
    }
    CAPTURE(seed);
    REQUIRE(findings() == "");
    REQUIRE(host_cuda::leaks().empty());
  }
}

TEST_CASE("a launch that a GPU refuses is refused") {
  begin();
  const Stream stream;
  const auto launched = [&](dim3 grid, dim3 block, std::size_t shared) {
    return host_cuda::launch("running_sum", running_sum, grid, block, shared, stream, static_cast<float*>(nullptr), 0);
  };
  CHECK(launched(dim3(1), dim3(1025), 0) == cudaErrorInvalidConfiguration);
  CHECK(only("misuse"));
  CHECK(launched(dim3(0), dim3(32), 0) == cudaErrorInvalidConfiguration);
  CHECK(only("misuse"));
  CHECK(launched(dim3(1), dim3(32), 49153) == cudaErrorInvalidConfiguration);
  CHECK(only("misuse"));
  CHECK(cudaGetLastError() == cudaErrorInvalidConfiguration);
  CHECK(cudaGetLastError() == cudaSuccess);
}

TEST_CASE("more than 48 KB of shared memory are had for the asking") {
  begin();
  const auto* kernel = reinterpret_cast<const void*>(&running_sum);
  succeed(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, 100000));
  const Stream stream;
  Device<float> x(counting(8));
  CHECK(host_cuda::launch("running_sum", running_sum, dim3(1), dim3(8), 100000, stream, static_cast<float*>(x), 8) ==
        cudaSuccess);
  stream.wait();
  CHECK(x.read(8)[7] == 36);
  CHECK(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, 300000) == cudaErrorInvalidValue);
  CHECK(findings() == "");
}
