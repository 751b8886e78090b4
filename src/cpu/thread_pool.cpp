#include "cpu/thread_pool.h"

#include <omp.h>

#include <algorithm>
#include <string>
#include <system_error>
#include <utility>

#include "charrnn/error.h"

namespace charrnn::cpu {

namespace {

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

void ThreadPool::run(int count, const std::function<void(int)>& task) {
  const SingleThreadedOpenMp guard;
  if (count <= 1) {
    if (count == 1) task(0);
    return;
  }
  {
    const std::lock_guard lock(mutex_);
    task_ = &task;
    count_ = count;
    pending_ = count;
    failure_ = nullptr;
    ++generation_;
  }
  start_.notify_all();
  run_one(0);
  std::unique_lock lock(mutex_);
  done_.wait(lock, [this] { return pending_ == 0; });
  task_ = nullptr;
  if (failure_) std::rethrow_exception(std::exchange(failure_, nullptr));
}

void ThreadPool::run_one(int worker) {
  std::exception_ptr failure;
  try {
    (*task_)(worker);
  } catch (...) {
    failure = std::current_exception();
  }
  const std::lock_guard lock(mutex_);
  if (failure && !failure_) failure_ = failure;
  if (--pending_ == 0) done_.notify_all();
}

void ThreadPool::work(int worker) {
  const SingleThreadedOpenMp guard;
  std::uint64_t seen = 0;
  for (;;) {
    {
      std::unique_lock lock(mutex_);
      start_.wait(lock, [&] { return stop_ || generation_ != seen; });
      if (stop_) return;
      seen = generation_;
      if (worker >= count_) continue;
    }
    run_one(worker);
  }
}

Range split_range(std::int64_t n, int part, int parts, std::int64_t grain) {
  const std::int64_t grains = (n + grain - 1) / grain;
  const auto edge = [&](std::int64_t p) { return std::min(n, grains * p / parts * grain); };
  return {edge(part), edge(part + 1)};
}

}  // namespace charrnn::cpu
