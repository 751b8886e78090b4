#include "cpu/host_buffer.h"

#include <sys/mman.h>

#include <atomic>
#include <cstdint>
#include <mutex>
#include <string>

#include "charrnn/error.h"

namespace charrnn::cpu {

namespace {

constexpr std::size_t kHugePage = std::size_t{2} << 20U;
constexpr std::size_t kLine = 64;
constexpr std::size_t kLarge = std::size_t{1} << 20U;  // bytes from which on an array has a mapping of its own

std::size_t round_up(std::size_t n, std::size_t to) { return (n + to - 1) / to * to; }

/// `bytes` of zeros from a multiple of a huge page on.
MemoryBlock map_huge_pages(std::size_t bytes) {
  const std::size_t all = bytes + kHugePage;  // what is never touched takes no memory
  void* const p = mmap(nullptr, all, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (p == MAP_FAILED) {
    throw DeviceError("cpu: " + std::to_string(bytes >> 20U) +
                      " MiB more are needed than there is memory for; use a smaller train.batch, train.sequence or "
                      "model.hidden");
  }
  std::shared_ptr<void> mapping(p, [all](void* mapped) { munmap(mapped, all); });
  static_cast<void>(madvise(p, all, MADV_HUGEPAGE));  // advice: fewer page faults and TLB misses where granted
  const auto address = reinterpret_cast<std::uintptr_t>(p);
  return {std::move(mapping), static_cast<std::byte*>(p) + (round_up(address, kHugePage) - address)};
}

/// Small arrays stand one after the other in huge pages that they share; in mappings of their own they would have small
/// pages, and the rest of the last one each.
class SmallArrays {
 public:
  MemoryBlock take(std::size_t bytes) {
    const std::lock_guard lock(mutex_);
    std::shared_ptr<void> mapping = mapping_.lock();
    if (!mapping || used_ + bytes > kHugePage) {
      const MemoryBlock fresh = map_huge_pages(kHugePage);
      mapping = fresh.mapping;
      mapping_ = mapping;
      data_ = static_cast<std::byte*>(fresh.data);
      used_ = 0;
    }
    std::byte* const data = data_ + used_;
    used_ += round_up(bytes, kLine);
    return {std::move(mapping), data};
  }

 private:
  std::mutex mutex_;
  std::weak_ptr<void> mapping_;  // that arrays are taken from; it goes with the last of them
  std::byte* data_ = nullptr;
  std::size_t used_ = 0;
};

/// Large arrays start at different lines, or rows of several that are read together would share sets of the cache.
std::size_t next_offset() {
  constexpr std::size_t kStep = 17 * kLine, kOffsets = 32;
  static std::atomic<std::size_t> arrays{0};
  return arrays++ % kOffsets * kStep;
}

}  // namespace

MemoryBlock allocate_zeroed(std::size_t bytes) {
  static SmallArrays small;
  if (bytes < kLarge) return small.take(bytes);
  const std::size_t offset = next_offset();
  MemoryBlock block = map_huge_pages(bytes + offset);
  block.data = static_cast<std::byte*>(block.data) + offset;
  return block;
}

}  // namespace charrnn::cpu
