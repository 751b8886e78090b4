// Owning float memory of the CPU backend: zeroed pages from the kernel, in huge pages where it gives them.
#pragma once

#include <sys/mman.h>

#include <cstddef>
#include <string>
#include <utility>

#include "charrnn/error.h"

namespace charrnn::cpu {

class HostBuffer {
 public:
  HostBuffer() = default;
  /// Zeroed. @throws DeviceError when memory is short
  explicit HostBuffer(std::size_t count) : count_(count) {
    if (count == 0) return;
    void* p = mmap(nullptr, bytes(), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) {
      throw DeviceError("cpu: " + std::to_string(bytes() >> 20) +
                        " MiB more are needed than there is memory for; use a smaller train.batch, train.sequence or "
                        "model.hidden");
    }
    static_cast<void>(madvise(p, bytes(), MADV_HUGEPAGE));  // advice: fewer page faults and TLB misses where granted
    data_ = static_cast<float*>(p);
  }
  HostBuffer(const HostBuffer&) = delete;
  HostBuffer& operator=(const HostBuffer&) = delete;
  HostBuffer(HostBuffer&& o) noexcept : data_(std::exchange(o.data_, nullptr)), count_(std::exchange(o.count_, 0)) {}
  HostBuffer& operator=(HostBuffer&& o) noexcept {
    std::swap(data_, o.data_);
    std::swap(count_, o.count_);
    return *this;
  }
  ~HostBuffer() {
    if (data_ != nullptr) munmap(data_, bytes());
  }

  float* data() { return data_; }
  const float* data() const { return data_; }
  std::size_t size() const { return count_; }

 private:
  std::size_t bytes() const { return count_ * sizeof(float); }
  float* data_ = nullptr;
  std::size_t count_ = 0;
};

}  // namespace charrnn::cpu
