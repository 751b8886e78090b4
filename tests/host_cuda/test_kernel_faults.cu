// Kernels with planted faults: each must be found, and as what it is.
#include <cstdint>

#include "host_cuda/test_support.h"
#include "support/catch.h"

using namespace host_cuda_test;

namespace {

// Found with this seed and with every other one, and nothing else is, except what may come with it.
template <class Run>
void always(const std::string& kind, Run run, const std::string& besides = "") {
  for (int seed = 0; seed < 20; ++seed) {
    begin(static_cast<std::uint64_t>(seed));
    run();
    CAPTURE(seed);
    const auto reports = host_cuda::take_reports();
    bool found = false;
    for (const auto& one : reports) {
      CAPTURE(one.text);
      if (one.kind != besides) REQUIRE(one.kind == kind);
      found = found || one.kind == kind;
    }
    REQUIRE(found);
  }
}

__global__ void no_barrier_before_read(float* x) {
  __shared__ float part[64];
  part[threadIdx.x] = x[threadIdx.x];
  x[threadIdx.x] = part[63 - threadIdx.x];
}

__global__ void no_barrier_before_write(float* x) {
  __shared__ float part[64];
  part[threadIdx.x] = x[threadIdx.x];
  __syncthreads();
  const float other = part[63 - threadIdx.x];
  part[threadIdx.x] = other;
  __syncthreads();
  x[threadIdx.x] = part[threadIdx.x];
}

__global__ void no_syncwarp(float* x) {
  __shared__ float part[32];
  part[threadIdx.x] = x[threadIdx.x];
  x[threadIdx.x] = part[threadIdx.x ^ 1U];
}

__global__ void shuffle_as_fence(float* x) {
  __shared__ float part[32];
  part[threadIdx.x] = x[threadIdx.x];
  const float zero = __shfl_xor_sync(0xffffffffU, 0.0F, 1);
  x[threadIdx.x] = part[threadIdx.x ^ 1U] + zero;
}

__global__ void syncwarp_across_warps(float* x) {
  __shared__ float part[64];
  part[threadIdx.x] = x[threadIdx.x];
  __syncwarp();
  x[threadIdx.x] = part[threadIdx.x ^ 32U];
}

__global__ void all_blocks_write_one(float* x) {
  if (threadIdx.x == 0) x[0] = static_cast<float>(blockIdx.x);
}

__global__ void block_reads_anothers(float* x) {
  if (threadIdx.x != 0) return;
  x[blockIdx.x] = 1.0F;
  x[16 + blockIdx.x] = x[(blockIdx.x + 1) % gridDim.x];
}

__global__ void plain_against_atomic(int* x) {
  if (blockIdx.x == 0) {
    x[0] = 5;
  } else {
    atomicAdd(x, 1);
  }
}

__global__ void atomic_hides_nothing(int* x) {
  if (threadIdx.x == 0) {
    x[0] = 5;
    atomicAdd(x, 1);
  } else {
    atomicAdd(x, 1);
  }
}

__global__ void past_the_end(float* x, int n) {
  if (static_cast<int>(threadIdx.x) <= n) x[threadIdx.x] = 1.0F;
}

__global__ void before_the_start(const float* x, float* y) { y[threadIdx.x] = x[static_cast<int>(threadIdx.x) - 1]; }

__global__ void past_dynamic_shared(float* x) {
  CHARRNN_DYNAMIC_SHARED(float, part);
  part[threadIdx.x] = x[threadIdx.x];
  __syncthreads();
  x[threadIdx.x] = part[threadIdx.x];
}

__global__ void past_static_array(float* x, int n) {
  __shared__ float part[8];
  if (threadIdx.x == 0) {
    for (int i = 0; i < n; ++i) part[i] = x[i];
    x[0] = part[n - 2];
  }
}

__global__ void sums_what_is_not_there(const float* x, float* y) {
  y[threadIdx.x] = x[threadIdx.x] + x[threadIdx.x + 32];
}

__global__ void reads_unwritten_shared(float* y) {
  __shared__ float part[32];
  if (threadIdx.x < 31) part[threadIdx.x] = 1.0F;
  __syncthreads();
  y[threadIdx.x] = part[threadIdx.x];
}

__global__ void counts_on_another_blocks_shared(float* y) {
  __shared__ float part[32];
  if (blockIdx.x == 0) part[threadIdx.x] = 1.0F;
  __syncthreads();
  y[blockIdx.x * 32 + threadIdx.x] = part[threadIdx.x];
}

__global__ void barrier_in_a_branch(float* x) {
  if (threadIdx.x < 16) {
    x[threadIdx.x] = 1.0F;
    __syncthreads();
  } else {
    x[threadIdx.x] = 2.0F;
    __syncthreads();
  }
}

__global__ void some_leave_early(float* x) {
  if (threadIdx.x >= 40) return;
  x[threadIdx.x] = 1.0F;
  __syncthreads();
}

__global__ void one_barrier_more(int* x) {
  for (unsigned i = 0; i < 1 + threadIdx.x % 2; ++i) __syncthreads();
  x[threadIdx.x] = 1;
}

__global__ void shuffle_in_a_branch(int* x) {
  int value = static_cast<int>(threadIdx.x);
  if (threadIdx.x < 16) value = __shfl_xor_sync(0xffffffffU, value, 1);
  __syncthreads();
  x[threadIdx.x] = value;
}

__global__ void shuffle_from_outside_the_mask(int* x) {
  if (threadIdx.x >= 16) return;
  x[threadIdx.x] = __shfl_sync(0xffffU, static_cast<int>(threadIdx.x), 20);
}

__global__ void misaligned_float4(const float* x, float4* y) { y[0] = *reinterpret_cast<const float4*>(x + 1); }

__global__ void reads_through(const int* x, int* y) { y[0] = x[0]; }

__global__ void reads_local_of_another(int* x) {
  __shared__ int* from[2];
  int own[4] = {1, 2, 3, static_cast<int>(threadIdx.x)};
  from[threadIdx.x] = own;
  __syncthreads();
  x[threadIdx.x] = from[1 - threadIdx.x][x[2 + threadIdx.x]];
  __syncthreads();
}

}  // namespace

