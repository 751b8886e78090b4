// The scheduler's dice: the same seed gives the same order on every machine.
#pragma once

#include <cstdint>
#include <numeric>

namespace host_cuda {

/// SplitMix64 (Steele, Lea, Flood 2014).
class Dice {
 public:
  explicit Dice(std::uint64_t seed = 0) : state_(seed) {}
  std::uint64_t next() {
    std::uint64_t z = state_ += 0x9e3779b97f4a7c15ULL;
    z = (z ^ (z >> 30U)) * 0xbf58476d1ce4e5b9ULL;
    z = (z ^ (z >> 27U)) * 0x94d049bb133111ebULL;
    return z ^ (z >> 31U);
  }
  std::uint64_t below(std::uint64_t n) { return next() % n; }

 private:
  std::uint64_t state_;
};

/// An order of n things without a table: i -> (first + i * stride) mod n, which is one to one as stride and n share no
/// factor.
class Order {
 public:
  Order(std::uint64_t n, Dice& dice) : n_(n) {
    switch (dice.below(3)) {
      case 0: break;  // as they come
      case 1:         // last to first
        first_ = n - 1;
        stride_ = n - 1;
        break;
      default:
        first_ = dice.below(n);
        do stride_ = 1 + dice.below(n);
        while (std::gcd(stride_, n) != 1);
    }
    if (n == 1) first_ = 0;
  }
  std::uint64_t operator[](std::uint64_t i) const { return (first_ + i * stride_) % n_; }

 private:
  std::uint64_t n_, first_ = 0, stride_ = 1;
};

}  // namespace host_cuda
