// Ranges that Nsight Systems shows: step, phase, layer (docs/profiling.md). They cost nothing while nothing records.
#pragma once

#if !defined(CHARRNN_NO_NVTX)
#include <nvtx3/nvToolsExt.h>
#endif

namespace charrnn::cuda {

class Range {
 public:
#if defined(CHARRNN_NO_NVTX)
  explicit Range(const char* /*name*/) {}
  ~Range() {}  // not defaulted: a range is there to live, and no compiler shall call it unused
#else
  explicit Range(const char* name) { nvtxRangePushA(name); }
  ~Range() { nvtxRangePop(); }
#endif
  Range(const Range&) = delete;
  Range& operator=(const Range&) = delete;
};

}  // namespace charrnn::cuda