TEST_CASE("shared memory read before the barrier is a race") {
  always(
      "race",
      [] {
        Device<float> x(std::vector<float>(64, 1.0F));
        run(no_barrier_before_read, 1, 64, x);
      },
      "uninitialised");
}

TEST_CASE("shared memory written while others still read it is a race") {
  always("race", [] {
    Device<float> x(std::vector<float>(64, 1.0F));
    run(no_barrier_before_write, 1, 64, x);
  });
}

TEST_CASE("lanes of a warp need __syncwarp to see each other's writes") {
  always(
      "race",
      [] {
        Device<float> x(std::vector<float>(32, 1.0F));
        run(no_syncwarp, 1, 32, x);
      },
      "uninitialised");
}

TEST_CASE("a shuffle is no memory fence") {
  always(
      "race",
      [] {
        Device<float> x(std::vector<float>(32, 1.0F));
        run(shuffle_as_fence, 1, 32, x);
      },
      "uninitialised");
}

TEST_CASE("__syncwarp does not order two warps") {
  always(
      "race",
      [] {
        Device<float> x(std::vector<float>(64, 1.0F));
        run(syncwarp_across_warps, 1, 64, x);
      },
      "uninitialised");
}

TEST_CASE("two blocks that write one address race") {
  always("race", [] {
    Device<float> x(1);
    run(all_blocks_write_one, 7, 32, x);
  });
}

TEST_CASE("a block that reads what another one writes races") {
  always("race", [] {
    Device<float> x(std::vector<float>(32, 1.0F));
    run(block_reads_anothers, 7, 3, x);
  });
}

TEST_CASE("a plain access races with an atomic one") {
  always("race", [] {
    Device<int> x(std::vector<int>(1, 0));
    run(plain_against_atomic, 3, 1, x);
  });
  always("race", [] {
    Device<int> x(std::vector<int>(1, 0));
    run(atomic_hides_nothing, 1, 33, x);
  });
}

TEST_CASE("a store past an allocation's end and a load before its start are out of bounds") {
  always("out of bounds", [] {
    Device<float> x(37);
    run(past_the_end, 1, 64, x, 37);
  });
  always("out of bounds", [] {
    Device<float> x(std::vector<float>(32, 1.0F));
    Device<float> y(32);
    run(before_the_start, 1, 32, x, y);
  });
}

