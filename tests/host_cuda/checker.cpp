#include "host_cuda/checker.h"

#include <fmt/format.h>
#include <sys/mman.h>

#include <algorithm>

#include "host_cuda/cells.h"
#include "host_cuda/grid.h"
#include "host_cuda/memory.h"
#include "host_cuda/modules.h"
#include "host_cuda/report.h"
#include "host_cuda/runtime.h"

namespace host_cuda {

Running running;

namespace {

constexpr std::uint32_t kMostTime = (1U << 19U) - 1;

constexpr Moment kNoOperation = 0xffffffffU;  // the host runs

const Position kOutside;  // of who is no thread of a kernel

struct State {
  Cell* window = static_cast<Cell*>(reserve(Memory::kWindowBytes * sizeof(Cell)));
  Cell* dynamic_shared = static_cast<Cell*>(reserve((1U << 20U) * sizeof(Cell)));
  Clock host;
  int acting_as_device = 0;

  State() {
    checking = settings().check;
    host.see(kHost, timeline().advance(kHost));
  }
};

State& state() {
  static auto* const only = new State;
  return *only;
}

/// The rules, for one access of whoever `running` describes.
class Rules {
 public:
  Rules(Touch touch, bool shared) : touch_(touch), shared_(shared) {
    const Position& position = running.position != nullptr ? *running.position : kOutside;
    me_.moment = running.phase;
    me_.thread = position.thread;
    me_.time = std::min(position.time, kMostTime);
    me_.atomic = touch == Touch::kAtomic ? 1 : 0;
    lanes_seen_ = position.lanes_seen;
  }

  void apply(Cell& cell) {
    if (shared_) {  // what another block, or another kernel, did there is nothing to this one
      for (Mark* mark : {&cell.writer, &cell.readers[0], &cell.readers[1]}) {
        if (mark->moment < running.block) *mark = {};
      }
    }
    if (touch_ == Touch::kRead) {
      read(cell);
    } else {
      write(cell);
    }
  }

  const char* found = nullptr;  // race | uninitialised
  Mark other;                   // whom the race is with
  bool other_wrote = false;

 private:
  void race(const Mark& with, bool wrote) {
    if (found != nullptr) return;
    found = "race";
    other = with;
    other_wrote = wrote;
  }

  bool same_warp(const Mark& m) const { return m.thread / kWarp == me_.thread / kWarp; }
  Reach reach(const Mark& m) const { return static_cast<Reach>(m.reach); }

  /// m came before, or is this thread's own.
  bool before(const Mark& m) const {
    if (m.moment <= running.settled && m.moment < running.operation) return true;  // the usual case
    if (m.moment < running.operation) return running.clock->has_seen(timeline().chain_of(m.moment), m.moment);
    if (m.moment < running.block || reach(m) == Reach::kGrid) return false;
    if (m.moment < running.phase) return true;
    if (m.thread == me_.thread && reach(m) == Reach::kThread) return true;
    if (!same_warp(m) || lanes_seen_ == nullptr || reach(m) > Reach::kWarp) return false;
    if (reach(m) == Reach::kThread) return lanes_seen_[m.thread % kWarp] >= m.time;
    return *std::min_element(lanes_seen_, lanes_seen_ + kWarp) >= m.time;
  }

  /// Adds this access to a mark of the same operation that it is not ordered with.
  void widen(Mark& m) const {
    Reach wider = Reach::kBlock;
    if (m.moment < running.block || reach(m) == Reach::kGrid) {
      wider = Reach::kGrid;
    } else if (reach(m) <= Reach::kWarp && same_warp(m)) {
      wider = Reach::kWarp;
    }
    const unsigned time = std::max(m.time, me_.time);
    m = me_;
    m.time = time;
    m.reach = static_cast<unsigned>(wider);
  }

  void read(Cell& cell) {
    if (cell.writer.moment == 0) {
      if (found == nullptr) found = "uninitialised";
    } else if (!before(cell.writer)) {
      race(cell.writer, true);
    }
    for (Mark& reader : cell.readers) {
      if (reader.moment == 0 || before(reader)) {
        reader = me_;
        return;
      }
      if (reader.moment >= running.operation) {
        widen(reader);
        return;
      }
    }
    cell.readers[0] = cell.readers[1];
    cell.readers[1] = me_;
  }

  void write(Cell& cell) {
    const bool atomic = touch_ == Touch::kAtomic;
    if (atomic && cell.writer.moment == 0 && found == nullptr) found = "uninitialised";
    for (Mark& reader : cell.readers) {
      if (!before(reader)) race(reader, false);
      reader = {};
    }
    const bool both_atomic = atomic && cell.writer.atomic != 0;
    const bool ordered = before(cell.writer);
    if (!ordered && !both_atomic) race(cell.writer, true);
    if (both_atomic && !ordered && cell.writer.moment >= running.operation) {
      widen(cell.writer);
    } else if (!(atomic && cell.writer.atomic == 0 && cell.writer.moment == me_.moment &&
                 cell.writer.thread == me_.thread)) {  // an atomic access does not hide the thread's own plain one
      cell.writer = me_;
    }
  }

