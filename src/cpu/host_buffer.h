// Owning memory of the CPU backend: zeroed pages from the kernel, in huge pages where it gives them.
#pragma once

#include <sys/mman.h>

#include <cstddef>
#include <string>
#include <type_traits>
#include <utility>

#include "charrnn/error.h"

namespace charrnn::cpu {

template <class T>
class HostArray {
  static_assert(std::is_trivially_copyable_v<T>);

 public:
  HostArray() = default;
  /// Zeroed. @throws DeviceError when memory is short
  explicit HostArray(std::size_t count) : count_(count) {
    if (count == 0) return;
    void* p = mmap(nullptr, bytes(), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) {
      throw DeviceError("cpu: " + std::to_string(bytes() >> 20) +
                        " MiB more are needed than there is memory for; use a smaller train.batch, train.sequence or "
                        "model.hidden");
    }
    static_cast<void>(madvise(p, bytes(), MADV_HUGEPAGE));  // advice: fewer page faults and TLB misses where granted
    data_ = static_cast<T*>(p);
  }
  HostArray(const HostArray&) = delete;
  HostArray& operator=(const HostArray&) = delete;
  HostArray(HostArray&& o) noexcept : data_(std::exchange(o.data_, nullptr)), count_(std::exchange(o.count_, 0)) {}
  HostArray& operator=(HostArray&& o) noexcept {
    std::swap(data_, o.data_);
    std::swap(count_, o.count_);
    return *this;
  }
  ~HostArray() {
    if (data_ != nullptr) munmap(data_, bytes());
  }

  T* data() { return data_; }
  const T* data() const { return data_; }
  std::size_t size() const { return count_; }

 private:
  std::size_t bytes() const { return count_ * sizeof(T); }
  T* data_ = nullptr;
  std::size_t count_ = 0;
};

using HostBuffer = HostArray<float>;

}  // namespace charrnn::cpu
