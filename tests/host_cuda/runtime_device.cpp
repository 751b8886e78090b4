// The CUDA runtime's functions for devices, errors and kernels, and the library's own reset().
#include <cuda_profiler_api.h>

#include <fmt/format.h>

#include <cstdio>
#include <cstring>
#include <map>

#include "host_cuda/graph.h"
#include "host_cuda/grid.h"
#include "host_cuda/memory.h"
#include "host_cuda/runtime.h"
#include "host_cuda/stream.h"

namespace host_cuda {

namespace {

constexpr int kSharedWithoutAsking = 48 << 10;  // bytes of dynamic shared memory of a block

struct Device {
  cudaError_t broken = cudaSuccess;
  cudaError_t last = cudaSuccess;
  std::map<const void*, int> most_shared;  // by kernel, where it was raised
  Counts counts;
};

Device& device() {
  static auto* const only = new Device;
  return *only;
}

cudaError_t refused(const char* name, const std::string& why) {
  report("misuse", fmt::format("{}: launched with {}", name, why));
  return cudaErrorInvalidConfiguration;
}

}  // namespace

cudaError_t sticky_error() { return device().broken; }
void remember_error(cudaError_t error) { device().last = error; }
void break_device(cudaError_t error) {
  const std::lock_guard held(lock());
  device().broken = error;
}

Counts counts() {
  const std::lock_guard held(lock());
  return device().counts;
}

cudaError_t queue(Launch launch, cudaStream_t stream) {
  return interface("cudaLaunchKernel", cudaErrorLaunchOutOfResources, [&]() -> cudaError_t {
    const dim3 g = launch.grid;
    const dim3 b = launch.block;
    if (g.x == 0 || g.y == 0 || g.z == 0 || g.x > 0x7fffffffU || g.y > 65535 || g.z > 65535) {
      return refused(launch.name, fmt::format("a grid of {} x {} x {}", g.x, g.y, g.z));
    }
    if (b.x == 0 || b.y == 0 || b.z == 0 || b.z > 64 || std::uint64_t{b.x} * b.y * b.z > 1024) {
      return refused(launch.name, fmt::format("blocks of {} x {} x {}", b.x, b.y, b.z));
    }
    const auto raised = device().most_shared.find(launch.kernel);
    const int most = raised == device().most_shared.end() ? kSharedWithoutAsking : raised->second;
    if (launch.shared_bytes > static_cast<std::size_t>(most)) {
      return refused(launch.name, fmt::format("{} bytes of dynamic shared memory, of {}", launch.shared_bytes, most));
    }
    const std::string name = launch.name;
    return enqueue(stream, name, [launch = std::move(launch)] {
      ++device().counts.launches;
      if (device().broken == cudaSuccess) run_grid(launch);
    });
  });
}

void reset(const Settings& chosen) {
  const std::lock_guard held(lock());
  settings() = chosen;
  reset_reports();
  reset_graphs();
  timeline().reset();
  reset_checker();
  memory().reset();
  scheduler().reset(chosen.seed);
  device() = {};
}

std::vector<std::string> leaks() {
  const std::lock_guard held(lock());
  std::vector<std::string> result = memory().living();
  for (auto&& more : {scheduler().living(), living_graphs()}) result.insert(result.end(), more.begin(), more.end());
  return result;
}

}  // namespace host_cuda

using namespace host_cuda;

cudaError_t cudaGetDeviceCount(int* count) {
  return interface("cudaGetDeviceCount", cudaErrorInitializationError, [&] {
    *count = settings().devices;
    return *count > 0 ? cudaSuccess : cudaErrorNoDevice;
  });
}

cudaError_t cudaSetDevice(int number) {
  return interface("cudaSetDevice", cudaErrorInitializationError,
                   [&] { return number == 0 && settings().devices > 0 ? cudaSuccess : cudaErrorInvalidDevice; });
}

