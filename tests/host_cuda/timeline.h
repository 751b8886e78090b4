// Time as the checker sees it. Each stream, each branch of a graph and the host is a chain of moments; moments are
// numbered through all chains, so that one number says which chain and how late. A vector clock holds for each chain
// the last moment known to have passed (FastTrack, Flanagan and Freund 2009).
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>
#include <unordered_map>
#include <vector>

namespace host_cuda {

using Moment = std::uint32_t;  // 0: before everything
using Chain = std::uint16_t;
constexpr Chain kHost = 0;

class Clock {
 public:
  Moment at(Chain chain) const { return chain < seen_.size() ? seen_[chain] : 0; }
  bool has_seen(Chain chain, Moment moment) const { return at(chain) >= moment; }
  void see(Chain chain, Moment moment) {
    if (chain >= seen_.size()) seen_.resize(chain + 1U, 0);
    seen_[chain] = std::max(seen_[chain], moment);
  }
  void join(const Clock& other) {
    if (other.seen_.size() > seen_.size()) seen_.resize(other.seen_.size(), 0);
    for (std::size_t i = 0; i < other.seen_.size(); ++i) seen_[i] = std::max(seen_[i], other.seen_[i]);
  }

 private:
  std::vector<Moment> seen_;
};

class Timeline {
 public:
  Timeline();

  Chain new_chain();
  /// The next moment of all, and it belongs to `chain`.
  Moment advance(Chain chain);
  Chain chain_of(Moment moment) const { return chains_[moment]; }
  /// From here on moments of operations are called `name`.
  void name_next(const std::string& name);
  std::string name_of(Moment moment) const;
  /// Everything up to this moment has passed for who holds `clock`.
  Moment settled(const Clock& clock) const;
  void reset();

 private:
  struct Name {
    Moment first;
    std::uint32_t name;
  };
  Chain* chains_;  // by moment: 8 GB of addresses, of which a page is made when it is written
  Moment last_ = 0;
  std::vector<Moment> latest_;  // by chain
  std::vector<Name> names_;
  std::vector<std::string> texts_;
  std::unordered_map<std::string, std::uint32_t> numbers_;
};

Timeline& timeline();

}  // namespace host_cuda
