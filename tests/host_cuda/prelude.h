// Included before the first line of each file of the CUDA backend when g++ compiles it for the CPU (-include): gives
// the words of CUDA C++ a meaning. NVIDIA's headers come first, since they define some of these words as nothing.
#pragma once

#define CHARRNN_HOST_CUDA 1

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#undef __global__
#undef __device__
#undef __host__
#undef __shared__
#undef __constant__
#undef __launch_bounds__
#undef __forceinline__
#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
// Constant memory is a const table with an initialiser here; one that the host would fill is reported when it is read.
#define __constant__
// One block runs at a time, and all of its threads on one thread of the system: storage of that thread is theirs to
// share, and lies apart from other variables, so that the checker can tell the two.
#define __shared__ static thread_local
// Dynamic shared memory as a pointer; kernels/launch.h has the twin for nvcc.
#define CHARRNN_DYNAMIC_SHARED(type, name) type* const name = static_cast<type*>(host_cuda::dynamic_shared())

// Thrust's algorithms run on the host here, on device memory: until the end of the scope that may be.
#define CHARRNN_THRUST_TOUCHES_DEVICE const host_cuda::ActsAsDevice acts_as_device

#include "host_cuda/device_functions.h"
#include "host_cuda/host_cuda.h"

#define threadIdx (host_cuda::thread_index())
#define blockIdx (host_cuda::block_index())
#define blockDim (host_cuda::block_size())
#define gridDim (host_cuda::grid_size())
#define warpSize 32
