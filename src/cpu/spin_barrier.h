// Where threads that work on one character meet, some hundred thousand times a second: too often to sleep in between.
#pragma once

#include <sched.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <thread>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace charrnn::cpu {

/// A barrier in two halves: arrive() says that this thread's part of the phase is done, wait() blocks until every
/// party's is. What stands between the two calls overlaps with the others' parts. What a party wrote before arrive() is
/// seen by all after wait(). Each party calls both, in turns; a party that leaves out one blocks the others.
class SpinBarrier {
 public:
  explicit SpinBarrier(int parties) { set_parties(parties); }

  /// While nobody is at the barrier, and none of the parties runs.
  void set_parties(int parties) {
    parties_ = static_cast<std::uint64_t>(parties);
    spins_ = static_cast<unsigned>(parties) > std::thread::hardware_concurrency() ? 0 : kSpins;
    arrived_.store(0, std::memory_order_relaxed);
  }

  /// @returns what to wait for
  std::uint64_t arrive() {
    // Arrivals are counted and never taken back: all of a phase come before any of the next, so phase p is over when
    // (p + 1) * parties have come. 64 bits do not run over.
    const std::uint64_t before = arrived_.fetch_add(1, std::memory_order_acq_rel);
    return (before / parties_ + 1) * parties_;
  }

  /// @returns how long it waited with its core offered to others, because somebody was late; 0 mostly
  std::chrono::nanoseconds wait(std::uint64_t ticket) const {
    for (int spin = 0; spin < spins_; ++spin) {
      if (arrived_.load(std::memory_order_acquire) >= ticket) return {};
      pause();
    }
    if (arrived_.load(std::memory_order_acquire) >= ticket) return {};
    const auto start = std::chrono::steady_clock::now();
    while (arrived_.load(std::memory_order_acquire) < ticket) sched_yield();  // the late one may need this core
    return std::chrono::steady_clock::now() - start;
  }

  void meet() { wait(arrive()); }

 private:
  static constexpr int kSpins = 1000;  // some ten microseconds

  static void pause() {
#if defined(__x86_64__)
    _mm_pause();
#endif
  }

  alignas(64) std::atomic<std::uint64_t> arrived_{0};
  alignas(64) std::uint64_t parties_ = 1;
  int spins_ = 0;
};

}  // namespace charrnn::cpu
