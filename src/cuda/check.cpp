#include "cuda/check.h"

#include <atomic>
#include <cstdlib>
#include <string_view>

#include "cuda/memory.h"
#include "cuda/stream.h"

namespace charrnn::cuda {

namespace {

std::atomic<std::int64_t> launches{0};
std::atomic<std::size_t> held{0}, held_peak{0};

bool environment_is(const char* name, std::string_view value) {
  const char* const set = std::getenv(name);
  return set != nullptr && value == set;
}

bool capturing(cudaStream_t stream) {
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  check(cudaStreamIsCapturing(stream, &status), "cudaStreamIsCapturing");
  return status != cudaStreamCaptureStatusNone;
}

std::string mebibytes(std::size_t bytes) { return std::to_string((bytes + (1U << 20U) - 1) >> 20U) + " MiB"; }

[[noreturn]] void out_of_memory(std::size_t bytes, const char* what) {
  static_cast<void>(cudaGetLastError());  // this error does not stick; forget it
  throw OutOfMemory(short_of_memory(bytes, what,
                                    "use a smaller train.batch, train.sequence or model.hidden, or end what else uses "
                                    "the GPU"),
                    held + bytes);
}

/// What to do next. Errors of kernels come to light at a later call: that is what CHARRNN_SYNC is for.
const char* advice_for(cudaError_t status) {
  switch (status) {
    case cudaErrorMemoryAllocation: return "; use a smaller train.batch, or end what else uses the GPU";
    case cudaErrorIllegalAddress:
    case cudaErrorIllegalInstruction:
    case cudaErrorMisalignedAddress:
    case cudaErrorInvalidAddressSpace:
    case cudaErrorInvalidPc:
    case cudaErrorHardwareStackError:
    case cudaErrorLaunchFailure:
    case cudaErrorLaunchTimeout:
    case cudaErrorAssert:
      return "; the GPU cannot be used any more by this process, and nothing was saved from it: the same command goes "
             "on "
             "from the newest checkpoint. If it comes again, CHARRNN_SYNC=1 names the kernel that failed";
    default: return "; the same command goes on from the newest checkpoint";
  }
}

}  // namespace

std::string short_of_memory(std::size_t bytes, const char* what, const std::string& advice) {
  std::size_t free_bytes = 0, total_bytes = 0;
  static_cast<void>(cudaMemGetInfo(&free_bytes, &total_bytes));
  return "cuda: " + mebibytes(bytes) + " are needed for " + what + ", " + mebibytes(free_bytes) + " of " +
         mebibytes(total_bytes) + " are free; " + advice;
}

void check(cudaError_t status, const char* what) {
  if (status == cudaSuccess) return;
  static_cast<void>(cudaGetLastError());  // said here, so that nobody meets it again
  throw DeviceError(std::string("cuda: ") + what + ": " + cudaGetErrorString(status) + " (" + cudaGetErrorName(status) +
                    ")" + advice_for(status));
}

void launched(const char* kernel, cudaStream_t stream) {
  ++launches;
  if (sync_after_launch() && !capturing(stream)) check(cudaStreamSynchronize(stream), kernel);
}

std::int64_t launch_count() { return launches; }

bool sync_after_launch() {
  static const bool sync = environment_is("CHARRNN_SYNC", "1");
  return sync;
}

bool graphs_enabled() {
  static const bool enabled = !environment_is("CHARRNN_GRAPH", "0") && !sync_after_launch();
  return enabled;
}

bool text_may_be_held() {
  static const bool may = !environment_is("CHARRNN_HOLD_TEXT", "0");
  return may;
}

HeldMemory held_memory() { return {held, held_peak}; }

void* allocate_device(std::size_t bytes, const char* what) {
  void* memory = nullptr;
  const cudaError_t status = cudaMalloc(&memory, bytes);
  if (status == cudaErrorMemoryAllocation) out_of_memory(bytes, what);
  check(status, "cudaMalloc");
  const std::size_t now = held += bytes;
  for (std::size_t peak = held_peak; now > peak && !held_peak.compare_exchange_weak(peak, now);) {
  }
  return memory;
}

std::size_t free_memory() {
  std::size_t free_bytes = 0, total_bytes = 0;
  check(cudaMemGetInfo(&free_bytes, &total_bytes), "cudaMemGetInfo");
  return free_bytes;
}

void copy_to_device(void* to, const void* from, std::size_t bytes) {
  check(cudaMemcpy(to, from, bytes, cudaMemcpyHostToDevice), "cudaMemcpy to the device");
  // It returns once the bytes have left the host's memory, and the streams here do not wait for the one that it uses:
  // without this a kernel could read before they have arrived.
  check(cudaDeviceSynchronize(), "cudaDeviceSynchronize");
}

void copy_to_host(void* to, const void* from, std::size_t bytes) {
  check(cudaMemcpy(to, from, bytes, cudaMemcpyDeviceToHost), "cudaMemcpy to the host");
}

void require_memory(std::size_t bytes, const char* what, const std::string& advice) {
  if (bytes > free_memory()) throw DeviceError(short_of_memory(bytes, what, advice));
}

void free_device(void* memory, std::size_t bytes) noexcept {
  static_cast<void>(cudaFree(memory));
  held -= bytes;
}

void* allocate_pinned(std::size_t bytes, const char* what) {
  void* memory = nullptr;
  const cudaError_t status = cudaHostAlloc(&memory, bytes, cudaHostAllocDefault);
  if (status == cudaErrorMemoryAllocation) {
    static_cast<void>(cudaGetLastError());
    throw DeviceError("cuda: " + mebibytes(bytes) + " of pinned host memory are needed for " + what +
                      ", which the system does not give");
  }
  check(status, "cudaHostAlloc");
  return memory;
}

void free_pinned(void* memory) noexcept { static_cast<void>(cudaFreeHost(memory)); }

Stream::Stream() {
  cudaStream_t stream = nullptr;
  check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "cudaStreamCreateWithFlags");
  stream_.reset(stream);
}

Event::Event(Kind kind) {
  cudaEvent_t event = nullptr;
  check(cudaEventCreateWithFlags(&event, kind == Kind::kTimed ? cudaEventDefault : cudaEventDisableTiming),
        "cudaEventCreateWithFlags");
  event_.reset(event);
}

void Graph::abandon_capture(cudaStream_t stream) noexcept {
  cudaGraph_t graph = nullptr;
  static_cast<void>(cudaStreamEndCapture(stream, &graph));
  if (graph != nullptr) static_cast<void>(cudaGraphDestroy(graph));
  static_cast<void>(cudaGetLastError());
}

Graph Graph::end_capture(cudaStream_t stream) {
  cudaGraph_t captured = nullptr;
  check(cudaStreamEndCapture(stream, &captured), "cudaStreamEndCapture");
  const Owned<cudaGraph_t, cudaGraphDestroy> graph(captured);
  Graph result;
  check(cudaGraphGetNodes(graph.get(), nullptr, &result.nodes_), "cudaGraphGetNodes");
  cudaGraphExec_t exec = nullptr;
  check(cudaGraphInstantiate(&exec, graph.get(), 0), "cudaGraphInstantiate");
  result.exec_.reset(exec);
  return result;
}

}  // namespace charrnn::cuda
