// Worker threads of our own. The calling thread is worker 0. oneDNN's OpenMP runtime is told to stay on the thread that
// calls it, so that products run single-threaded inside workers and nothing joins behind our back.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

namespace charrnn::cpu {

class ThreadPool {
 public:
  /// @throws DeviceError if the system starts no more threads
  explicit ThreadPool(int threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int size() const { return static_cast<int>(workers_.size()) + 1; }

  /// Runs task(worker) on the workers [0, count), count <= size(), and waits. The first exception is rethrown.
  /// Allocates nothing.
  template <class Task>
  void run(int count, const Task& task) {
    run_erased(count, {&task, [](const void* t, int worker) { (*static_cast<const Task*>(t))(worker); }});
  }

 private:
  struct Erased {
    const void* task = nullptr;
    void (*call)(const void* task, int worker) = nullptr;
  };

  void run_erased(int count, Erased task);
  void work(int worker);
  void stop() noexcept;
  void run_one(int worker);

  std::mutex mutex_;
  std::condition_variable start_, done_;
  Erased task_;  // stands still while one of its workers runs
  /// The number of the run, times 2^16, plus how many workers take part: one word, since workers that do not take part
  /// may read it late.
  std::atomic<std::uint64_t> run_{0};
  std::atomic<int> pending_{0};
  std::atomic<bool> stop_{false};
  std::exception_ptr failure_;
  std::vector<std::thread> workers_;
};

/// The part [begin, end) of n items that falls to worker `part` of `parts`; parts differ by at most one `grain`.
struct Range {
  std::int64_t begin, end;
  std::int64_t size() const { return end - begin; }
};
Range split_range(std::int64_t n, int part, int parts, std::int64_t grain = 1);

}  // namespace charrnn::cpu
