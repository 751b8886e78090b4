#include "cpu/thread_pool.h"

#include <omp.h>

#include <algorithm>
#include <chrono>
#include <string>
#include <system_error>
#include <utility>

#include "charrnn/error.h"

namespace charrnn::cpu {

namespace {

/// Tells the processor that this is a waiting loop.
void pause_processor() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

/// Keeps OpenMP regions that this thread opens (those inside oneDNN) on this thread, for as long as it lives.
class SingleThreadedOpenMp {
 public:
  SingleThreadedOpenMp() : before_(omp_get_max_threads()) {
    if (before_ != 1) omp_set_num_threads(1);
  }
  ~SingleThreadedOpenMp() {
    if (before_ != 1) omp_set_num_threads(before_);
  }
  SingleThreadedOpenMp(const SingleThreadedOpenMp&) = delete;
  SingleThreadedOpenMp& operator=(const SingleThreadedOpenMp&) = delete;

 private:
  int before_;
};

constexpr int kCountBits = 16;
constexpr std::uint64_t kCountMask = (1U << kCountBits) - 1;

/// Looks for a while before the caller goes to sleep, since a wake-up takes longer than most waits within a step. It
/// does not yield: two threads that came to share a core would hand it to each other for ever, while a sleeper is woken
/// on a core that is free. @returns whether it became true
template <class Condition>
bool spin_until(const Condition& condition) {
  using Clock = std::chrono::steady_clock;
  constexpr auto kPatience = std::chrono::microseconds(50);
  constexpr int kLooks = 64;
  const auto until = Clock::now() + kPatience;
  do {
    for (int look = 0; look < kLooks; ++look) {
      if (condition()) return true;
      pause_processor();
    }
  } while (Clock::now() < until);
  return condition();
}

}  // namespace

ThreadPool::ThreadPool(int threads) {
  try {
    for (int worker = 1; worker < threads; ++worker) workers_.emplace_back([this, worker] { work(worker); });
  } catch (const std::system_error& error) {
    const std::string started = std::to_string(size());
    stop();
    throw DeviceError("cpu: only " + started + " of " + std::to_string(threads) + " threads could be started (" +
                      error.what() + "); use fewer with --threads");
  }
}

ThreadPool::~ThreadPool() { stop(); }

void ThreadPool::stop() noexcept {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  start_.notify_all();
  for (auto& worker : workers_) worker.join();
}

void ThreadPool::run_erased(int count, Erased task) {
  const SingleThreadedOpenMp guard;
  if (count <= 1) {
    if (count == 1) task.call(task.task, 0);
    return;
  }
  {
    const std::lock_guard lock(mutex_);
    task_ = task;
    pending_.store(count, std::memory_order_relaxed);
    failure_ = nullptr;
    const std::uint64_t number = (run_.load(std::memory_order_relaxed) >> kCountBits) + 1;
    run_.store(number << kCountBits | static_cast<std::uint64_t>(count), std::memory_order_release);
  }
  start_.notify_all();
  run_one(0);
  const auto finished = [this] { return pending_.load(std::memory_order_acquire) == 0; };
  if (!spin_until(finished)) {
    std::unique_lock lock(mutex_);
    done_.wait(lock, finished);
  }
  if (failure_) std::rethrow_exception(std::exchange(failure_, nullptr));
}

void ThreadPool::run_one(int worker) {
  std::exception_ptr failure;
  try {
    task_.call(task_.task, worker);
  } catch (...) {
    failure = std::current_exception();
  }
  const std::lock_guard lock(mutex_);
  if (failure && !failure_) failure_ = failure;
  if (pending_.fetch_sub(1, std::memory_order_release) == 1) done_.notify_all();
}

void ThreadPool::work(int worker) {
  const SingleThreadedOpenMp guard;
  std::uint64_t seen = 0;
  const auto called = [&] { return stop_ || run_.load(std::memory_order_acquire) != seen; };
  for (;;) {
    if (!spin_until(called)) {
      std::unique_lock lock(mutex_);
      start_.wait(lock, called);
    }
    if (stop_) return;
    seen = run_.load(std::memory_order_acquire);
    if (worker < static_cast<int>(seen & kCountMask)) run_one(worker);
  }
}

Range split_range(std::int64_t n, int part, int parts, std::int64_t grain) {
  const std::int64_t grains = (n + grain - 1) / grain;
  const auto edge = [&](std::int64_t p) { return std::min(n, grains * p / parts * grain); };
  return {edge(part), edge(part + 1)};
}

}  // namespace charrnn::cpu
