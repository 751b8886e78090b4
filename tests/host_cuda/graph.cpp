#include "host_cuda/graph.h"

#include <algorithm>
#include <set>

#include "host_cuda/report.h"
#include "host_cuda/runtime.h"

struct CUgraphExec_st {
  struct Body {
    CUgraph_st graph;
    std::vector<host_cuda::Chain> chains;  // by branch
  };
  std::shared_ptr<Body> body;  // launches that are queued keep it
};

namespace host_cuda {

namespace {

struct Graphs {
  std::vector<std::unique_ptr<CUgraph_st>> graphs;
  std::vector<std::unique_ptr<CUgraphExec_st>> execs;
  std::vector<std::weak_ptr<Capture>> captures;
  unsigned long long captured = 0;
};

Graphs& all() {
  static auto* const only = new Graphs;
  return *only;
}

template <class T>
T* living_one(const std::vector<std::unique_ptr<T>>& from, const T* wanted, const char* what) {
  const auto at = std::find_if(from.begin(), from.end(), [&](const auto& one) { return one.get() == wanted; });
  if (at != from.end()) return at->get();
  report("misuse", std::string(what) + " that was destroyed, or never made, was used");
  return nullptr;
}

CUgraph_st copy_of(const CUgraph_st& graph) {
  CUgraph_st copy;
  copy.branches = graph.branches;
  for (const auto& node : graph.nodes) copy.nodes.push_back(std::make_unique<CUgraphNode_st>(*node));
  return copy;
}

// The nodes in an order that the dice pick, each after those it follows and with what those have seen.
void run_graph(const CUgraphExec_st::Body& body, CUstream_st& stream) {
  const auto& nodes = body.graph.nodes;
  std::vector<std::size_t> missing(nodes.size());
  std::vector<std::vector<std::size_t>> next(nodes.size());
  std::vector<Clock> clocks(nodes.size(), stream.clock);
  std::vector<std::size_t> ready;
  for (const auto& node : nodes) {
    missing[node->number] = node->after.size();
    if (node->after.empty()) ready.push_back(node->number);
    for (const std::size_t before : node->after) next[before].push_back(node->number);
  }
  while (!ready.empty()) {
    const std::size_t pick = dice().below(ready.size());
    const auto& node = *nodes[ready[pick]];
    ready.erase(ready.begin() + static_cast<std::ptrdiff_t>(pick));
    Clock& clock = clocks[node.number];
    for (const std::size_t before : node.after) clock.join(clocks[before]);
    if (node.work) run_operation(node.name, body.chains[node.branch], clock, node.work);
    stream.clock.join(clock);
    for (const std::size_t after : next[node.number]) {
      if (--missing[after] == 0) ready.push_back(after);
    }
  }
}

}  // namespace

Capture::Branch& Capture::branch_of(const CUstream_st& stream) {
  return *std::find_if(branches.begin(), branches.end(), [&](const Branch& b) { return b.stream == &stream; });
}

cudaError_t capture_node(CUstream_st& stream, const std::string& name, Work work) {
  Capture& capture = *stream.capture;
  if (capture.broken) return cudaErrorStreamCaptureInvalidated;
  auto& branch = capture.branch_of(stream);
  auto node = std::make_unique<CUgraphNode_st>();
  node->name = name;
  node->work = std::move(work);
  node->number = capture.graph->nodes.size();
  node->branch = static_cast<std::size_t>(&branch - capture.branches.data());
  for (const auto* before : branch.ends) node->after.push_back(before->number);
  branch.ends = {node.get()};
  capture.graph->nodes.push_back(std::move(node));
  return cudaSuccess;
}

cudaError_t capture_record(CUstream_st& stream, CUevent_st& event) {
  if (stream.capture->broken) return cudaErrorStreamCaptureInvalidated;
  event.capture = stream.capture;
  event.captured = stream.capture->branch_of(stream).ends;
  return cudaSuccess;
}

cudaError_t capture_wait(CUstream_st& stream, CUevent_st& event) {
  if (!event.capture) {
    if (!event.last) return cudaSuccess;
    report("capture", "a stream that captures waits for an event that was recorded outside");
    stream.capture->broken = true;
    return cudaErrorStreamCaptureIsolation;
  }
  if (event.capture->broken) return cudaErrorStreamCaptureInvalidated;
  if (event.capture->graph == nullptr) {
    report("capture", "a stream waits for an event of a capture that has ended");
    return cudaErrorCapturedEvent;
  }
  if (!stream.capture) {  // the stream joins the capture: a fork
    stream.capture = event.capture;
    stream.capture->branches.push_back({&stream, {}});
    stream.capture->graph->branches = stream.capture->branches.size();
  } else if (stream.capture != event.capture) {
    report("capture", "two captures meet in an event");
    stream.capture->broken = event.capture->broken = true;
    return cudaErrorStreamCaptureMerge;
  }
  auto& ends = stream.capture->branch_of(stream).ends;
  for (const auto& node : event.captured) {
    if (std::find(ends.begin(), ends.end(), node) == ends.end()) ends.push_back(node);
  }
  return cudaSuccess;
}

bool forbidden_in_capture(const char* function) {
  bool any = false;
  for (const auto& one : all().captures) {
    const auto capture = one.lock();
    if (!capture || capture->graph == nullptr) continue;
    any = true;
    capture->broken = true;
  }
  if (any) report("capture", std::string(function) + " was called while a stream captured");
  return any;
}

bool allocation_breaks_capture() {
  return std::any_of(all().captures.begin(), all().captures.end(), [](const auto& one) {
    const auto capture = one.lock();
    return capture && capture->graph != nullptr && capture->mode != cudaStreamCaptureModeRelaxed;
  });
}

std::vector<std::string> living_graphs() {
  std::vector<std::string> result(all().graphs.size(), "a graph");
  result.insert(result.end(), all().execs.size(), "an executable graph");
  return result;
}

void reset_graphs() { all() = {}; }

}  // namespace host_cuda

