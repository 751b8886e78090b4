// Streams, events and graphs as values that own them.
#pragma once

#include <cuda_runtime_api.h>

#include <memory>
#include <type_traits>

#include "cuda/check.h"

namespace charrnn::cuda {

/// A handle and the function that destroys it; what a destructor cannot report is dropped.
template <class Handle, cudaError_t (*kDestroy)(Handle)>
struct Destroyer {
  using pointer = Handle;
  void operator()(Handle handle) const noexcept { static_cast<void>(kDestroy(handle)); }
};
template <class Handle, cudaError_t (*kDestroy)(Handle)>
using Owned = std::unique_ptr<std::remove_pointer_t<Handle>, Destroyer<Handle, kDestroy>>;

class Stream {
 public:
  Stream();
  cudaStream_t get() const { return stream_.get(); }
  void wait() const { check(cudaStreamSynchronize(get()), "cudaStreamSynchronize"); }

 private:
  Owned<cudaStream_t, cudaStreamDestroy> stream_;
};

class Event {
 public:
  enum class Kind { kOrder, kTimed };
  explicit Event(Kind kind = Kind::kOrder);
  cudaEvent_t get() const { return event_.get(); }
  void record(cudaStream_t stream) const { check(cudaEventRecord(get(), stream), "cudaEventRecord"); }
  void wait() const { check(cudaEventSynchronize(get()), "cudaEventSynchronize"); }
  /// Later work of the stream waits for what the event recorded.
  void hold(cudaStream_t stream) const { check(cudaStreamWaitEvent(stream, get(), 0), "cudaStreamWaitEvent"); }

 private:
  Owned<cudaEvent_t, cudaEventDestroy> event_;
};

/// What was enqueued on a stream while it was captured, to be replayed as one.
class Graph {
 public:
  /// Calls `enqueue`, whose work on `stream` is captured, not run.
  template <class F>
  static Graph capture(cudaStream_t stream, const F& enqueue) {
    check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "cudaStreamBeginCapture");
    try {
      enqueue();
      return end_capture(stream);
    } catch (...) {
      abandon_capture(stream);
      throw;
    }
  }
  void launch(cudaStream_t stream) const { check(cudaGraphLaunch(exec_.get(), stream), "cudaGraphLaunch"); }
  std::size_t nodes() const { return nodes_; }

 private:
  Graph() = default;
  static void abandon_capture(cudaStream_t stream) noexcept;
  static Graph end_capture(cudaStream_t stream);

  Owned<cudaGraphExec_t, cudaGraphExecDestroy> exec_;
  std::size_t nodes_ = 0;
};

}  // namespace charrnn::cuda
