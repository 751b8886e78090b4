// Memory of the device and pinned memory of the host: one window of addresses, cut into pages. An allocation has its
// pages to itself and a free page behind it, so that a step too far lands in nobody's memory and is told as such.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace host_cuda {

enum class MemoryKind { kDevice, kPinned };

struct Allocation {
  char* begin = nullptr;
  std::size_t bytes = 0;
  MemoryKind kind = MemoryKind::kDevice;
  bool freed = false;
};

/// Where the window lies; far from everything before there is one.
inline std::uintptr_t window_begin = std::uintptr_t{1} << 63U;

class Memory {
 public:
  static constexpr std::size_t kWindowBytes = std::size_t{16} << 30U;
  static constexpr std::size_t kPage = 4096;
  /// Allocations start here in their first page: aligned to 256 bytes, as CUDA promises, and to no more.
  static constexpr std::size_t kOffset = 256;

  Memory();

  /// @returns null if the device has no room (device memory alone is limited)
  void* allocate(std::size_t bytes, MemoryKind kind);
  /// @returns false if no such allocation lives
  bool free(void* begin, MemoryKind kind);

  static bool in_window(const void* address) {
    return reinterpret_cast<std::uintptr_t>(address) - window_begin < kWindowBytes;
  }
  /// The allocation that the page belongs to, a freed one too, or null. Only for addresses in the window.
  const Allocation* find(const void* address) const {
    const std::uint32_t owner = owners_[page_of(address)];
    return owner == 0 ? nullptr : &allocations_[owner];
  }
  std::size_t offset_of(const void* address) const {
    return static_cast<std::size_t>(static_cast<const char*>(address) - window_);
  }

  std::size_t free_bytes() const;
  std::vector<std::string> living() const;
  void reset();

 private:
  std::size_t page_of(const void* address) const { return offset_of(address) / kPage; }
  char* room_for(std::size_t pages);

  char* window_;
  std::uint32_t* owners_;                // by page; 0: nobody
  std::vector<Allocation> allocations_;  // the first stands for nobody
  std::map<char*, std::uint32_t> alive_;
  std::size_t next_page_ = 1;
  std::size_t used_bytes_ = 0;  // of the device
};

Memory& memory();
/// A piece of address space that takes memory only where it is written.
void* reserve(std::size_t bytes);

}  // namespace host_cuda
