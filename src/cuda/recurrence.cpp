#include "cuda/recurrence.h"

namespace charrnn::cuda {

/// auto is the fused one until a measurement on a GPU says otherwise (docs/decisions/0002).
bool wants_cudnn(const CudaNetwork& network, std::string* why) {
  if (network.device().implementation != Implementation::kCudnn) return false;
  return cudnn_can(network, why);
}

}  // namespace charrnn::cuda
