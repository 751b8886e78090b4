#include "host_cuda/grid.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <memory>
#include <vector>

#include "host_cuda/checker.h"
#include "host_cuda/device_functions.h"
#include "host_cuda/fibre.h"
#include "host_cuda/memory.h"
#include "host_cuda/report.h"
#include "host_cuda/stream.h"

namespace host_cuda {

namespace {

constexpr unsigned kMostThreads = 1024;

struct Place {
  const char* file = "";
  int line = 0;
  bool operator==(const Place& o) const { return line == o.line && (file == o.file || std::strcmp(file, o.file) == 0); }
};

std::string text(const Place& place) {
  const char* slash = std::strrchr(place.file, '/');
  return fmt::format("{}:{}", slash == nullptr ? place.file : slash + 1, place.line);
}

enum class State { kFresh, kReady, kAtBarrier, kInWarp, kEnded };

struct Thread {
  State state = State::kFresh;
  uint3 index{};
  Fibre* fibre = nullptr;
  Position position;
  Place place;   // where it waits
  int vote = 0;  // what the barrier came to
};

// Lanes that meet. Values lie twice: the next meeting of the same lanes fills the other half, and cannot be complete
// before every lane has left this one.
struct Meeting {
  unsigned mask = 0;
  WarpOperation operation = WarpOperation::kSync;
  unsigned arrived = 0;
  unsigned half = 0;
  std::uint64_t values[2][kWarp] = {};
};

struct Warp {
  std::vector<std::unique_ptr<Meeting>> meetings;  // by mask; few
  unsigned lanes = 0;                              // that exist
  unsigned ended = 0;
  bool synced = false;  // in this phase: lanes_seen holds something
  std::uint32_t lanes_seen[kWarp][kWarp] = {};
};

class Block {
 public:
  /// @returns false if the kernel was abandoned
  bool run(const Launch& launch, uint3 index);

  int barrier(BarrierVote vote, int predicate, Place place);
  WarpValues meet(unsigned mask, WarpOperation operation, std::uint64_t value, Place place);
  [[noreturn]] void abandon();

  Thread& current() { return threads_[current_]; }
  unsigned lane() const { return current_ % kWarp; }
  unsigned active() const { return warps_[current_ / kWarp].lanes & ~warps_[current_ / kWarp].ended; }
  uint3 index{};
  dim3 grid, block;

 private:
  static void fibre_main();
  void start(const Launch& launch, uint3 index_of_block);
  void leave();
  void ended();
  void complete_barrier();
  void complete(Warp& warp, Meeting& meeting);
  void order_lanes(Warp& warp, unsigned first, unsigned mask);
  void make_ready(unsigned thread);
  void enter(unsigned thread);
  bool next(unsigned& thread);
  void stuck();
  Fibre& fresh_fibre();