TEST_CASE("freed memory is out of bounds") {
  always("out of bounds", [] {
    float* stale = nullptr;
    {
      Device<float> x(64);
      stale = x;
    }
    run(past_the_end, 1, 1, stale, 37);
  });
}

TEST_CASE("dynamic shared memory ends where the launch says") {
  always("out of bounds", [] {
    Device<float> x(std::vector<float>(32, 1.0F));
    const Stream stream;
    succeed(host_cuda::launch("past_dynamic_shared", past_dynamic_shared, dim3(1), dim3(32), 31 * sizeof(float), stream,
                              static_cast<float*>(x)));
    stream.wait();
  });
}

TEST_CASE("an index past a static array is out of bounds") {
  always("out of bounds", [] {
    Device<float> x(std::vector<float>(32, 1.0F));
    run(past_static_array, 1, 1, x, 9);
  });
}

TEST_CASE("global memory that nobody has written is not read in silence") {
  always("uninitialised", [] {
    Device<float> x(64);
    Device<float> y(32);
    const Stream stream;
    succeed(cudaMemsetAsync(x, 0, 60 * sizeof(float), stream));
    start(stream, sums_what_is_not_there, 1, 32, x, y);
    stream.wait();
  });
}

TEST_CASE("shared memory that nobody in this block has written is not read in silence") {
  always("uninitialised", [] {
    Device<float> y(32);
    run(reads_unwritten_shared, 1, 32, y);
  });
  always("uninitialised", [] {
    Device<float> y(96);
    run(counts_on_another_blocks_shared, 3, 32, y);
  });
}

TEST_CASE("divergent barriers are found") {
  always("barrier", [] {
    Device<float> x(32);
    run(barrier_in_a_branch, 1, 32, x);
  });
  always("barrier", [] {
    Device<float> x(64);
    run(some_leave_early, 1, 64, x);
  });
  always("barrier", [] {
    Device<int> x(64);
    run(one_barrier_more, 1, 64, x);
  });
}

TEST_CASE("a warp operation that some lanes never reach is found, and the kernel ends") {
  always("barrier", [] {
    Device<int> x(32);
    run(shuffle_in_a_branch, 1, 32, x);
  });
  always("barrier", [] {
    Device<int> x(32);
    run(shuffle_from_outside_the_mask, 1, 32, x);
  });
}

TEST_CASE("a float4 that is not aligned to 16 bytes is found") {
  always("misaligned", [] {
    Device<float> x(std::vector<float>(8, 1.0F));
    Device<float4> y(1);
    run(misaligned_float4, 1, 1, x, y);
  });
}

TEST_CASE("a kernel that touches pageable memory is found and ended") {
  always("host", [] {
    int on_the_stack = 3;
    Device<int> y(1);
    run(reads_through, 1, 1, &on_the_stack, y);
  });
  always("host", [] {
    Device<int> y(1);
    run(reads_through, 1, 1, static_cast<const int*>(nullptr), y);
  });
}

TEST_CASE("a kernel may read pinned memory") {
  begin();
  Pinned<int> x(1);
  *x = 3;
  Device<int> y(1);
  run(reads_through, 1, 1, x, y);
  CHECK(y.read(1)[0] == 3);
  CHECK(findings() == "");
}

TEST_CASE("local memory is its thread's own") {
  always("host", [] {
    Device<int> x(std::vector<int>{0, 0, 1, 2});
    run(reads_local_of_another, 1, 2, x);
  });
}

TEST_CASE("a broken device says so from then on") {
  begin();
  host_cuda::Settings settings;
  settings.sticky = true;
  host_cuda::reset(settings);
  {
    Device<float> x(37);
    const Stream stream;
    start(stream, past_the_end, 1U, 64U, x, 37);
    CHECK(cudaStreamSynchronize(stream) == cudaErrorIllegalAddress);
    CHECK(cudaGetLastError() == cudaErrorIllegalAddress);
    CHECK(cudaGetLastError() == cudaErrorIllegalAddress);
    void* more = nullptr;
    CHECK(cudaMalloc(&more, 1) == cudaErrorIllegalAddress);
  }
  CHECK(only("out of bounds"));
}