  Touch touch_;
  bool shared_;
  Mark me_;
  const std::uint32_t* lanes_seen_;
};

/// Applies the rules to a run of cells. Neighbours mostly know the same.
void apply(Rules& rules, Cell* cells, std::size_t count) {
  Cell before = cells[0];
  rules.apply(cells[0]);
  Cell after = cells[0];
  for (std::size_t i = 1; i < count; ++i) {
    if (cells[i] == before) {
      cells[i] = after;
      continue;
    }
    before = cells[i];
    rules.apply(cells[i]);
    after = cells[i];
  }
}

std::string who(const Mark& mark) {
  const std::string name = timeline().name_of(mark.moment);
  if (mark.moment < running.operation) return name;
  if (mark.moment < running.block) return "another block";
  switch (static_cast<Reach>(mark.reach)) {
    case Reach::kThread: return fmt::format("thread {} of the block", mark.thread);
    case Reach::kWarp: return fmt::format("threads of warp {} of the block", mark.thread / kWarp);
    case Reach::kBlock: return "threads of the block";
    case Reach::kGrid: return "several blocks";
  }
  return name;
}

const char* verb(Touch touch) {
  switch (touch) {
    case Touch::kRead: return "reads";
    case Touch::kWrite: return "writes";
    case Touch::kAtomic: return "changes atomically";
  }
  return "";
}

std::string actor() {
  if (running.operation == kNoOperation) return "the host";
  if (running.position == nullptr) return running.name;
  return fmt::format("{}: thread {}", running.name, running.position->thread);
}

/// What the access was, for a report: "k: thread 3 reads 4 bytes at ...".
std::string sentence(Touch touch, const void* at, std::size_t bytes) {
  std::string text = fmt::format("{} {} {} bytes", actor(), verb(touch), bytes);
  if (running.dynamic_shared.holds(at)) {
    const auto offset = static_cast<const char*>(at) - running.dynamic_shared.begin;
    return text + fmt::format(" at {} of dynamic shared memory", offset);
  }
  if (!Memory::in_window(at)) {
    return text + fmt::format("{} at {}", static_shared(at) != nullptr ? " of static shared memory" : "", at);
  }
  const Allocation* allocation = memory().find(at);
  if (allocation == nullptr) return text + " of device addresses that nobody allocated";
  return text + fmt::format(" at {} of {}{} bytes of {} memory", static_cast<const char*>(at) - allocation->begin,
                            allocation->freed ? "freed " : "", allocation->bytes,
                            allocation->kind == MemoryKind::kDevice ? "device" : "pinned");
}

void tell(const char* kind, const std::string& text, const void* instruction, const char* operand) {
  if (instruction != nullptr) {
    report_at(kind, text, instruction);
  } else {
    report(kind, fmt::format("{} ({})", text, operand));
  }
}

bool in_allocation(const void* at, std::size_t bytes) {
  const Allocation* allocation = memory().find(at);
  if (allocation == nullptr || allocation->freed) return false;
  const auto* from = static_cast<const char*>(at);
  return from >= allocation->begin && from + bytes <= allocation->begin + allocation->bytes;
}

void tell_of(const Rules& rules, Touch touch, const void* at, std::size_t bytes, const void* instruction,
             const char* operand) {
  std::string text = sentence(touch, at, bytes);
  if (rules.found[0] == 'r') {
    text += fmt::format(", which {} {}, and nothing orders the two", who(rules.other),
                        rules.other_wrote ? "wrote" : "read");
  } else {
    text += ", which nobody has written";
  }
  tell(rules.found, text, instruction, operand);
}

// Memory of the window, checked for whoever `running` describes. @returns false if it lies outside of an allocation.
bool check_window(const void* at, std::size_t bytes, Touch touch, const void* instruction, const char* operand) {
  if (!in_allocation(at, bytes)) {
    tell("out of bounds", sentence(touch, at, bytes), instruction, operand);
    return false;
  }
  Rules rules(touch, false);
  apply(rules, state().window + memory().offset_of(at), bytes);
  if (rules.found != nullptr) tell_of(rules, touch, at, bytes, instruction, operand);
  return true;
}

void check_shared(Cell* cells, const void* at, std::size_t bytes, Touch touch, const void* instruction) {
  Rules rules(touch, true);
  apply(rules, cells, bytes);
  if (rules.found != nullptr) tell_of(rules, touch, at, bytes, instruction, "shared memory");
}

// The host's accesses are checked as those of an operation that runs while it does.
class AsHost {
 public:
  AsHost() : before_(running) {
    running = {};
    running.clock = &state().host;
    running.operation = running.block = kNoOperation;
    running.phase = state().host.at(kHost);
  }
  ~AsHost() { running = before_; }
  AsHost(const AsHost&) = delete;
  AsHost& operator=(const AsHost&) = delete;

