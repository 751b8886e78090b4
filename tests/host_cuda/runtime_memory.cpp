// The CUDA runtime's functions for memory and copies.
#include <fmt/format.h>

#include <cstring>
#include <memory>
#include <vector>

#include "host_cuda/graph.h"
#include "host_cuda/memory.h"
#include "host_cuda/runtime.h"
#include "host_cuda/stream.h"

using namespace host_cuda;

namespace {

enum class Place { kPageable, kPinned, kDevice };

Place place_of(const void* address) {
  if (!memory().in_window(address)) return Place::kPageable;
  const Allocation* allocation = memory().find(address);
  return allocation != nullptr && allocation->kind == MemoryKind::kPinned ? Place::kPinned : Place::kDevice;
}

bool fits(cudaMemcpyKind kind, Place to, Place from) {
  const bool to_device = to == Place::kDevice;
  const bool from_device = from == Place::kDevice;
  switch (kind) {
    case cudaMemcpyHostToHost: return !to_device && !from_device;
    case cudaMemcpyHostToDevice: return to_device && !from_device;
    case cudaMemcpyDeviceToHost: return !to_device && from_device;
    case cudaMemcpyDeviceToDevice: return to_device && from_device;
    case cudaMemcpyDefault: return true;
  }
  return false;
}

/// Rows of bytes; one row unless it is a 2D copy.
struct Copy {
  char* to = nullptr;
  const char* from = nullptr;
  std::size_t to_pitch = 0, from_pitch = 0, bytes = 0, rows = 1;
};

void run_copy(const Copy& copy) {
  for (std::size_t row = 0; row < copy.rows; ++row) {
    char* to = copy.to + row * copy.to_pitch;
    const char* from = copy.from + row * copy.from_pitch;
    const bool readable = !memory().in_window(from) || touch(from, copy.bytes, Access::kRead, "source");
    const bool writable = !memory().in_window(to) || touch(to, copy.bytes, Access::kWrite, "destination");
    if (readable && writable) real_memcpy(to, from, copy.bytes);
  }
}

cudaError_t mismatch(const char* function) {
  report("misuse", fmt::format("{}: the memory is not where the kind of copy says", function));
  return cudaErrorInvalidValue;
}

cudaError_t copy_now(const char* function, const Copy& copy, cudaMemcpyKind kind) {
  return interface(function, cudaErrorUnknown, [&] {
    if (copy.bytes == 0 || copy.rows == 0) return cudaSuccess;
    if (!fits(kind, place_of(copy.to), place_of(copy.from))) return mismatch(function);
    if (scheduler().capturing() && forbidden_in_capture(function)) return cudaErrorStreamCaptureImplicit;
    CUstream_st& stream = scheduler().default_stream();
    scheduler().add(stream, {function, [copy] { run_copy(copy); }, {}, nullptr, nullptr, {}});
    scheduler().drain(stream);
    return cudaSuccess;
  });
}

cudaError_t copy_later(const char* function, Copy copy, cudaMemcpyKind kind, cudaStream_t stream) {
  return interface(function, cudaErrorUnknown, [&] {
    if (copy.bytes == 0 || copy.rows == 0) return cudaSuccess;
    const Place to = place_of(copy.to);
    const Place from = place_of(copy.from);
    if (!fits(kind, to, from)) return mismatch(function);
    std::shared_ptr<std::vector<char>> staged;
    if (to == Place::kPageable || from == Place::kPageable) {
      report("host", fmt::format("{} with pageable memory: it is staged, or waits; pin the memory", function));
      if (scheduler().find(stream) != nullptr && stream != nullptr && stream->capture) {
        forbidden_in_capture("a copy of pageable memory");
        return cudaErrorStreamCaptureUnsupported;
      }
    }
    if (from == Place::kPageable && copy.rows == 1) {  // the driver has copied the source when the call returns
      staged = std::make_shared<std::vector<char>>(copy.from, copy.from + copy.bytes);
      copy.from = staged->data();
    }
    const cudaError_t result = enqueue(stream, function, [copy, staged] { run_copy(copy); });
    if (result == cudaSuccess && to == Place::kPageable) scheduler().drain(*scheduler().find(stream));
    return result;
  });
}

cudaError_t allocate(const char* function, void** pointer, std::size_t bytes, MemoryKind kind) {
  return interface(function, cudaErrorMemoryAllocation, [&] {
    *pointer = nullptr;
    if (allocation_breaks_capture() && forbidden_in_capture(function)) return cudaErrorStreamCaptureUnsupported;
    if (bytes == 0) return cudaSuccess;
    *pointer = memory().allocate(bytes, kind);
    return *pointer == nullptr ? cudaErrorMemoryAllocation : cudaSuccess;
  });
}

// Waits for the whole device, as CUDA does: nothing that is queued can use the memory afterwards.
cudaError_t release(const char* function, void* pointer, MemoryKind kind) {
  const std::lock_guard held(lock());
  const ModeScope library(Mode::kLibrary);
  if (pointer == nullptr) return sticky_error();
  if (allocation_breaks_capture() && forbidden_in_capture(function)) return cudaErrorStreamCaptureUnsupported;
  scheduler().drain_all();
  if (memory().free(pointer, kind)) return sticky_error();
  report("misuse", fmt::format("{}: not the start of a living allocation of that kind", function));
  remember_error(cudaErrorInvalidValue);
  return cudaErrorInvalidValue;
}

}  // namespace

