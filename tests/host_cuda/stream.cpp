#include "host_cuda/stream.h"

#include <fmt/format.h>

#include <algorithm>

#include "host_cuda/graph.h"
#include "host_cuda/report.h"

namespace host_cuda {

namespace {

constexpr std::size_t kLongest = 1024;  // a longer queue makes the host wait, as a device does

template <class T>
T* living_one(const std::vector<std::unique_ptr<T>>& all, const T* wanted) {
  const auto at = std::find_if(all.begin(), all.end(), [&](const auto& one) { return one.get() == wanted; });
  return at == all.end() ? nullptr : at->get();
}

}  // namespace

Scheduler& scheduler() {
  static auto* const only = new Scheduler;
  return *only;
}

Dice& dice() {
  static Dice only;
  return only;
}

Scheduler::Scheduler() { reset(settings().seed); }

void Scheduler::reset(std::uint64_t seed) {
  streams_.clear();
  events_.clear();
  default_ = std::make_unique<CUstream_st>();
  default_->chain = timeline().new_chain();
  dice_ = Dice(seed);
  dice() = Dice(seed + 1);
  // Seed 0 is as lazy as can be; others differ in both habits.
  eagerness_ = static_cast<unsigned>(seed % 4 * 2);
  strays_ = static_cast<unsigned>(seed / 4 % 3 * 4);
  now_us_ = 0;
}

CUstream_st* Scheduler::make_stream(unsigned flags) {
  streams_.push_back(std::make_unique<CUstream_st>());
  streams_.back()->chain = timeline().new_chain();
  streams_.back()->flags = flags;
  return streams_.back().get();
}

void Scheduler::destroy(CUstream_st* stream) {
  stream->destroyed = true;
  if (stream->capture) stream->capture->branch_of(*stream).stream = nullptr;
  if (stream->queue.empty()) std::erase_if(streams_, [&](const auto& one) { return one.get() == stream; });
}

CUstream_st* Scheduler::find(cudaStream_t stream) {
  if (stream == nullptr || stream == cudaStreamLegacy || stream == cudaStreamPerThread) {
    report("stream", "the default stream was used: give every operation a stream of its own");
    return default_.get();
  }
  CUstream_st* found = living_one(streams_, stream);
  if (found != nullptr && !found->destroyed) return found;
  report("misuse", "a stream that was destroyed, or never made, was used");
  return nullptr;
}

CUevent_st* Scheduler::make_event(unsigned flags) {
  events_.push_back(std::make_unique<CUevent_st>());
  events_.back()->flags = flags;
  return events_.back().get();
}

void Scheduler::destroy(CUevent_st* event) {
  std::erase_if(events_, [&](const auto& one) { return one.get() == event; });
}

CUevent_st* Scheduler::find(cudaEvent_t event) {
  CUevent_st* found = living_one(events_, event);
  if (found == nullptr) report("misuse", "an event that was destroyed, or never made, was used");
  return found;
}

void Scheduler::add(CUstream_st& stream, Operation operation) {
  operation.called = host_clock();
  stream.queue.push_back(std::move(operation));
  host_advances();
  while (stream.queue.size() > kLongest) run_one(&stream);
  drift();
}

void Scheduler::drift() {
  if (eagerness_ == 0) return;
  while (dice_.below(8) < eagerness_ && run_one(nullptr)) {
  }
}

void Scheduler::progress(CUstream_st& stream) {
  if (!stream.queue.empty() && dice_.below(2) == 0) run_one(&stream);
}

void Scheduler::progress(const Point& point) {
  if (!point.passed && dice_.below(2) == 0) run_one(nullptr);
}

void Scheduler::run_head(CUstream_st& stream) {
  Operation operation = std::move(stream.queue.front());
  stream.queue.pop_front();
  now_us_ += 1;
  stream.clock.join(operation.called);
  if (operation.wait) stream.clock.join(operation.wait->clock);
  if (operation.work) run_operation(operation.name, stream.chain, stream.clock, operation.work);
  if (operation.inner) operation.inner(stream);
  if (operation.record) {
    operation.record->clock = stream.clock;
    operation.record->us = now_us_;
    operation.record->passed = true;
  }
  if (stream.destroyed && stream.queue.empty()) destroy(&stream);
}

// Runs one operation that may run. Of the wanted stream, if it can and the dice have no other wish.
bool Scheduler::run_one(CUstream_st* wanted) {
  std::vector<CUstream_st*> ready;
  const auto consider = [&](CUstream_st& stream) {
    if (stream.queue.empty()) return false;
    const auto& wait = stream.queue.front().wait;
    if (wait != nullptr && !wait->passed) return false;
    ready.push_back(&stream);
    return true;
  };
  for (const auto& stream : streams_) {
    if (consider(*stream) && stream.get() == wanted && dice_.below(8) >= strays_) {
      run_head(*wanted);
      return true;
    }
  }
  if (consider(*default_) && wanted == default_.get()) {
    run_head(*wanted);
    return true;
  }
  if (ready.empty()) return false;
  run_head(*ready[dice_.below(ready.size())]);
  return true;
}

void Scheduler::drain(CUstream_st& stream) {
  while (!stream.queue.empty() && run_one(&stream)) {
  }
  host_sees(stream);
}

void Scheduler::drain_all() {
  while (run_one(nullptr)) {
  }
  for (const auto& stream : streams_) host_sees(*stream);
  host_sees(*default_);
}

void Scheduler::wait_for(const Point& point) {
  while (!point.passed && run_one(nullptr)) {
  }
  host_clock().join(point.clock);
}

void Scheduler::host_sees(const CUstream_st& stream) { host_clock().join(stream.clock); }

bool Scheduler::capturing() const {
  return std::any_of(streams_.begin(), streams_.end(), [](const auto& one) { return one->capture != nullptr; });
}

std::vector<std::string> Scheduler::living() const {
  std::vector<std::string> result;
  for (const auto& one : streams_) {
    if (!one->destroyed) result.emplace_back("a stream");
  }
  result.insert(result.end(), events_.size(), "an event");
  return result;
}

cudaError_t enqueue(cudaStream_t stream, const std::string& name, Work work) {
  const std::lock_guard held(lock());
  CUstream_st* to = scheduler().find(stream);
  if (to == nullptr) return cudaErrorInvalidResourceHandle;
  if (to->capture) return capture_node(*to, name, std::move(work));
  scheduler().add(*to, {name, std::move(work), {}, nullptr, nullptr, {}});
  return cudaSuccess;
}

}  // namespace host_cuda
