// NVIDIA GPUs as a backend.
#pragma once

#include <memory>

#include "backend/backend.h"
#include "devices/cuda_plugin.h"

namespace charrnn::cuda {

/// @param device  index
/// @throws DeviceError for a GPU that is not there or too old, with the reason
std::unique_ptr<Backend> make_cuda_backend(int device, Implementation implementation);

/// What there is on this machine. Throws nothing.
CudaStatus cuda_status();

}  // namespace charrnn::cuda
