// Ranges that Nsight Systems shows: step, phase, layer (docs/profiling.md). They cost nothing while nothing records.
#pragma once

#include <nvtx3/nvToolsExt.h>

namespace charrnn::cuda {

class Range {
 public:
  explicit Range(const char* name) { nvtxRangePushA(name); }
  ~Range() { nvtxRangePop(); }
  Range(const Range&) = delete;
  Range& operator=(const Range&) = delete;
};

}  // namespace charrnn::cuda