cudaError_t cudaGetDevice(int* number) {
  *number = 0;
  return cudaSuccess;
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int number) {
  return interface("cudaGetDeviceProperties", cudaErrorInitializationError, [&] {
    if (number < 0 || number >= settings().devices) return cudaErrorInvalidDevice;
    *properties = {};
    std::snprintf(properties->name, sizeof properties->name, "CPU as a CUDA device");
    properties->totalGlobalMem = settings().memory_bytes;
    properties->sharedMemPerBlock = kSharedWithoutAsking;
    properties->sharedMemPerBlockOptin = kMostShared;
    properties->sharedMemPerMultiprocessor = kMostShared + 1024;
    properties->regsPerBlock = properties->regsPerMultiprocessor = 65536;
    properties->warpSize = static_cast<int>(kWarp);
    properties->maxThreadsPerBlock = 1024;
    properties->maxThreadsPerMultiProcessor = 2048;
    properties->maxThreadsDim[0] = properties->maxThreadsDim[1] = 1024;
    properties->maxThreadsDim[2] = 64;
    properties->maxGridSize[0] = 0x7fffffff;
    properties->maxGridSize[1] = properties->maxGridSize[2] = 65535;
    properties->major = settings().compute_major;
    properties->minor = settings().compute_minor;
    properties->multiProcessorCount = 132;
    properties->l2CacheSize = 50 << 20;
    properties->memoryBusWidth = 5120;
    properties->asyncEngineCount = 3;
    properties->concurrentKernels = properties->unifiedAddressing = properties->canMapHostMemory = 1;
    return cudaSuccess;
  });
}

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int number) {
  return interface("cudaDeviceGetAttribute", cudaErrorInitializationError, [&] {
    if (number < 0 || number >= settings().devices) return cudaErrorInvalidDevice;
    switch (attribute) {
      case cudaDevAttrMaxThreadsPerBlock: *value = 1024; break;
      case cudaDevAttrMaxSharedMemoryPerBlock: *value = kSharedWithoutAsking; break;
      case cudaDevAttrMaxSharedMemoryPerBlockOptin: *value = kMostShared; break;
      case cudaDevAttrMaxSharedMemoryPerMultiprocessor: *value = kMostShared + 1024; break;
      case cudaDevAttrMultiProcessorCount: *value = 132; break;
      case cudaDevAttrMaxThreadsPerMultiProcessor: *value = 2048; break;
      case cudaDevAttrMaxRegistersPerBlock:
      case cudaDevAttrMaxRegistersPerMultiprocessor: *value = 65536; break;
      case cudaDevAttrComputeCapabilityMajor: *value = settings().compute_major; break;
      case cudaDevAttrComputeCapabilityMinor: *value = settings().compute_minor; break;
      case cudaDevAttrClockRate: *value = 1980000; break;
      case cudaDevAttrMemoryClockRate: *value = 2619000; break;
      case cudaDevAttrGlobalMemoryBusWidth: *value = 5120; break;
      case cudaDevAttrL2CacheSize: *value = 50 << 20; break;
      case cudaDevAttrWarpSize: *value = static_cast<int>(kWarp); break;
      case cudaDevAttrCooperativeLaunch: *value = 0; break;
      case cudaDevAttrMemoryPoolsSupported: *value = 0; break;
      default:
        report("misuse", fmt::format("device attribute {} is not modelled", static_cast<int>(attribute)));
        return cudaErrorInvalidValue;
    }
    return cudaSuccess;
  });
}

cudaError_t cudaDeviceGetPCIBusId(char* text, int length, int /*number*/) {
  std::snprintf(text, static_cast<std::size_t>(length), "0000:00:00.0");
  return cudaSuccess;
}

cudaError_t cudaDriverGetVersion(int* version) {
  *version = CUDART_VERSION;
  return cudaSuccess;
}
cudaError_t cudaRuntimeGetVersion(int* version) {
  *version = CUDART_VERSION;
  return cudaSuccess;
}

cudaError_t cudaGetLastError() {
  const std::lock_guard held(lock());
  if (sticky_error() != cudaSuccess) return sticky_error();
  const cudaError_t last = device().last;
  device().last = cudaSuccess;
  return last;
}

cudaError_t cudaPeekAtLastError() {
  const std::lock_guard held(lock());
  return sticky_error() != cudaSuccess ? sticky_error() : device().last;
}

