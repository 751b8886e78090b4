// Capture and graphs. A node keeps its work by value: what changes on the host after capture, the graph does not see.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "host_cuda/stream.h"

struct CUgraphNode_st {
  std::string name;
  host_cuda::Work work;
  std::vector<std::size_t> after;  // numbers of nodes
  std::size_t number = 0;
  std::size_t branch = 0;  // of the captured streams; its nodes follow one another
};

struct CUgraph_st {
  std::vector<std::unique_ptr<CUgraphNode_st>> nodes;
  std::size_t branches = 0;
};

namespace host_cuda {

/// A capture that is going on, shared by the streams that take part.
struct Capture {
  struct Branch {
    CUstream_st* stream = nullptr;
    std::vector<cudaGraphNode_t> ends;  // what the stream's next node follows
  };
  std::unique_ptr<CUgraph_st> graph;
  CUstream_st* origin = nullptr;
  cudaStreamCaptureMode mode = cudaStreamCaptureModeGlobal;
  unsigned long long id = 0;
  bool broken = false;  // by something that a capture forbids
  std::vector<Branch> branches;

  Branch& branch_of(const CUstream_st& stream);
};

cudaError_t capture_node(CUstream_st& stream, const std::string& name, Work work);
cudaError_t capture_record(CUstream_st& stream, CUevent_st& event);
cudaError_t capture_wait(CUstream_st& stream, CUevent_st& event);
/// For calls that no stream may be capturing for: reports, breaks the captures. @returns true if it was so
bool forbidden_in_capture(const char* function);
/// Some stream captures in a mode that forbids to allocate.
bool allocation_breaks_capture();

std::vector<std::string> living_graphs();
void reset_graphs();

}  // namespace host_cuda
