#include "host_cuda/timeline.h"

#include <sys/mman.h>

#include <cstdio>
#include <cstdlib>

namespace host_cuda {

namespace {
constexpr std::size_t kChainBytes = (std::size_t{1} << 32U) * sizeof(Chain);
}

Timeline::Timeline() {
  void* memory = mmap(nullptr, kChainBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) {
    std::perror("host_cuda: no address space for the timeline");
    std::abort();
  }
  chains_ = static_cast<Chain*>(memory);
  reset();
}

void Timeline::reset() {
  madvise(chains_, kChainBytes, MADV_DONTNEED);
  last_ = 0;
  latest_.assign(1, 0);
  names_.clear();
  texts_.clear();
  numbers_.clear();
}

Chain Timeline::new_chain() {
  if (latest_.size() > 65000) {
    std::fprintf(stderr, "host_cuda: more streams and graph branches than the checker can tell apart; reset()\n");
    std::abort();
  }
  latest_.push_back(0);
  return static_cast<Chain>(latest_.size() - 1);
}

Moment Timeline::advance(Chain chain) {
  if (last_ == 0xffffffffU) {
    std::fprintf(stderr, "host_cuda: 2^32 moments have passed; reset()\n");
    std::abort();
  }
  ++last_;
  if (chain != kHost) chains_[last_] = chain;  // kHost is what an untouched page says
  latest_[chain] = last_;
  return last_;
}

void Timeline::name_next(const std::string& name) {
  const auto [at, fresh] = numbers_.try_emplace(name, static_cast<std::uint32_t>(texts_.size()));
  if (fresh) texts_.push_back(name);
  names_.push_back({last_ + 1, at->second});
}

std::string Timeline::name_of(Moment moment) const {
  if (moment == 0) return "nobody";
  if (chain_of(moment) == kHost) return "the host";
  auto after =
      std::upper_bound(names_.begin(), names_.end(), moment, [](Moment m, const Name& n) { return m < n.first; });
  return after == names_.begin() ? "an operation" : texts_[(after - 1)->name];
}

Moment Timeline::settled(const Clock& clock) const {
  Moment settled = last_;
  for (std::size_t chain = 0; chain < latest_.size(); ++chain) {
    const Moment seen = clock.at(static_cast<Chain>(chain));
    if (latest_[chain] > seen) settled = std::min(settled, seen);
  }
  return settled;
}

Timeline& timeline() {
  static auto* const only = new Timeline;  // outlives whatever runs while the process ends
  return *only;
}

}  // namespace host_cuda
