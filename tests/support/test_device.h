// The device that tests of the seam run on, so that one set of tests holds every backend to the reference:
//   CHARRNN_TEST_DEVICE          cpu (default), cuda, cuda:N
//   CHARRNN_TEST_IMPLEMENTATION  fused (default), cudnn; of cuda
//   CHARRNN_TEST_PRECISION       fp32 (default), tf32, bf16, fp16
#pragma once

#include <cstdlib>
#include <memory>
#include <stdexcept>
#include <string>

#include "devices/registry.h"

namespace charrnn::tests {

inline std::string from_environment(const char* name, const char* otherwise) {
  const char* const value = std::getenv(name);
  return value == nullptr ? otherwise : value;
}

inline std::string test_device() { return from_environment("CHARRNN_TEST_DEVICE", "cpu"); }
inline bool on_cpu() { return test_device() == "cpu"; }

inline Precision test_precision() {
  const std::string name = from_environment("CHARRNN_TEST_PRECISION", "fp32");
  for (const Precision p : {Precision::kFp32, Precision::kTf32, Precision::kBf16, Precision::kFp16}) {
    if (name == name_of(p)) return p;
  }
  throw std::runtime_error("CHARRNN_TEST_PRECISION is " + name);
}

inline Implementation test_implementation() {
  return from_environment("CHARRNN_TEST_IMPLEMENTATION", "fused") == "cudnn" ? Implementation::kCudnn
                                                                             : Implementation::kFused;
}

/// @param threads  of a CPU
inline std::unique_ptr<Backend> open_test_backend(int threads) {
  return open_backend({.device = test_device(), .threads = threads, .implementation = test_implementation()});
}

/// How coarsely activations are rounded: half of this, relative.
inline double test_epsilon() {
  switch (test_precision()) {
    case Precision::kBf16: return 0x1p-7;
    case Precision::kFp16:
    case Precision::kTf32: return 0x1p-10;
    default: return 0x1p-23;
  }
}

}  // namespace charrnn::tests
