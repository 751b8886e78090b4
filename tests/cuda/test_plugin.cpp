// A library that the code under test opens as if it were libcharrnn_cuda.so, and that hands on the backend which is
// linked into the test: so that the test sees the device that a whole run computes on.
#include "backend/cuda_plugin.h"

extern "C" const charrnn::CudaPlugin* plugin_of_the_test();

extern "C" __attribute__((visibility("default"))) const charrnn::CudaPlugin* charrnn_cuda_plugin() {
  return plugin_of_the_test();
}
