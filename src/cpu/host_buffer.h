// Owning memory of the CPU backend: zeroed, at a multiple of 64 bytes, in huge pages where the system gives them.
#pragma once

#include <cstddef>
#include <memory>
#include <type_traits>
#include <utility>

namespace charrnn::cpu {

/// Part of a mapping that lives as long as one of its parts.
struct MemoryBlock {
  std::shared_ptr<void> mapping;
  void* data = nullptr;
};
/// @throws DeviceError when memory is short
MemoryBlock allocate_zeroed(std::size_t bytes);

template <class T>
class HostArray {
  static_assert(std::is_trivially_copyable_v<T>);

 public:
  HostArray() = default;
  /// Zeroed. @throws DeviceError when memory is short
  explicit HostArray(std::size_t count) : count_(count) {
    if (count > 0) block_ = allocate_zeroed(count * sizeof(T));
  }
  HostArray(const HostArray&) = delete;
  HostArray& operator=(const HostArray&) = delete;
  HostArray(HostArray&& o) noexcept : block_(std::exchange(o.block_, {})), count_(std::exchange(o.count_, 0)) {}
  HostArray& operator=(HostArray&& o) noexcept {
    std::swap(block_, o.block_);
    std::swap(count_, o.count_);
    return *this;
  }
  ~HostArray() = default;

  T* data() { return static_cast<T*>(block_.data); }
  const T* data() const { return static_cast<const T*>(block_.data); }
  std::size_t size() const { return count_; }

 private:
  MemoryBlock block_;
  std::size_t count_ = 0;
};

using HostBuffer = HostArray<float>;

}  // namespace charrnn::cpu
