// Worker threads of our own. The calling thread is worker 0. oneDNN's OpenMP runtime is told to stay on the thread that
// calls it, so that products run single-threaded inside workers and nothing joins behind our back.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <exception>
#include <functional>
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
  void run(int count, const std::function<void(int worker)>& task);

 private:
  void work(int worker);
  void stop() noexcept;
  void run_one(int worker);

  std::mutex mutex_;
  std::condition_variable start_, done_;
  const std::function<void(int)>* task_ = nullptr;
  std::uint64_t generation_ = 0;
  int count_ = 0;  // workers that take part in this generation
  int pending_ = 0;
  bool stop_ = false;
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
