// What every interface function of the CUDA runtime has around it.
#pragma once

#include <cuda_runtime_api.h>

#include "host_cuda/checker.h"
#include "host_cuda/report.h"

namespace host_cuda {

/// The device's broken state, or success.
cudaError_t sticky_error();
void remember_error(cudaError_t error);

/// Runs `body` as the function `name`: alone, counted, failed with `failure` when that is asked for, its error kept.
template <class Body>
cudaError_t interface(const char* name, cudaError_t failure, Body body) {
  const std::lock_guard held(lock());
  const ModeScope library(Mode::kLibrary);
  cudaError_t result = sticky_error();
  if (result == cudaSuccess) result = call_must_fail(name) ? failure : body();
  if (result == cudaSuccess) result = sticky_error();
  if (result != cudaSuccess && result != cudaErrorNotReady) remember_error(result);
  return result;
}

}  // namespace host_cuda
