// What a failed call of CUDA means. launch.h declares check() for kernels; this has the rest.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>
#include <string>

#include "charrnn/error.h"
#include "kernels/launch.h"

namespace charrnn::cuda {

/// Kernels launched by this process so far; a captured launch counts once.
std::int64_t launch_count();

/// CHARRNN_SYNC=1: wait after each launch. CHARRNN_GRAPH=0: no captured graphs. CHARRNN_HOLD_TEXT=0: texts come as
/// windows from the host, as large ones do. Read once.
bool sync_after_launch();
bool graphs_enabled();
bool text_may_be_held();

}  // namespace charrnn::cuda