#define CHARRNN_ERRORS(X)                                                                                       \
  X(Success, "no error")                                                                                        \
  X(ErrorInvalidValue, "invalid argument")                                                                      \
  X(ErrorMemoryAllocation, "out of memory")                                                                     \
  X(ErrorInitializationError, "initialization error")                                                           \
  X(ErrorInsufficientDriver, "CUDA driver version is insufficient for CUDA runtime version")                    \
  X(ErrorNoDevice, "no CUDA-capable device is detected")                                                        \
  X(ErrorInvalidDevice, "invalid device ordinal")                                                               \
  X(ErrorInvalidConfiguration, "invalid configuration argument")                                                \
  X(ErrorInvalidResourceHandle, "invalid resource handle")                                                      \
  X(ErrorIllegalState, "the operation cannot be performed in the present state")                                \
  X(ErrorNotReady, "device not ready")                                                                          \
  X(ErrorIllegalAddress, "an illegal memory access was encountered")                                            \
  X(ErrorMisalignedAddress, "misaligned address")                                                               \
  X(ErrorLaunchOutOfResources, "too many resources requested for launch")                                       \
  X(ErrorLaunchFailure, "unspecified launch failure")                                                           \
  X(ErrorNotSupported, "operation not supported")                                                               \
  X(ErrorStreamCaptureUnsupported, "operation not permitted when stream is capturing")                          \
  X(ErrorStreamCaptureInvalidated, "operation failed due to a previous error during capture")                   \
  X(ErrorStreamCaptureMerge, "operation would result in a merge of separate capture sequences")                 \
  X(ErrorStreamCaptureUnmatched, "capture was not ended in the same stream as it began")                        \
  X(ErrorStreamCaptureUnjoined, "capturing stream has unjoined work")                                           \
  X(ErrorStreamCaptureIsolation, "dependency created on uncaptured work in another stream")                     \
  X(ErrorStreamCaptureImplicit, "operation would make the legacy stream depend on a capturing blocking stream") \
  X(ErrorCapturedEvent, "operation not permitted on an event last recorded in a capturing stream")              \
  X(ErrorUnknown, "unknown error")

const char* cudaGetErrorString(cudaError_t error) {
  switch (error) {
#define CHARRNN_ERROR(name, text) \
  case cuda##name: return text;
    CHARRNN_ERRORS(CHARRNN_ERROR)
#undef CHARRNN_ERROR
    default: return "another error";
  }
}

const char* cudaGetErrorName(cudaError_t error) {
  switch (error) {
#define CHARRNN_ERROR(name, text) \
  case cuda##name: return "cuda" #name;
    CHARRNN_ERRORS(CHARRNN_ERROR)
#undef CHARRNN_ERROR
    default: return "cudaErrorUnrecognized";
  }
}

cudaError_t cudaProfilerStart() {
  const std::lock_guard held(lock());
  ++device().counts.profiler_starts;
  return cudaSuccess;
}
cudaError_t cudaProfilerStop() {
  const std::lock_guard held(lock());
  ++device().counts.profiler_stops;
  return cudaSuccess;
}

cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* attributes, const void* kernel) {
  return interface("cudaFuncGetAttributes", cudaErrorUnknown, [&] {
    *attributes = {};
    attributes->maxThreadsPerBlock = 1024;
    attributes->numRegs = 32;
    attributes->ptxVersion = attributes->binaryVersion = settings().compute_major * 10 + settings().compute_minor;
    const auto raised = device().most_shared.find(kernel);
    attributes->maxDynamicSharedSizeBytes =
        raised == device().most_shared.end() ? kSharedWithoutAsking : raised->second;
    return cudaSuccess;
  });
}

cudaError_t cudaFuncSetAttribute(const void* kernel, cudaFuncAttribute attribute, int value) {
  return interface("cudaFuncSetAttribute", cudaErrorUnknown, [&] {
    if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize) return cudaSuccess;
    if (value < 0 || static_cast<std::size_t>(value) > kMostShared) return cudaErrorInvalidValue;
    device().most_shared[kernel] = value;
    return cudaSuccess;
  });
}

cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, const void* /*kernel*/, int threads,
                                                          size_t shared_bytes) {
  return interface("cudaOccupancyMaxActiveBlocksPerMultiprocessor", cudaErrorUnknown, [&] {
    if (threads < 1 || threads > 1024) return cudaErrorInvalidValue;
    const int by_threads = std::min(32, 2048 / threads);
    const int by_memory = static_cast<int>((kMostShared + 1024) / (shared_bytes + 1024));
    *blocks = std::min(by_threads, by_memory);
    return cudaSuccess;
  });
}