cudaError_t cudaMalloc(void** pointer, size_t bytes) {
  return allocate("cudaMalloc", pointer, bytes, MemoryKind::kDevice);
}
cudaError_t cudaFree(void* pointer) { return release("cudaFree", pointer, MemoryKind::kDevice); }

cudaError_t cudaHostAlloc(void** pointer, size_t bytes, unsigned /*flags*/) {
  return allocate("cudaHostAlloc", pointer, bytes, MemoryKind::kPinned);
}
cudaError_t cudaMallocHost(void** pointer, size_t bytes) {
  return allocate("cudaMallocHost", pointer, bytes, MemoryKind::kPinned);
}
cudaError_t cudaFreeHost(void* pointer) { return release("cudaFreeHost", pointer, MemoryKind::kPinned); }

cudaError_t cudaHostGetDevicePointer(void** device, void* host, unsigned /*flags*/) {
  return interface("cudaHostGetDevicePointer", cudaErrorUnknown, [&] {
    *device = host;
    return place_of(host) == Place::kPinned ? cudaSuccess : cudaErrorInvalidValue;
  });
}

cudaError_t cudaMemGetInfo(size_t* free, size_t* total) {
  return interface("cudaMemGetInfo", cudaErrorUnknown, [&] {
    *free = memory().free_bytes();
    *total = settings().memory_bytes;
    return cudaSuccess;
  });
}

cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* attributes, const void* pointer) {
  return interface("cudaPointerGetAttributes", cudaErrorUnknown, [&] {
    *attributes = {};
    const Place place = place_of(pointer);
    void* address = const_cast<void*>(pointer);
    attributes->type = place == Place::kDevice   ? cudaMemoryTypeDevice
                       : place == Place::kPinned ? cudaMemoryTypeHost
                                                 : cudaMemoryTypeUnregistered;
    if (place != Place::kPageable) attributes->devicePointer = address;
    if (place == Place::kPinned) attributes->hostPointer = address;
    return cudaSuccess;
  });
}

cudaError_t cudaMemcpy(void* to, const void* from, size_t bytes, cudaMemcpyKind kind) {
  return copy_now("cudaMemcpy", {static_cast<char*>(to), static_cast<const char*>(from), 0, 0, bytes, 1}, kind);
}

cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind, cudaStream_t stream) {
  return copy_later("cudaMemcpyAsync", {static_cast<char*>(to), static_cast<const char*>(from), 0, 0, bytes, 1}, kind,
                    stream);
}

cudaError_t cudaMemcpy2D(void* to, size_t to_pitch, const void* from, size_t from_pitch, size_t width, size_t height,
                         cudaMemcpyKind kind) {
  return copy_now("cudaMemcpy2D",
                  {static_cast<char*>(to), static_cast<const char*>(from), to_pitch, from_pitch, width, height}, kind);
}

cudaError_t cudaMemcpy2DAsync(void* to, size_t to_pitch, const void* from, size_t from_pitch, size_t width,
                              size_t height, cudaMemcpyKind kind, cudaStream_t stream) {
  return copy_later("cudaMemcpy2DAsync",
                    {static_cast<char*>(to), static_cast<const char*>(from), to_pitch, from_pitch, width, height}, kind,
                    stream);
}

cudaError_t cudaMemsetAsync(void* to, int value, size_t bytes, cudaStream_t stream) {
  return interface("cudaMemsetAsync", cudaErrorUnknown, [&] {
    if (bytes == 0) return cudaSuccess;
    return enqueue(stream, "cudaMemsetAsync", [to, value, bytes] {
      if (touch(to, bytes, Access::kWrite, "destination")) real_memset(to, value, bytes);
    });
  });
}

// On the default stream, and without waiting: streams of one's own do not come after it.
cudaError_t cudaMemset(void* to, int value, size_t bytes) {
  return interface("cudaMemset", cudaErrorUnknown, [&] {
    if (scheduler().capturing() && forbidden_in_capture("cudaMemset")) return cudaErrorStreamCaptureImplicit;
    if (bytes == 0) return cudaSuccess;
    const auto work = [to, value, bytes] {
      if (touch(to, bytes, Access::kWrite, "destination")) real_memset(to, value, bytes);
    };
    scheduler().add(scheduler().default_stream(), {"cudaMemset", work, {}, nullptr, nullptr, {}});
    return cudaSuccess;
  });
}
