#include "host_cuda/memory.h"

#include <fmt/format.h>
#include <sys/mman.h>

#include <cstdio>
#include <cstdlib>

#include "host_cuda/checker.h"
#include "host_cuda/report.h"

namespace host_cuda {

namespace {

constexpr std::size_t kGranule = 512;         // what the device gives at least
constexpr std::size_t kPoisoned = 1U << 20U;  // bytes of an allocation that are poisoned at most: it costs time
constexpr int kPoison = 0xff;                 // NaN in every format of floating point

std::size_t rounded(std::size_t bytes) { return (bytes + kGranule - 1) / kGranule * kGranule; }

}  // namespace

void* reserve(std::size_t bytes) {
  void* at = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (at == MAP_FAILED) {
    std::perror("host_cuda: no address space");
    std::abort();
  }
  return at;
}

Memory::Memory()
    : window_(static_cast<char*>(reserve(kWindowBytes))),
      owners_(static_cast<std::uint32_t*>(reserve(kWindowBytes / kPage * sizeof(std::uint32_t)))),
      allocations_(1) {
  window_begin = reinterpret_cast<std::uintptr_t>(window_);
}

void Memory::reset() {
  for (const auto& [begin, number] : alive_) forget_cells(begin - kOffset, allocations_[number].bytes + kOffset);
  madvise(window_, kWindowBytes, MADV_DONTNEED);
  madvise(owners_, kWindowBytes / kPage * sizeof(std::uint32_t), MADV_DONTNEED);
  allocations_.assign(1, {});
  alive_.clear();
  next_page_ = 1;
  used_bytes_ = 0;
}

// Addresses are taken one after the other, so that a freed one is not soon somebody else's; past the end of the window
// they start again in gaps.
char* Memory::room_for(std::size_t pages) {
  const std::size_t all = kWindowBytes / kPage;
  for (int round = 0; round < 2; ++round) {
    while (next_page_ + pages < all) {
      std::size_t taken = 0;
      for (std::size_t i = 0; i < pages && taken == 0; ++i) {
        const std::uint32_t owner = owners_[next_page_ + i];
        if (owner != 0 && !allocations_[owner].freed) taken = i + 1;
      }
      if (taken == 0) {
        char* room = window_ + next_page_ * kPage;
        next_page_ += pages;
        return room;
      }
      next_page_ += taken;
    }
    next_page_ = 1;
  }
  return nullptr;
}

void* Memory::allocate(std::size_t bytes, MemoryKind kind) {
  if (bytes > kWindowBytes / 4) return nullptr;
  if (kind == MemoryKind::kDevice && rounded(bytes) > free_bytes()) return nullptr;
  const std::size_t pages = (kOffset + bytes + kPage - 1) / kPage + 1;
  char* room = room_for(pages);
  if (room == nullptr) return nullptr;
  forget_cells(room, pages * kPage);
  const auto number = static_cast<std::uint32_t>(allocations_.size());
  for (std::size_t i = 0; i < pages; ++i) owners_[static_cast<std::size_t>(room - window_) / kPage + i] = number;
  char* begin = room + kOffset;
  allocations_.push_back({begin, bytes, kind, false});
  alive_[begin] = number;
  if (kind == MemoryKind::kDevice) used_bytes_ += rounded(bytes);
  real_memset(begin, kPoison, bytes < kPoisoned ? bytes : kPoisoned);
  return begin;
}

bool Memory::free(void* begin, MemoryKind kind) {
  const auto at = alive_.find(static_cast<char*>(begin));
  if (at == alive_.end()) return false;
  Allocation& gone = allocations_[at->second];
  if (gone.kind != kind) return false;
  gone.freed = true;
  if (kind == MemoryKind::kDevice) used_bytes_ -= rounded(gone.bytes);
  const std::size_t pages = (kOffset + gone.bytes + kPage - 1) / kPage;
  madvise(gone.begin - kOffset, pages * kPage, MADV_DONTNEED);
  forget_cells(gone.begin - kOffset, pages * kPage);
  alive_.erase(at);
  return true;
}

std::size_t Memory::free_bytes() const {
  const std::size_t all = settings().memory_bytes;
  return used_bytes_ < all ? all - used_bytes_ : 0;
}

std::vector<std::string> Memory::living() const {
  std::vector<std::string> result;
  for (const auto& [begin, number] : alive_) {
    const bool device = allocations_[number].kind == MemoryKind::kDevice;
    result.push_back(fmt::format("{} bytes of {} memory", allocations_[number].bytes, device ? "device" : "pinned"));
  }
  return result;
}

Memory& memory() {
  static auto* const only = new Memory;
  return *only;
}

}  // namespace host_cuda
