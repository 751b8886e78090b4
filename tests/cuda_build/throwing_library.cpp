// Stands in for libcharrnn_cuda.so, linked with its list of exported symbols: throws what that library throws.
#include "charrnn/error.h"

namespace {
struct Hidden : charrnn::DeviceError {  // a type of the library's own, which the program knows by its base
  Hidden() : DeviceError("hidden") {}
};
}  // namespace

extern "C" {
void charrnn_cuda_plugin(int kind);
void charrnn_not_exported() {}
}

void charrnn_cuda_plugin(int kind) {
  if (kind == 0) throw charrnn::DeviceError("device");
  if (kind == 1) throw charrnn::RunError("run");
  throw Hidden();
}
