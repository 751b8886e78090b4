// Streams, events, graphs and the host: that correct use is not reported, and each kind of mistake is.
#include <cstring>
#include <vector>

#include "host_cuda/test_support.h"
#include "support/catch.h"

using namespace host_cuda_test;

namespace {

__global__ void add(int* x, int n, int value) {
  for (unsigned i = threadIdx.x; i < static_cast<unsigned>(n); i += blockDim.x) x[i] += value;
}
__global__ void sum_of(const int* x, const int* y, int* z) { z[threadIdx.x] = x[threadIdx.x] + y[threadIdx.x]; }
__global__ void fill(int* x, int value) { x[threadIdx.x] = value; }
__global__ void copy_one(const int* x, int* y) { y[0] = x[0]; }

constexpr int kCount = 37;
constexpr std::size_t kBytes = kCount * sizeof(int);

// Whatever the seed, this kind is found and nothing else.
template <class Run>
void always(const std::string& kind, Run run) {
  for (int seed = 0; seed < 30; ++seed) {
    begin(static_cast<std::uint64_t>(seed));
    run();
    const auto reports = host_cuda::take_reports();
    CAPTURE(seed);
    REQUIRE_FALSE(reports.empty());
    for (const auto& one : reports) {
      CAPTURE(one.text);
      REQUIRE(one.kind == kind);
    }
  }
}

template <class Run>
void never(Run run) {
  for (int seed = 0; seed < kSeeds; ++seed) {
    begin(static_cast<std::uint64_t>(seed));
    run();
    CAPTURE(seed);
    REQUIRE(findings() == "");
    REQUIRE(host_cuda::leaks().empty());
  }
}

/// Reads as the host does; noinline, so that the load is not folded into a check of Catch's.
__attribute__((noinline)) int host_reads(const int* x) { return *x; }

class Graph {
 public:
  template <class Run>
  Graph(cudaStream_t stream, Run run) {
    succeed(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
    run();
    succeed(cudaStreamEndCapture(stream, &graph_));
    succeed(cudaGraphInstantiate(&exec_, graph_, 0));
  }
  ~Graph() {
    static_cast<void>(cudaGraphExecDestroy(exec_));
    static_cast<void>(cudaGraphDestroy(graph_));
  }
  Graph(const Graph&) = delete;
  Graph& operator=(const Graph&) = delete;
  void launch(cudaStream_t stream) const { succeed(cudaGraphLaunch(exec_, stream)); }
  std::size_t nodes() const {
    std::size_t count = 0;
    succeed(cudaGraphGetNodes(graph_, nullptr, &count));
    return count;
  }

 private:
  cudaGraph_t graph_ = nullptr;
  cudaGraphExec_t exec_ = nullptr;
};

}  // namespace

TEST_CASE("two streams that an event orders give the right sum, over 200 seeds") {
  never([] {
    const Stream a;
    const Stream b;
    const Event ready;
    Pinned<int> host(kCount);
    for (int i = 0; i < kCount; ++i) host[i] = i;
    Device<int> x(kCount);
    Device<int> y(kCount);
    Device<int> z(kCount);
    succeed(cudaMemcpyAsync(x, host, kBytes, cudaMemcpyHostToDevice, a));
    start(a, add, 1, 64, x, kCount, 1);
    succeed(cudaEventRecord(ready, a));
    start(b, fill, 1, kCount, y, 10);
    succeed(cudaStreamWaitEvent(b, ready, 0));
    start(b, sum_of, 1, kCount, x, y, z);
    b.wait();
    succeed(cudaMemcpyAsync(host, z, kBytes, cudaMemcpyDeviceToHost, b));
    b.wait();
    REQUIRE(host_reads(host + 5) == 16);
  });
}

TEST_CASE("a pinned ring, written when its event has passed, is in order") {
  never([] {
    const Stream stream;
    Pinned<int> host(2);
    const Event used[2];
    Device<int> x(1);
    Device<int> total(std::vector<int>{0});
    int expected = 0;
    for (int i = 0; i < 7; ++i) {
      succeed(cudaEventSynchronize(used[i % 2]));
      host[i % 2] = i;
      expected += i;
      succeed(cudaMemcpyAsync(x, host + i % 2, sizeof(int), cudaMemcpyHostToDevice, stream));
      succeed(cudaEventRecord(used[i % 2], stream));
      start(stream, sum_of, 1, 1, x, total, total);
    }
    stream.wait();
    REQUIRE(total.read(1)[0] == expected);
  });
}

TEST_CASE("asking again and again is answered at last") {
  never([] {
    const Stream stream;
    const Event done(0);
    const Event begun(0);
    Device<int> x(kCount);
    succeed(cudaEventRecord(begun, stream));
    start(stream, fill, 1, kCount, x, 10);
    succeed(cudaEventRecord(done, stream));
    while (cudaEventQuery(done) == cudaErrorNotReady) {
    }
    float ms = 0;
    succeed(cudaEventElapsedTime(&ms, begun, done));
    REQUIRE(ms > 0);
    while (cudaStreamQuery(stream) == cudaErrorNotReady) {
    }
    REQUIRE(x.read(1)[0] == 10);
  });
}

TEST_CASE("a missing cudaStreamWaitEvent is a race, whatever the order was") {
  always("race", [] {
    const Stream a;
    const Stream b;
    Device<int> x(std::vector<int>(kCount, 1));
    Device<int> y(std::vector<int>(kCount, 1));
    start(a, fill, 1, kCount, x, 3);
    start(b, sum_of, 1, kCount, x, y, y);
    a.wait();
    b.wait();
  });
}

TEST_CASE("an event recorded too early orders too little") {
  always("race", [] {
    const Stream a;
    const Stream b;
    const Event ready;
    Device<int> x(std::vector<int>(kCount, 1));
    succeed(cudaEventRecord(ready, a));
    start(a, fill, 1, kCount, x, 3);
    succeed(cudaStreamWaitEvent(b, ready, 0));
    start(b, add, 1, kCount, x, kCount, 1);
    a.wait();
    b.wait();
  });
}

TEST_CASE("two streams may read the same memory, and a writer must wait for both") {
  const auto run = [](bool waits) {
    const Stream a;
    const Stream b;
    const Event read;
    Device<int> x(std::vector<int>(kCount, 1));
    Device<int> y(kCount);
    Device<int> z(kCount);
    start(a, sum_of, 1, kCount, x, x, y);
    start(b, sum_of, 1, kCount, x, x, z);
    succeed(cudaEventRecord(read, a));
    if (waits) succeed(cudaStreamWaitEvent(b, read, 0));
    start(b, fill, 1, kCount, x, 3);
    a.wait();
    b.wait();
  };
  never([&] { run(true); });
  always("race", [&] { run(false); });
}

TEST_CASE("cudaMemset does not order streams of one's own") {
  always("race", [] {
    const Stream stream;
    Device<int> x(kCount);
    succeed(cudaMemset(x, 0, kBytes));
    start(stream, fill, 1, kCount, x, 1);
    succeed(cudaDeviceSynchronize());
  });
}

TEST_CASE("pinned memory read before the synchronisation is a race") {
  always("race", [] {
    const Stream stream;
    Pinned<int> host(kCount);
    std::memset(host, 0, kBytes);
    Device<int> x(std::vector<int>(kCount, 1));
    succeed(cudaMemcpyAsync(host, x, kBytes, cudaMemcpyDeviceToHost, stream));
    static_cast<void>(host_reads(host));
    stream.wait();
  });
}

TEST_CASE("a pinned source changed while its copy is pending is a race") {
  always("race", [] {
    const Stream stream;
    Pinned<int> host(kCount);
    std::memset(host, 0, kBytes);
    Device<int> x(kCount);
    succeed(cudaMemcpyAsync(x, host, kBytes, cudaMemcpyHostToDevice, stream));
    host[3] = 1;
    stream.wait();
  });
  always("race", [] {  // by a call of the C library
    const Stream stream;
    Pinned<int> host(kCount);
    std::memset(host, 0, kBytes);
    const std::vector<int> other(kCount);
    Device<int> x(kCount);
    succeed(cudaMemcpyAsync(x, host, kBytes, cudaMemcpyHostToDevice, stream));
    std::memcpy(host, other.data(), other.size() * sizeof(int));
    stream.wait();
  });
}

TEST_CASE("pageable memory in an asynchronous copy is reported") {
  always("host", [] {
    const Stream stream;
    const std::vector<int> host(kCount, 1);
    Device<int> x(kCount);
    succeed(cudaMemcpyAsync(x, host.data(), kBytes, cudaMemcpyHostToDevice, stream));
    stream.wait();
  });
}

TEST_CASE("the host does not dereference device memory") {
  always("host", [] {
    Device<int> x(std::vector<int>(kCount, 1));
    static_cast<void>(host_reads(x));
  });
  always("host", [] {
    Device<int> x(std::vector<int>(kCount, 1));
    const std::vector<int> y(kCount);
    std::memcpy(x, y.data(), y.size() * sizeof(int));
  });
}

TEST_CASE("who acts as a device may touch its memory, after having waited") {
  never([] {
    const Stream stream;
    Device<int> x(kCount);
    start(stream, fill, 1, kCount, x, 3);
    stream.wait();
    const host_cuda::ActsAsDevice acts;
    REQUIRE(host_reads(x + 1) == 3);
  });
  always("race", [] {
    const Stream stream;
    Device<int> x(std::vector<int>(kCount, 1));
    start(stream, fill, 1, kCount, x, 3);
    const host_cuda::ActsAsDevice acts;
    static_cast<void>(host_reads(x + 1));
    stream.wait();
  });
}

TEST_CASE("a copy whose kind does not fit its pointers is refused") {
  begin();
  Device<int> x(kCount);
  std::vector<int> host(kCount);
  CHECK(cudaMemcpy(host.data(), x, kBytes, cudaMemcpyHostToDevice) == cudaErrorInvalidValue);
  CHECK(only("misuse"));
}

TEST_CASE("copies and sets of more than there is are out of bounds") {
  always("out of bounds", [] {
    Device<int> x(std::vector<int>(kCount, 1));
    std::vector<int> host(kCount + 1);
    succeed(cudaMemcpy(host.data(), x, kBytes + sizeof(int), cudaMemcpyDeviceToHost));
  });
}

TEST_CASE("the default stream is not to be used") {
  always("stream", [] {
    Device<int> x(kCount);
    start(nullptr, fill, 1, kCount, x, 3);
    succeed(cudaDeviceSynchronize());
  });
}

TEST_CASE("a destroyed stream is not to be used") {
  always("misuse", [] {
    cudaStream_t stream = nullptr;
    succeed(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    succeed(cudaStreamDestroy(stream));
    REQUIRE(cudaStreamSynchronize(stream) == cudaErrorInvalidResourceHandle);
  });
}

TEST_CASE("a graph with a fork and a join is replayed in any order that its edges allow") {
  never([] {
    const Stream a;
    const Stream b;
    const Event forked;
    const Event joined;
    Device<int> x(std::vector<int>(kCount, 1));
    Device<int> y(kCount);
    Device<int> z(kCount);
    const Graph graph(a, [&] {
      start(a, add, 1, 32, x, kCount, 1);
      succeed(cudaEventRecord(forked, a));
      succeed(cudaStreamWaitEvent(b, forked, 0));
      start(b, sum_of, 1, kCount, x, x, y);
      start(a, sum_of, 1, kCount, x, x, z);
      succeed(cudaEventRecord(joined, b));
      succeed(cudaStreamWaitEvent(a, joined, 0));
      start(a, sum_of, 1, kCount, y, z, z);
    });
    REQUIRE(graph.nodes() == 4);
    for (int i = 0; i < 3; ++i) graph.launch(a);
    a.wait();
    REQUIRE(z.read(1)[0] == 4 * 4);
    REQUIRE(x.read(1)[0] == 4);
  });
}

TEST_CASE("nothing runs while it is captured, and a graph keeps arguments by value") {
  never([] {
    const Stream stream;
    Device<int> x(std::vector<int>(kCount, 0));
    int value = 5;
    const Graph graph(stream, [&] { start(stream, add, 1, 32, x, kCount, value); });
    REQUIRE(x.read(1)[0] == 0);
    value = 1000;  // the graph does not see it
    graph.launch(stream);
    graph.launch(stream);
    stream.wait();
    REQUIRE(x.read(1)[0] == 10);
  });
}

TEST_CASE("a graph that reads a variable of the host is reported") {
  always("host", [] {
    const Stream stream;
    Device<int> x(kCount);
    int value = 5;
    const Graph graph(stream, [&] { start(stream, copy_one, 1, 1, &value, x); });
    value = 6;
    graph.launch(stream);
    stream.wait();
  });
}

TEST_CASE("pinned memory that a graph reads changes between launches only after a wait") {
  const auto run = [](bool waits) {
    const Stream stream;
    Pinned<int> host(1);
    *host = 1;
    Device<int> x(1);
    const Graph graph(stream, [&] {
      succeed(cudaMemcpyAsync(x, host, sizeof(int), cudaMemcpyHostToDevice, stream));
      start(stream, add, 1, 1, x, 1, 1);
    });
    graph.launch(stream);
    if (waits) stream.wait();
    *host = 2;
    graph.launch(stream);
    stream.wait();
  };
  never([&] { run(true); });
  always("race", [&] { run(false); });
}

TEST_CASE("branches of a graph that no edge orders race") {
  always("race", [] {
    const Stream a;
    const Stream b;
    const Event forked;
    const Event joined;
    Device<int> x(std::vector<int>(kCount, 1));
    const Graph graph(a, [&] {
      succeed(cudaEventRecord(forked, a));
      succeed(cudaStreamWaitEvent(b, forked, 0));
      start(b, fill, 1, kCount, x, 1);
      start(a, fill, 1, kCount, x, 2);
      succeed(cudaEventRecord(joined, b));
      succeed(cudaStreamWaitEvent(a, joined, 0));
    });
    graph.launch(a);
    a.wait();
  });
}

namespace {

// A capture that something breaks. @returns what ending it says
template <class Run>
cudaError_t captured(cudaStream_t stream, Run run) {
  succeed(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal));
  run();
  cudaGraph_t graph = nullptr;
  const cudaError_t result = cudaStreamEndCapture(stream, &graph);
  if (graph != nullptr) succeed(cudaGraphDestroy(graph));
  return result;
}

}  // namespace

TEST_CASE("a fork that does not join ends a capture with an error") {
  always("capture", [] {
    const Stream a;
    const Stream b;
    const Event forked;
    Device<int> x(kCount);
    REQUIRE(captured(a, [&] {
              succeed(cudaEventRecord(forked, a));
              succeed(cudaStreamWaitEvent(b, forked, 0));
              start(b, fill, 1, kCount, x, 1);
            }) == cudaErrorStreamCaptureUnjoined);
  });
}

TEST_CASE("an allocation, a copy that waits, or a wait breaks a capture") {
  always("capture", [] {
    const Stream stream;
    Device<int> x(kCount);
    int host = 0;
    void* memory = nullptr;
    REQUIRE(captured(stream, [&] { REQUIRE(cudaMalloc(&memory, 4) == cudaErrorStreamCaptureUnsupported); }) ==
            cudaErrorStreamCaptureInvalidated);
    REQUIRE(captured(stream, [&] { REQUIRE(cudaStreamSynchronize(stream) == cudaErrorStreamCaptureUnsupported); }) ==
            cudaErrorStreamCaptureInvalidated);
    REQUIRE(captured(stream, [&] { REQUIRE(cudaDeviceSynchronize() == cudaErrorStreamCaptureUnsupported); }) ==
            cudaErrorStreamCaptureInvalidated);
    REQUIRE(captured(stream, [&] {
              REQUIRE(cudaMemcpy(&host, x, 4, cudaMemcpyDeviceToHost) == cudaErrorStreamCaptureImplicit);
            }) == cudaErrorStreamCaptureInvalidated);
  });
}

TEST_CASE("a capture does not wait for an event from outside") {
  always("capture", [] {
    const Stream a;
    const Stream b;
    const Event outside;
    succeed(cudaEventRecord(outside, b));
    REQUIRE(captured(a, [&] { REQUIRE(cudaStreamWaitEvent(a, outside, 0) == cudaErrorStreamCaptureIsolation); }) ==
            cudaErrorStreamCaptureInvalidated);
  });
}

TEST_CASE("memory ends where the device's memory does, and is there again when freed") {
  begin();
  void* much = nullptr;
  void* more = nullptr;
  CHECK(cudaMalloc(&much, 40U << 20U) == cudaSuccess);
  CHECK(cudaMalloc(&more, 40U << 20U) == cudaErrorMemoryAllocation);
  CHECK(more == nullptr);
  std::size_t free = 0;
  std::size_t total = 0;
  succeed(cudaMemGetInfo(&free, &total));
  CHECK(free == 24U << 20U);
  CHECK(total == 64U << 20U);
  succeed(cudaFree(much));
  CHECK(cudaMalloc(&more, 40U << 20U) == cudaSuccess);
  succeed(cudaFree(more));
  CHECK(cudaFree(more) == cudaErrorInvalidValue);  // twice
  CHECK(only("misuse"));
}

TEST_CASE("what is left behind is listed") {
  begin();
  void* memory = nullptr;
  cudaStream_t stream = nullptr;
  cudaEvent_t event = nullptr;
  succeed(cudaMalloc(&memory, 37));
  succeed(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  succeed(cudaEventCreateWithFlags(&event, cudaEventDisableTiming));
  CHECK(host_cuda::leaks() == std::vector<std::string>{"37 bytes of device memory", "a stream", "an event"});
  succeed(cudaEventDestroy(event));
  succeed(cudaStreamDestroy(stream));
  succeed(cudaFree(memory));
  CHECK(host_cuda::leaks().empty());
}

TEST_CASE("each call that can fail fails in its turn") {
  const auto program = [] {
    const Stream stream;
    const Event event;
    Device<int> x(kCount);
    Pinned<int> host(kCount);
    start(stream, fill, 1, kCount, x, 3);
    succeed(cudaMemcpyAsync(host, x, kBytes, cudaMemcpyDeviceToHost, stream));
    succeed(cudaEventRecord(event, stream));
    succeed(cudaEventSynchronize(event));
    stream.wait();
  };
  begin();
  program();
  const std::int64_t calls = host_cuda::calls();
  CHECK(calls == 9);
  for (std::int64_t n = 1; n <= calls; ++n) {
    host_cuda::Settings settings;
    settings.fail_at = n;
    host_cuda::reset(settings);
    CHECK_THROWS_AS(program(), std::runtime_error);
    CHECK(host_cuda::leaks().empty());
  }
  CHECK(findings() == "");
}
