// The door of the library: the one symbol that the program looks up.
#include "cuda/cuda_backend.h"

extern "C" __attribute__((visibility("default"))) const charrnn::CudaPlugin* charrnn_cuda_plugin() {
  static const charrnn::CudaPlugin plugin{charrnn::kCudaPluginAbi, &charrnn::cuda::cuda_status,
                                          &charrnn::cuda::make_cuda_backend};
  return &plugin;
}
