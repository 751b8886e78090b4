// NVIDIA GPUs as a backend.
#pragma once

#include <memory>
#include <string>

#include "backend/backend.h"
#include "backend/cuda_plugin.h"

namespace charrnn::cuda {

/// @param device  index
/// @throws DeviceError for a GPU that is not there or too old, with the reason
std::unique_ptr<Backend> make_cuda_backend(int device, Implementation implementation);

/// Whether a GPU runs what was built for `targets`, words as CMAKE_CUDA_ARCHITECTURES has them: 90a-real for that very
/// GPU, 80-real for it and later ones of the same first digit, 90-virtual for it and all later ones.
bool has_code_for(const std::string& targets, int major, int minor);

/// What there is on this machine. Throws nothing.
CudaStatus cuda_status();

}  // namespace charrnn::cuda