using namespace host_cuda;

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode mode) {
  return interface("cudaStreamBeginCapture", cudaErrorMemoryAllocation, [&] {
    CUstream_st* found = scheduler().find(stream);
    if (found == nullptr) return cudaErrorInvalidResourceHandle;
    if (found == &scheduler().default_stream()) return cudaErrorStreamCaptureUnsupported;
    if (found->capture) return cudaErrorIllegalState;
    found->capture = std::make_shared<Capture>();
    Capture& capture = *found->capture;
    capture.graph = std::make_unique<CUgraph_st>();
    capture.graph->branches = 1;
    capture.origin = found;
    capture.mode = mode;
    capture.id = ++all().captured;
    capture.branches.push_back({found, {}});
    std::erase_if(all().captures, [](const auto& one) { return one.expired(); });
    all().captures.push_back(found->capture);
    return cudaSuccess;
  });
}

cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  return interface("cudaStreamEndCapture", cudaErrorMemoryAllocation, [&] {
    *graph = nullptr;
    CUstream_st* found = scheduler().find(stream);
    if (found == nullptr) return cudaErrorInvalidResourceHandle;
    if (!found->capture) return cudaErrorIllegalState;
    const std::shared_ptr<Capture> capture = found->capture;
    if (capture->origin != found) {
      report("capture", "a capture was ended on another stream than it began on");
      return cudaErrorStreamCaptureUnmatched;
    }
    // Everything must come before what the first stream would do next.
    const auto& nodes = capture->graph->nodes;
    std::set<std::size_t> before;
    for (const auto* end : capture->branch_of(*found).ends) before.insert(end->number);
    for (std::size_t i = nodes.size(); i-- > 0;) {
      if (before.count(i) != 0) before.insert(nodes[i]->after.begin(), nodes[i]->after.end());
    }
    const bool joined = before.size() == nodes.size();
    const bool broken = capture->broken;
    for (auto& branch : capture->branches) {
      if (branch.stream != nullptr) branch.stream->capture = nullptr;
    }
    const auto captured = std::shared_ptr<CUgraph_st>(std::move(capture->graph));
    if (broken) return cudaErrorStreamCaptureInvalidated;
    if (!joined) {
      for (const auto& node : captured->nodes) {
        if (before.count(node->number) == 0) {
          report("capture", "a capture ended while a forked stream had not joined again: " + node->name);
          break;
        }
      }
      return cudaErrorStreamCaptureUnjoined;
    }
    all().graphs.push_back(std::make_unique<CUgraph_st>(copy_of(*captured)));
    *graph = all().graphs.back().get();
    return cudaSuccess;
  });
}

cudaError_t cudaStreamIsCapturing(cudaStream_t stream, cudaStreamCaptureStatus* status) {
  return interface("cudaStreamIsCapturing", cudaErrorUnknown, [&] {
    CUstream_st* found = scheduler().find(stream);
    if (found == nullptr) return cudaErrorInvalidResourceHandle;
    *status = !found->capture          ? cudaStreamCaptureStatusNone
              : found->capture->broken ? cudaStreamCaptureStatusInvalidated
                                       : cudaStreamCaptureStatusActive;
    return cudaSuccess;
  });
}