 private:
  Running before_;
};

void host_access(const void* at, std::size_t bytes, Touch touch, const void* instruction) {
  const AsHost host;
  const Allocation* allocation = memory().find(at);
  if (allocation != nullptr && allocation->kind == MemoryKind::kDevice && state().acting_as_device == 0) {
    tell("host", sentence(touch, at, bytes) + ": it must copy it", instruction, "");
    return;
  }
  check_window(at, bytes, touch, instruction, "");
}

void broken() {
  if (settings().sticky) {
    break_device(cudaErrorIllegalAddress);
    abandon_kernel();
  }
}

void thread_access(const void* at, std::size_t bytes, Touch touch, const void* instruction) {
  if (Memory::in_window(at)) {
    if (!check_window(at, bytes, touch, instruction, "")) broken();
    return;
  }
  if (running.stack.holds(at) || (touch == Touch::kRead && running.parameters.holds(at))) return;
  const Span& dynamic = running.dynamic_shared;
  if (const std::size_t offset = static_cast<std::size_t>(static_cast<const char*>(at) - dynamic.begin);
      offset < (1U << 20U)) {
    if (offset + bytes > dynamic.bytes) {
      tell("out of bounds",
           sentence(touch, at, bytes) +
               fmt::format(", at {} of {} bytes of dynamic shared memory", offset, dynamic.bytes),
           instruction, "");
      broken();
      return;
    }
    check_shared(state().dynamic_shared + offset, at, bytes, touch, instruction);
    return;
  }
  if (Cell* cells = static_shared(at); cells != nullptr) {
    check_shared(cells, at, bytes, touch, instruction);
    return;
  }
  if (touch == Touch::kRead && read_only(at)) return;
  tell("host", sentence(touch, at, bytes) + ": no memory of the device", instruction, "");
  if (settings().sticky) break_device(cudaErrorIllegalAddress);
  abandon_kernel();
}

}  // namespace

void on_access(const void* at, std::size_t bytes, Touch touch, const void* instruction) {
  const Mode who = current_mode();
  if (who == Mode::kHost) {
    if (!Memory::in_window(at) || !checking) return;
    const std::lock_guard held(lock());
    const ModeScope library(Mode::kLibrary);
    host_access(at, bytes, touch, instruction);
  } else if (who == Mode::kThread && checking) {
    const ModeScope library(Mode::kLibrary);
    thread_access(at, bytes, touch, instruction);
  }
}

bool touch(const void* at, std::size_t bytes, Access access, const char* what) {
  if (bytes == 0) return true;
  if (!Memory::in_window(at)) {
    tell("host", fmt::format("{} touches {} bytes of memory that is not the device's", running.name, bytes), nullptr,
         what);
    return false;
  }
  const Touch kind = access == Access::kRead ? Touch::kRead : Touch::kWrite;
  if (!checking) return in_allocation(at, bytes);
  return check_window(at, bytes, kind, nullptr, what);
}

void run_operation(const std::string& name, Chain chain, Clock& clock, const Work& body) {
  const Running before = running;
  timeline().name_next(name);
  running = {};
  running.name = name.c_str();
  running.chain = chain;
  running.clock = &clock;
  running.settled = timeline().settled(clock);
  running.phase = timeline().advance(chain);
  running.operation = running.block = running.phase;
  {
    const ModeScope work(Mode::kWork);
    body();
  }
  clock.see(chain, running.phase);
  running = before;
}

void next_phase(bool new_block) {
  running.phase = timeline().advance(running.chain);
  if (new_block) running.block = running.phase;
}

void forget_cells(const char* begin, std::size_t bytes) {
  madvise(state().window + memory().offset_of(begin), bytes * sizeof(Cell), MADV_DONTNEED);
}

Clock& host_clock() { return state().host; }
void host_advances() { state().host.see(kHost, timeline().advance(kHost)); }

void reset_checker() {
  checking = settings().check;
  madvise(state().dynamic_shared, (1U << 20U) * sizeof(Cell), MADV_DONTNEED);
  forget_static_shared();
  state().host = {};
  host_advances();
}

ActsAsDevice::ActsAsDevice() {
  const std::lock_guard held(lock());
  ++state().acting_as_device;
}
ActsAsDevice::~ActsAsDevice() {
  const std::lock_guard held(lock());
  --state().acting_as_device;
}

}  // namespace host_cuda
