// The CUDA runtime's functions for streams and events.
#include "host_cuda/graph.h"
#include "host_cuda/runtime.h"
#include "host_cuda/stream.h"

using namespace host_cuda;

namespace {

/// Waits and questions are forbidden while the stream, or any stream in global mode, captures.
bool breaks_capture(const CUstream_st& stream, const char* function) {
  return stream.capture != nullptr && forbidden_in_capture(function);
}

}  // namespace

cudaError_t cudaStreamCreateWithPriority(cudaStream_t* stream, unsigned flags, int /*priority*/) {
  return interface("cudaStreamCreate", cudaErrorMemoryAllocation, [&] {
    if ((flags & cudaStreamNonBlocking) == 0) {
      report("stream", "a stream was made that waits for the default stream: cudaStreamNonBlocking is missing");
    }
    *stream = scheduler().make_stream(flags);
    return cudaSuccess;
  });
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned flags) {
  return cudaStreamCreateWithPriority(stream, flags, 0);
}

cudaError_t cudaStreamCreate(cudaStream_t* stream) { return cudaStreamCreateWithPriority(stream, 0, 0); }

cudaError_t cudaDeviceGetStreamPriorityRange(int* least, int* greatest) {
  *least = 0;
  *greatest = -5;
  return cudaSuccess;
}

cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  const std::lock_guard held(lock());
  CUstream_st* found = scheduler().find(stream);
  if (found == nullptr) return cudaErrorInvalidResourceHandle;
  if (found->capture) report("capture", "a stream was destroyed while it captured");
  scheduler().destroy(found);
  return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  return interface("cudaStreamSynchronize", cudaErrorLaunchFailure, [&] {
    CUstream_st* found = scheduler().find(stream);
    if (found == nullptr) return cudaErrorInvalidResourceHandle;
    if (breaks_capture(*found, "cudaStreamSynchronize")) return cudaErrorStreamCaptureUnsupported;
    scheduler().drain(*found);
    return cudaSuccess;
  });
}

cudaError_t cudaStreamQuery(cudaStream_t stream) {
  return interface("cudaStreamQuery", cudaErrorLaunchFailure, [&] {
    CUstream_st* found = scheduler().find(stream);
    if (found == nullptr) return cudaErrorInvalidResourceHandle;
    if (breaks_capture(*found, "cudaStreamQuery")) return cudaErrorStreamCaptureUnsupported;
    scheduler().progress(*found);
    if (!found->queue.empty()) return cudaErrorNotReady;
    scheduler().host_sees(*found);
    return cudaSuccess;
  });
}

cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned /*flags*/) {
  return interface("cudaStreamWaitEvent", cudaErrorUnknown, [&] {
    CUstream_st* found = scheduler().find(stream);
    CUevent_st* awaited = scheduler().find(event);
    if (found == nullptr || awaited == nullptr) return cudaErrorInvalidResourceHandle;
    if (found->capture || awaited->capture) return capture_wait(*found, *awaited);
    if (awaited->last) scheduler().add(*found, {"cudaStreamWaitEvent", {}, {}, awaited->last, nullptr, {}});
    return cudaSuccess;
  });
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned flags) {
  return interface("cudaEventCreate", cudaErrorMemoryAllocation, [&] {
    *event = scheduler().make_event(flags);
    return cudaSuccess;
  });
}

cudaError_t cudaEventCreate(cudaEvent_t* event) { return cudaEventCreateWithFlags(event, 0); }

cudaError_t cudaEventDestroy(cudaEvent_t event) {
  const std::lock_guard held(lock());
  CUevent_st* found = scheduler().find(event);
  if (found == nullptr) return cudaErrorInvalidResourceHandle;
  scheduler().destroy(found);
  return cudaSuccess;
}

cudaError_t cudaEventRecordWithFlags(cudaEvent_t event, cudaStream_t stream, unsigned /*flags*/) {
  return interface("cudaEventRecord", cudaErrorUnknown, [&] {
    CUstream_st* found = scheduler().find(stream);
    CUevent_st* recorded = scheduler().find(event);
    if (found == nullptr || recorded == nullptr) return cudaErrorInvalidResourceHandle;
    if (found->capture) return capture_record(*found, *recorded);
    recorded->capture = nullptr;
    recorded->captured.clear();
    recorded->last = std::make_shared<Point>();
    scheduler().add(*found, {"cudaEventRecord", {}, {}, nullptr, recorded->last, {}});
    return cudaSuccess;
  });
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  return cudaEventRecordWithFlags(event, stream, 0);
}

cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  return interface("cudaEventSynchronize", cudaErrorLaunchFailure, [&] {
    CUevent_st* found = scheduler().find(event);
    if (found == nullptr) return cudaErrorInvalidResourceHandle;
    if (found->capture) {
      forbidden_in_capture("cudaEventSynchronize");
      return cudaErrorCapturedEvent;
    }
    if (found->last) scheduler().wait_for(*found->last);
    return cudaSuccess;
  });
}

cudaError_t cudaEventQuery(cudaEvent_t event) {
  return interface("cudaEventQuery", cudaErrorLaunchFailure, [&] {
    CUevent_st* found = scheduler().find(event);
    if (found == nullptr) return cudaErrorInvalidResourceHandle;
    if (found->capture) {
      forbidden_in_capture("cudaEventQuery");
      return cudaErrorCapturedEvent;
    }
    if (!found->last) return cudaSuccess;
    scheduler().progress(*found->last);
    if (!found->last->passed) return cudaErrorNotReady;
    host_clock().join(found->last->clock);
    return cudaSuccess;
  });
}

cudaError_t cudaEventElapsedTime(float* ms, cudaEvent_t start, cudaEvent_t end) {
  return interface("cudaEventElapsedTime", cudaErrorUnknown, [&] {
    CUevent_st* first = scheduler().find(start);
    CUevent_st* second = scheduler().find(end);
    if (first == nullptr || second == nullptr) return cudaErrorInvalidResourceHandle;
    if (first->capture || second->capture) return cudaErrorCapturedEvent;
    if (!first->last || !second->last || ((first->flags | second->flags) & cudaEventDisableTiming) != 0) {
      return cudaErrorInvalidResourceHandle;
    }
    if (!first->last->passed || !second->last->passed) return cudaErrorNotReady;
    *ms = static_cast<float>((second->last->us - first->last->us) * 1e-3);
    return cudaSuccess;
  });
}

cudaError_t cudaLaunchHostFunc(cudaStream_t stream, cudaHostFn_t function, void* data) {
  return interface("cudaLaunchHostFunc", cudaErrorUnknown,
                   [&] { return enqueue(stream, "cudaLaunchHostFunc", [function, data] { function(data); }); });
}

cudaError_t cudaDeviceSynchronize() {
  return interface("cudaDeviceSynchronize", cudaErrorLaunchFailure, [] {
    if (scheduler().capturing() && forbidden_in_capture("cudaDeviceSynchronize")) {
      return cudaErrorStreamCaptureUnsupported;
    }
    scheduler().drain_all();
    return cudaSuccess;
  });
}
