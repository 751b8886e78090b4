// For the library's own tests: memory, streams and events of a small size, and what the checker found.
#pragma once

#include <cuda_runtime_api.h>

#include <stdexcept>
#include <string>
#include <vector>

#include "host_cuda/host_cuda.h"
#include "host_cuda/launch.h"

namespace host_cuda_test {

constexpr int kSeeds = 200;

inline void succeed(cudaError_t error) {
  if (error != cudaSuccess) throw std::runtime_error(cudaGetErrorString(error));
}

/// Starts afresh, and looks at the end that nothing was left behind.
inline void begin(std::uint64_t seed = 0) {
  host_cuda::Settings settings;
  settings.seed = seed;
  settings.memory_bytes = 64U << 20U;
  host_cuda::reset(settings);
}

/// The findings since the last call, one a line: "" where all is well.
inline std::string findings() {
  std::string all;
  for (const auto& one : host_cuda::take_reports()) all += one.kind + ": " + one.text + "\n";
  return all;
}

/// Everything that was found is of this kind, and something was.
inline bool only(const std::string& kind) {
  const auto reports = host_cuda::take_reports();
  for (const auto& one : reports) {
    if (one.kind != kind) return false;
  }
  return !reports.empty();
}

template <class T>
class Memory {
 public:
  explicit Memory(std::size_t count, bool pinned = false) : pinned_(pinned) {
    void* memory = nullptr;
    succeed(pinned ? cudaMallocHost(&memory, count * sizeof(T)) : cudaMalloc(&memory, count * sizeof(T)));
    memory_ = static_cast<T*>(memory);
  }
  ~Memory() { static_cast<void>(pinned_ ? cudaFreeHost(memory_) : cudaFree(memory_)); }
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;
  operator T*() const { return memory_; }

 private:
  T* memory_ = nullptr;
  bool pinned_;
};

template <class T>
struct Device : Memory<T> {
  explicit Device(std::size_t count) : Memory<T>(count) {}
  explicit Device(const std::vector<T>& values) : Memory<T>(values.size()) {
    succeed(cudaMemcpy(*this, values.data(), values.size() * sizeof(T), cudaMemcpyHostToDevice));
  }
  std::vector<T> read(std::size_t count) const {
    std::vector<T> values(count);
    succeed(cudaMemcpy(values.data(), *this, count * sizeof(T), cudaMemcpyDeviceToHost));
    return values;
  }
};

template <class T>
struct Pinned : Memory<T> {
  explicit Pinned(std::size_t count) : Memory<T>(count, true) {}
};

class Stream {
 public:
  Stream() { succeed(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking)); }
  ~Stream() { static_cast<void>(cudaStreamDestroy(stream_)); }
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;
  operator cudaStream_t() const { return stream_; }
  void wait() const { succeed(cudaStreamSynchronize(stream_)); }

 private:
  cudaStream_t stream_ = nullptr;
};

class Event {
 public:
  explicit Event(unsigned flags = cudaEventDisableTiming) { succeed(cudaEventCreateWithFlags(&event_, flags)); }
  ~Event() { static_cast<void>(cudaEventDestroy(event_)); }
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;
  operator cudaEvent_t() const { return event_; }

 private:
  cudaEvent_t event_ = nullptr;
};

template <class... Parameters, class... Arguments>
void start(cudaStream_t stream, void (*kernel)(Parameters...), unsigned blocks, unsigned threads,
           const Arguments&... arguments) {
  succeed(host_cuda::launch("kernel", kernel, dim3(blocks), dim3(threads), 0, stream,
                            static_cast<Parameters>(arguments)...));
}

/// One launch, waited for.
template <class... Parameters, class... Arguments>
void run(void (*kernel)(Parameters...), unsigned blocks, unsigned threads, const Arguments&... arguments) {
  const Stream stream;
  start(stream, kernel, blocks, threads, arguments...);
  stream.wait();
}

}  // namespace host_cuda_test