  std::vector<Thread> threads_ = std::vector<Thread>(kMostThreads);
  std::vector<Warp> warps_ = std::vector<Warp>(kMostThreads / kWarp);
  std::vector<unsigned> ready_ = std::vector<unsigned>(kMostThreads);  // a ring
  unsigned ready_first_ = 0, ready_count_ = 0;
  std::vector<std::unique_ptr<Fibre>> fibres_;
  std::vector<Fibre*> idle_;
  Fibre main_;
  const Launch* launch_ = nullptr;
  unsigned count_ = 0, started_ = 0, current_ = 0, ended_ = 0, waiting_ = 0;
  unsigned first_waiting_ = 0;  // at the barrier, if any is
  std::array<unsigned, kMostThreads> order_{};
  BarrierVote vote_ = BarrierVote::kNone;
  int votes_ = 0;  // threads with a true predicate
  bool abandoned_ = false;
  bool ready_goes_first_ = false;
  bool ended_early_ = false;
};

Block& running_block() {
  static auto* const only = new Block;
  return *only;
}

char* shared_buffer() {
  static char* const only = static_cast<char*>(reserve(1U << 20U));
  return only;
}

void Block::start(const Launch& launch, uint3 index_of_block) {
  launch_ = &launch;
  index = index_of_block;
  grid = launch.grid;
  block = launch.block;
  count_ = block.x * block.y * block.z;
  started_ = ended_ = waiting_ = ready_count_ = 0;
  abandoned_ = ended_early_ = false;
  votes_ = 0;
  const Order order(count_, dice());
  for (unsigned i = 0; i < count_; ++i) order_[i] = static_cast<unsigned>(order[i]);
  ready_goes_first_ = dice().below(2) == 0;
  for (unsigned i = 0; i < count_; ++i) {
    Thread& thread = threads_[i];
    thread.state = State::kFresh;
    thread.index = {i % block.x, i / block.x % block.y, i / (block.x * block.y)};
    thread.fibre = nullptr;
    thread.position = {i, 1, warps_[i / kWarp].lanes_seen[i % kWarp]};
  }
  for (unsigned i = 0; i * kWarp < count_; ++i) {
    Warp& warp = warps_[i];
    warp.meetings.clear();
    warp.lanes = count_ - i * kWarp >= kWarp ? 0xffffffffU : (1U << (count_ - i * kWarp)) - 1;
    warp.ended = 0;
    if (warp.synced) real_memset(warp.lanes_seen, 0, sizeof warp.lanes_seen);
    warp.synced = false;
  }
}

bool Block::run(const Launch& launch, uint3 index_of_block) {
  start(launch, index_of_block);
  next_phase(true);
  if (launch.shared_bytes > 0) real_memset(shared_buffer(), 0xff, launch.shared_bytes);
  const ModeScope library(Mode::kLibrary);
  unsigned first = 0;
  if (next(first)) {
    current_ = first;
    Thread& thread0 = threads_[first];
    thread0.fibre = &fresh_fibre();
    enter(first);
    main_.switch_to(*thread0.fibre);
  }
  if (abandoned_) {  // fibres stand where they stood: none may go on
    for (const auto& fibre : fibres_) fibre->restart();
  }
  idle_.clear();
  for (const auto& fibre : fibres_) idle_.push_back(fibre.get());
  return !abandoned_;
}

Fibre& Block::fresh_fibre() {
  if (idle_.empty()) {
    fibres_.push_back(std::make_unique<Fibre>(&Block::fibre_main));
    return *fibres_.back();
  }
  Fibre* fibre = idle_.back();
  idle_.pop_back();
  return *fibre;
}

// A fibre runs the thread that it was entered for; when that has ended, the next one that has not begun, and when
// there is none, it is left for a thread that waits. Kernels without barriers so need one fibre and no switch.
void Block::fibre_main() {
  Block& block = running_block();
  for (;;) {
    mode_of_holder.mode = Mode::kThread;
    block.launch_->call(block.launch_->arguments.get());
    mode_of_holder.mode = Mode::kLibrary;
    block.ended();
    Fibre* self = block.current().fibre;
    unsigned thread = 0;
    if (!block.next(thread)) {
      if (block.ended_ != block.count_) block.stuck();
      self->switch_to(block.main_);
      continue;
    }
    block.current_ = thread;
    if (block.threads_[thread].fibre == nullptr) {
      block.threads_[thread].fibre = self;
      block.enter(thread);
      continue;
    }
    block.enter(thread);
    block.idle_.push_back(self);
    self->switch_to(*block.threads_[thread].fibre);
  }
}

void Block::enter(unsigned thread) {
  running.position = &threads_[thread].position;
  running.stack = {threads_[thread].fibre->stack(), Fibre::kStackBytes};
}

// The thread that goes on now: one that is ready, or one that has not begun.
bool Block::next(unsigned& thread) {
  const bool fresh = started_ < count_;
  if (ready_count_ > 0 && (ready_goes_first_ || !fresh)) {
    thread = ready_[ready_first_];
    ready_first_ = (ready_first_ + 1) % kMostThreads;
    --ready_count_;
    return true;
  }
  if (!fresh) return false;
  thread = order_[started_++];
  return true;
}

void Block::make_ready(unsigned thread) {
  threads_[thread].state = State::kReady;
  ready_[(ready_first_ + ready_count_) % kMostThreads] = thread;
  ++ready_count_;
}

// The current thread waits: another one goes on.
void Block::leave() {
  const unsigned self = current_;
  unsigned thread = 0;
  if (!next(thread)) {
    stuck();
    abandon();
  }
  if (thread == self) return;
  current_ = thread;
  Thread& to = threads_[thread];
  if (to.fibre == nullptr) to.fibre = &fresh_fibre();
  enter(thread);
  threads_[self].fibre->switch_to(*to.fibre);
}

void Block::abandon() {
  abandoned_ = true;
  mode_of_holder.mode = Mode::kLibrary;
  current().fibre->switch_to(main_);
  __builtin_unreachable();
}

void Block::stuck() {
  std::string waiting;
  for (unsigned i = 0; i < count_ && waiting.size() < 300; ++i) {
    const Thread& thread = threads_[i];
    if (thread.state != State::kAtBarrier && thread.state != State::kInWarp) continue;
    if (!waiting.empty()) waiting += ", ";
    waiting += fmt::format("thread {} at {}", i, text(thread.place));
  }
  report("barrier",
         fmt::format("{}: no thread can go on: {}; {} of {} have ended", running.name, waiting, ended_, count_));
  abandoned_ = true;
}

void Block::ended() {
  Thread& thread = current();
  thread.state = State::kEnded;
  ++ended_;
  Warp& warp = warps_[current_ / kWarp];
  warp.ended |= 1U << (current_ % kWarp);
  if (waiting_ > 0 && waiting_ + ended_ == count_) complete_barrier();
}

int Block::barrier(BarrierVote vote, int predicate, Place place) {
  Thread& self = current();
  if (waiting_ == 0) {
    first_waiting_ = current_;
  } else if (const Thread& first = threads_[first_waiting_]; !(first.place == place)) {
    report("barrier", fmt::format("{}: thread {} is at the barrier in {} while thread {} is at the one in {}",
                                  running.name, current_, text(place), first_waiting_, text(first.place)));
  }
  self.place = place;
  self.state = State::kAtBarrier;
  vote_ = vote;
  if (predicate != 0) ++votes_;
  ++waiting_;
  if (waiting_ + ended_ == count_) {
    complete_barrier();
  }
  leave();
  return self.vote;
}

void Block::complete_barrier() {
  if (ended_ > 0 && !ended_early_) {
    ended_early_ = true;
    for (unsigned i = 0; i < count_; ++i) {
      if (threads_[i].state != State::kAtBarrier) continue;
      report("barrier", fmt::format("{}: {} of {} threads have ended while the others are at the barrier in {}",
                                    running.name, ended_, count_, text(threads_[i].place)));
      break;
    }
  }
  const int all = static_cast<int>(waiting_);
  int result = 0;
  switch (vote_) {
    case BarrierVote::kNone: break;
    case BarrierVote::kCount: result = votes_; break;
    case BarrierVote::kAnd: result = votes_ == all ? 1 : 0; break;
    case BarrierVote::kOr: result = votes_ > 0 ? 1 : 0; break;
  }
  votes_ = 0;
  waiting_ = 0;
  next_phase(false);
  for (unsigned i = 0; i * kWarp < count_; ++i) {
    Warp& warp = warps_[i];
    if (!warp.synced) continue;
    real_memset(warp.lanes_seen, 0, sizeof warp.lanes_seen);
    warp.synced = false;
    for (unsigned lane = 0; lane < kWarp; ++lane) threads_[i * kWarp + lane].position.time = 1;
  }
  for (unsigned i = 0; i < count_; ++i) {
    Thread& thread = threads_[order_[i]];
    if (thread.state != State::kAtBarrier) continue;
    thread.vote = result;
    make_ready(order_[i]);
  }
}

WarpValues Block::meet(unsigned mask, WarpOperation operation, std::uint64_t value, Place place) {
  Warp& warp = warps_[current_ / kWarp];
  const unsigned bit = 1U << lane();
  Thread& self = current();
  self.place = place;
  if ((mask & bit) == 0) {
    report("barrier",
           fmt::format("{}: {}: lane {} is not in its own mask {:#x}", running.name, text(place), lane(), mask));
    mask |= bit;
  }
  mask &= warp.lanes;
  if ((mask & warp.ended) != 0) {
    report("barrier",
           fmt::format("{}: {}: lanes {:#x} of the mask have ended", running.name, text(place), mask & warp.ended));
    mask &= ~warp.ended;
  }
  Meeting* meeting = nullptr;
  for (const auto& one : warp.meetings) {
    if (one->mask == mask) meeting = one.get();
  }
  if (meeting == nullptr) {
    warp.meetings.push_back(std::make_unique<Meeting>());
    meeting = warp.meetings.back().get();
    meeting->mask = mask;
  }
  if (meeting->arrived == 0) {
    meeting->operation = operation;
  } else if (meeting->operation != operation) {
    report("barrier", fmt::format("{}: {}: lanes of a warp meet in different operations", running.name, text(place)));
  }
  const unsigned half = meeting->half;
  meeting->values[half][lane()] = value;
  meeting->arrived |= bit;
  self.state = State::kInWarp;
  if (meeting->arrived == mask) {
    complete(warp, *meeting);
  }
  leave();
  return {mask, meeting->values[half]};
}

void Block::complete(Warp& warp, Meeting& meeting) {
  const unsigned first = current_ / kWarp * kWarp;
  meeting.arrived = 0;
  meeting.half ^= 1U;
  if (meeting.operation == WarpOperation::kSync) order_lanes(warp, first, meeting.mask);
  for (unsigned lane = 0; lane < kWarp; ++lane) {
    if ((meeting.mask >> lane & 1U) != 0) make_ready(first + lane);
  }
}

// What any of these lanes did or had seen until now comes before what each of them does from here on.
void Block::order_lanes(Warp& warp, unsigned first, unsigned mask) {
  std::uint32_t seen[kWarp] = {};
  warp.synced = true;
  for (unsigned lane = 0; lane < kWarp; ++lane) {
    if ((mask >> lane & 1U) == 0) continue;
    for (unsigned other = 0; other < kWarp; ++other) seen[other] = std::max(seen[other], warp.lanes_seen[lane][other]);
    seen[lane] = std::max(seen[lane], threads_[first + lane].position.time);
  }
  for (unsigned lane = 0; lane < kWarp; ++lane) {
    if ((mask >> lane & 1U) == 0) continue;
    real_memcpy(warp.lanes_seen[lane], seen, sizeof seen);
    ++threads_[first + lane].position.time;
  }
}

}  // namespace

void run_grid(const Launch& launch) {
  running.parameters = {static_cast<const char*>(launch.arguments.get()), launch.argument_bytes};
  running.dynamic_shared = {shared_buffer(), launch.shared_bytes};
  Block& block = running_block();
  const std::uint64_t blocks = std::uint64_t{launch.grid.x} * launch.grid.y * launch.grid.z;
  const Order order(blocks, dice());
  kernel_begins(launch.kernel);
  for (std::uint64_t i = 0; i < blocks; ++i) {
    const std::uint64_t b = order[i];
    if (!block.run(launch,
                   {static_cast<unsigned>(b % launch.grid.x), static_cast<unsigned>(b / launch.grid.x % launch.grid.y),
                    static_cast<unsigned>(b / launch.grid.x / launch.grid.y)})) {
      break;
    }
  }
  running.parameters = running.dynamic_shared = running.stack = {};
  running.position = nullptr;
}

void abandon_kernel() { running_block().abandon(); }

uint3 thread_index() { return running_block().current().index; }
uint3 block_index() { return running_block().index; }
dim3 block_size() { return running_block().block; }
dim3 grid_size() { return running_block().grid; }
void* dynamic_shared() { return shared_buffer(); }
unsigned lane() { return running_block().lane(); }
unsigned active_mask() { return running_block().active(); }
void threadfence() {}

int barrier(BarrierVote vote, int predicate, const char* file, int line) {
  const ModeScope library(Mode::kLibrary);
  return running_block().barrier(vote, predicate, {file, line});
}

WarpValues warp_meet(unsigned mask, WarpOperation operation, std::uint64_t value, const char* file, int line) {
  const ModeScope library(Mode::kLibrary);
  return running_block().meet(mask, operation, value, {file, line});
}

std::uint64_t warp_value(const WarpValues& values, unsigned lane) {
  if ((values.lanes >> lane & 1U) == 0) {
    const ModeScope library(Mode::kLibrary);
    report("barrier", fmt::format("{}: a shuffle reads lane {}, which takes no part", running.name, lane));
    return 0;
  }
  return values.value[lane];
}

unsigned ballot(unsigned mask, bool predicate, const char* file, int line) {
  const WarpValues all = warp_meet(mask, WarpOperation::kVote, predicate ? 1 : 0, file, line);
  unsigned result = 0;
  for (unsigned lane = 0; lane < kWarp; ++lane) {
    if ((all.lanes >> lane & 1U) != 0 && all.value[lane] != 0) result |= 1U << lane;
  }
  return result;
}

}  // namespace host_cuda
