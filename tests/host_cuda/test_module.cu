// A library of its own, opened at run time: its static shared memory lies where only the loader knows, and there is
// more of it than the loader keeps free for libraries that want theirs at once.
#include "host_cuda/launch.h"

namespace {

// @param fault  leaves out the barrier
__global__ void reversed(int* x, bool fault) {
  __shared__ int part[4000];
  part[threadIdx.x] = x[threadIdx.x];
  if (!fault) __syncthreads();
  x[threadIdx.x] = part[63 - threadIdx.x];
}

}  // namespace

/// @returns 0 if all calls succeeded and x is right
extern "C" int run_module(int fault) {
  cudaStream_t stream = nullptr;
  void* memory = nullptr;
  int host[64];
  for (int i = 0; i < 64; ++i) host[i] = i;
  int failed = cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking);
  failed += cudaMalloc(&memory, sizeof host);
  failed += cudaMemcpy(memory, host, sizeof host, cudaMemcpyHostToDevice);
  failed +=
      host_cuda::launch("reversed", reversed, dim3(1), dim3(64), 0, stream, static_cast<int*>(memory), fault != 0);
  failed += cudaStreamSynchronize(stream);
  failed += cudaMemcpy(host, memory, sizeof host, cudaMemcpyDeviceToHost);
  failed += cudaFree(memory);
  failed += cudaStreamDestroy(stream);
  for (int i = 0; i < 64 && fault == 0; ++i) failed += host[i] != 63 - i;
  return failed;
}
