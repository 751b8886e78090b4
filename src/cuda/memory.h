// Owning memory: of the device, and pinned memory of the host that the device reads and writes.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <span>
#include <string>
#include <utility>

#include "cuda/check.h"

namespace charrnn::cuda {

/// Device memory that is held now, and the most that was held at once, in bytes, over this process.
struct HeldMemory {
  std::size_t now = 0, peak = 0;
};
HeldMemory held_memory();

/// An allocation failed: the device's memory is short.
struct OutOfMemory : DeviceError {
  OutOfMemory(const std::string& message, std::size_t would_hold_bytes)
      : DeviceError(message), would_hold(would_hold_bytes) {}
  std::size_t would_hold;  // bytes, all told, if it had not failed
};

/// @throws OutOfMemory: what was needed for `what`, what is free, which settings help
void* allocate_device(std::size_t bytes, const char* what);
void free_device(void* memory, std::size_t bytes) noexcept;
void* allocate_pinned(std::size_t bytes, const char* what);
void free_pinned(void* memory) noexcept;

std::size_t free_memory();
/// What is needed, what is free, what to do: a message.
std::string short_of_memory(std::size_t bytes, const char* what, const std::string& advice);
/// Copies between memory of the host that is not pinned and the device, when nothing on the device uses either. Wait.
void copy_to_device(void* to, const void* from, std::size_t bytes);
void copy_to_host(void* to, const void* from, std::size_t bytes);

/// @throws DeviceError if less than that is free now, with a sentence of what to do
void require_memory(std::size_t bytes, const char* what, const std::string& advice);

template <class T>
class DeviceBuffer {
 public:
  DeviceBuffer() = default;
  /// Not initialised.
  DeviceBuffer(std::size_t count, const char* what)
      : data_(count == 0 ? nullptr : static_cast<T*>(allocate_device(count * sizeof(T), what))), count_(count) {}
  DeviceBuffer(const DeviceBuffer&) = delete;
  DeviceBuffer& operator=(const DeviceBuffer&) = delete;
  DeviceBuffer(DeviceBuffer&& o) noexcept { swap(o); }
  DeviceBuffer& operator=(DeviceBuffer&& o) noexcept {
    swap(o);
    return *this;
  }
  ~DeviceBuffer() {
    if (data_ != nullptr) free_device(data_, bytes());
  }

  T* data() const { return data_; }
  std::size_t size() const { return count_; }
  std::size_t bytes() const { return count_ * sizeof(T); }

  void zero(cudaStream_t stream) {
    if (count_ != 0) check(cudaMemsetAsync(data_, 0, bytes(), stream), "cudaMemsetAsync");
  }

 private:
  void swap(DeviceBuffer& o) noexcept {
    std::swap(data_, o.data_);
    std::swap(count_, o.count_);
  }
  T* data_ = nullptr;
  std::size_t count_ = 0;
};

template <class T>
class PinnedBuffer {
 public:
  PinnedBuffer() = default;
  PinnedBuffer(std::size_t count, const char* what)
      : data_(count == 0 ? nullptr : static_cast<T*>(allocate_pinned(count * sizeof(T), what))), count_(count) {}
  PinnedBuffer(const PinnedBuffer&) = delete;
  PinnedBuffer& operator=(const PinnedBuffer&) = delete;
  PinnedBuffer(PinnedBuffer&& o) noexcept { swap(o); }
  PinnedBuffer& operator=(PinnedBuffer&& o) noexcept {
    swap(o);
    return *this;
  }
  ~PinnedBuffer() {
    if (data_ != nullptr) free_pinned(data_);
  }

  T* data() const { return data_; }
  std::size_t size() const { return count_; }
  T& operator[](std::size_t i) const { return data_[i]; }

 private:
  void swap(PinnedBuffer& o) noexcept {
    std::swap(data_, o.data_);
    std::swap(count_, o.count_);
  }
  T* data_ = nullptr;
  std::size_t count_ = 0;
};

}  // namespace charrnn::cuda