#if CUDART_VERSION >= 13000
cudaError_t cudaStreamGetCaptureInfo(cudaStream_t stream, cudaStreamCaptureStatus* status, unsigned long long* id,
                                     cudaGraph_t* graph, const cudaGraphNode_t** ends, const cudaGraphEdgeData** edges,
                                     size_t* count) {
#else
cudaError_t cudaStreamGetCaptureInfo_v2(cudaStream_t stream, cudaStreamCaptureStatus* status, unsigned long long* id,
                                        cudaGraph_t* graph, const cudaGraphNode_t** ends, size_t* count) {
  const cudaGraphEdgeData** edges = nullptr;
#endif
  const cudaError_t result = cudaStreamIsCapturing(stream, status);
  if (result != cudaSuccess || *status != cudaStreamCaptureStatusActive) return result;
  const std::lock_guard held(lock());
  Capture& capture = *stream->capture;
  const auto& last = capture.branch_of(*stream).ends;
  if (id != nullptr) *id = capture.id;
  if (graph != nullptr) *graph = capture.graph.get();
  if (ends != nullptr) *ends = last.data();
  if (edges != nullptr) *edges = nullptr;
  if (count != nullptr) *count = last.size();
  return cudaSuccess;
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t* exec, cudaGraph_t graph, unsigned long long /*flags*/) {
  return interface("cudaGraphInstantiate", cudaErrorMemoryAllocation, [&] {
    const CUgraph_st* found = living_one(all().graphs, graph, "a graph");
    if (found == nullptr) return cudaErrorInvalidValue;
    auto made = std::make_unique<CUgraphExec_st>();
    made->body = std::make_shared<CUgraphExec_st::Body>();
    made->body->graph = copy_of(*found);
    for (std::size_t i = 0; i < found->branches; ++i) made->body->chains.push_back(timeline().new_chain());
    *exec = made.get();
    all().execs.push_back(std::move(made));
    return cudaSuccess;
  });
}

cudaError_t cudaGraphInstantiateWithFlags(cudaGraphExec_t* exec, cudaGraph_t graph, unsigned long long flags) {
  return cudaGraphInstantiate(exec, graph, flags);
}

cudaError_t cudaGraphUpload(cudaGraphExec_t exec, cudaStream_t stream) {
  return interface("cudaGraphUpload", cudaErrorMemoryAllocation, [&] {
    if (living_one(all().execs, exec, "an executable graph") == nullptr) return cudaErrorInvalidValue;
    return scheduler().find(stream) == nullptr ? cudaErrorInvalidResourceHandle : cudaSuccess;
  });
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream) {
  return interface("cudaGraphLaunch", cudaErrorLaunchFailure, [&] {
    const CUgraphExec_st* found = living_one(all().execs, exec, "an executable graph");
    CUstream_st* to = scheduler().find(stream);
    if (found == nullptr || to == nullptr) return cudaErrorInvalidResourceHandle;
    if (to->capture) {
      report("misuse", "a graph launched into a capture: not modelled here");
      return cudaErrorNotSupported;
    }
    Operation operation;
    operation.name = "cudaGraphLaunch";
    operation.inner = [body = found->body](CUstream_st& on) { run_graph(*body, on); };
    scheduler().add(*to, std::move(operation));
    return cudaSuccess;
  });
}

cudaError_t cudaGraphGetNodes(cudaGraph_t graph, cudaGraphNode_t* nodes, size_t* count) {
  return interface("cudaGraphGetNodes", cudaErrorUnknown, [&] {
    const CUgraph_st* found = living_one(all().graphs, graph, "a graph");
    if (found == nullptr) return cudaErrorInvalidValue;
    const std::size_t there = found->nodes.size();
    if (nodes != nullptr) {
      for (std::size_t i = 0; i < *count; ++i) nodes[i] = i < there ? found->nodes[i].get() : nullptr;
      *count = std::min(*count, there);
    } else {
      *count = there;
    }
    return cudaSuccess;
  });
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  const std::lock_guard held(lock());
  if (living_one(all().graphs, graph, "a graph") == nullptr) return cudaErrorInvalidValue;
  std::erase_if(all().graphs, [&](const auto& one) { return one.get() == graph; });
  return cudaSuccess;
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec) {
  const std::lock_guard held(lock());
  if (living_one(all().execs, exec, "an executable graph") == nullptr) return cudaErrorInvalidValue;
  std::erase_if(all().execs, [&](const auto& one) { return one.get() == exec; });
  return cudaSuccess;
}
