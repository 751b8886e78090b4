// How a kernel is launched: one function, the same call in both builds, every launch checked. Under nvcc it is
// cudaLaunchKernelExC; in the build that runs on a CPU (tests/host_cuda) it queues the kernel there.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#if defined(CHARRNN_HOST_CUDA)
#include "host_cuda/launch.h"  // host_cuda::launch; prelude.h there has the twins of the macros below
#else
// NOLINTBEGIN(bugprone-macro-parentheses): a type and a name that is declared stand bare
/// Dynamic shared memory as a pointer: CHARRNN_DYNAMIC_SHARED(float, tile); aligned to 16 bytes.
#define CHARRNN_DYNAMIC_SHARED(type, name)                      \
  extern __shared__ __align__(16) unsigned char name##_bytes[]; \
  type* const name = reinterpret_cast<type*>(name##_bytes)
// NOLINTEND(bugprone-macro-parentheses)
/// Stands before a call of Thrust with device pointers: on a CPU it is the host that then touches device memory.
#define CHARRNN_THRUST_TOUCHES_DEVICE
#endif

namespace charrnn::cuda {

/// Throws what a failed call means (src/cuda/check.cpp), naming `what` and the sentence of the CUDA runtime.
void check(cudaError_t status, const char* what);
/// Counts the launch, and waits for the stream if CHARRNN_SYNC=1 and it is not capturing, to pin down a fault.
void launched(const char* kernel, cudaStream_t stream);

struct LaunchShape {
  dim3 grid{1};
  dim3 block{1};
  std::size_t shared_bytes = 0;  // dynamic shared memory
};

/// @param name  for messages
template <class... Parameters, class... Arguments>
void launch(const char* name, void (*kernel)(Parameters...), const LaunchShape& shape, cudaStream_t stream,
            Arguments&&... arguments) {
  if (shape.grid.x == 0 || shape.grid.y == 0 || shape.grid.z == 0) return;  // an empty grid is refused by CUDA
#if defined(CHARRNN_HOST_CUDA)
  check(host_cuda::launch(name, kernel, shape.grid, shape.block, shape.shared_bytes, stream,
                          static_cast<Parameters>(arguments)...),
        name);
#else
  cudaLaunchConfig_t config{};
  config.gridDim = shape.grid;
  config.blockDim = shape.block;
  config.dynamicSmemBytes = shape.shared_bytes;
  config.stream = stream;
  const auto call = [&](Parameters... values) {
    void* addresses[] = {static_cast<void*>(&values)..., nullptr};
    return cudaLaunchKernelExC(&config, reinterpret_cast<const void*>(kernel), addresses);
  };
  check(call(static_cast<Parameters>(arguments)...), name);
#endif
  launched(name, stream);
}

/// Blocks of `block` threads that cover n elements, at most `most` of them: kernels stride over what is left.
inline LaunchShape cover(std::int64_t n, unsigned block = 256, std::int64_t most = 1 << 16) {
  const std::int64_t blocks = (n + block - 1) / block;
  return {dim3(static_cast<unsigned>(blocks < most ? blocks : most)), dim3(block), 0};
}

}  // namespace charrnn::cuda
