// What a load, a store or an atomic access is held to, and on whose behalf the running code makes it.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <string>

#include "host_cuda/host_cuda.h"
#include "host_cuda/timeline.h"

namespace host_cuda {

/// Settings::check, at hand.
inline bool checking = true;

/// Who runs on this thread of the system. Loads and stores of kThread and kHost are checked; kWork, an operation that
/// is no kernel, names what it touches itself.
enum class Mode : std::uint8_t { kHost, kThread, kWork, kLibrary };

/// The mode of the thread that holds lock(); the others run as the host. No thread-local variable: one that is fast
/// enough would drag the static shared memory of an opened library into the few bytes that the loader keeps for such.
struct ModeOfHolder {
  std::atomic<void*> thread = nullptr;
  Mode mode = Mode::kHost;
};
inline ModeOfHolder mode_of_holder;

inline Mode current_mode() {
  return mode_of_holder.thread.load(std::memory_order_relaxed) == __builtin_thread_pointer() ? mode_of_holder.mode
                                                                                             : Mode::kHost;
}

/// Only for who holds lock().
class ModeScope {
 public:
  explicit ModeScope(Mode now) : thread_(mode_of_holder.thread), mode_(mode_of_holder.mode) {
    mode_of_holder.mode = now;
    mode_of_holder.thread.store(__builtin_thread_pointer(), std::memory_order_relaxed);
  }
  ~ModeScope() {
    mode_of_holder.thread.store(thread_, std::memory_order_relaxed);
    mode_of_holder.mode = mode_;
  }
  ModeScope(const ModeScope&) = delete;
  ModeScope& operator=(const ModeScope&) = delete;

 private:
  void* thread_;
  Mode mode_;
};

/// A thread of a block between two barriers of the block: its number, and the barriers of its warp that it has seen.
struct Position {
  unsigned thread = 0;
  std::uint32_t time = 1;                     // counts from 1 in each phase
  const std::uint32_t* lanes_seen = nullptr;  // [32] time of each lane of the warp at the last __syncwarp with it
};

struct Span {
  const char* begin = nullptr;
  std::size_t bytes = 0;
  bool holds(const void* address) const {
    return static_cast<std::size_t>(static_cast<const char*>(address) - begin) < bytes;
  }
};

/// The operation that runs. One at a time: whoever runs it holds lock().
struct Running {
  const char* name = "";
  Chain chain = kHost;
  const Clock* clock = nullptr;
  Moment settled = 0;    // everything up to here came before
  Moment operation = 0;  // its first moment; a block's, and this phase's: the time from one block barrier to the next
  Moment block = 0;
  Moment phase = 0;
  const Position* position = nullptr;
  Span parameters, dynamic_shared, stack;
};
extern Running running;

/// One more moment of the running operation's chain.
void next_phase(bool new_block);

/// Runs `body` as an operation of `chain`, after what `clock` has seen; `clock` then has seen it too.
void run_operation(const std::string& name, Chain chain, Clock& clock, const Work& body);

enum class Touch : std::uint8_t { kRead, kWrite, kAtomic };

/// A load, a store or an atomic access of `bytes` (1 to 16) that the instruction makes. May not return: a kernel that
/// reaches for what is not the device's is abandoned.
void on_access(const void* at, std::size_t bytes, Touch touch, const void* instruction);

/// Before a kernel runs: finds where the static shared memory of its module lies for this thread.
void kernel_begins(const void* kernel);

/// Forgets what is known of a range of pages.
void forget_cells(const char* begin, std::size_t bytes);

// The C library's own, which the code under test does not reach (-Wl,--wrap).
void* real_memcpy(void* to, const void* from, std::size_t bytes);
void* real_memset(void* to, int value, std::size_t bytes);

/// What the host has seen, and its present moment.
Clock& host_clock();
void reset_checker();
/// The host goes on: what it does from here on is not covered by what it has handed out before.
void host_advances();

}  // namespace host_cuda
