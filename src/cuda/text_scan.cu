#include "cuda/text_scan.h"

#include <thrust/execution_policy.h>
#include <thrust/find.h>

#include <exception>
#include <string>

#include "charrnn/error.h"

namespace charrnn::cuda {

namespace {

struct IsUnknown {
  const DeviceId* ids_of_bytes;
  __host__ __device__ bool operator()(std::uint8_t byte) const { return ids_of_bytes[byte] == kNoId; }
};

}  // namespace

std::int64_t first_unknown(const std::uint8_t* text, std::int64_t size, const DeviceId* ids_of_bytes) {
  const std::uint8_t* const end = text + size;
  try {
    const std::uint8_t* const found = thrust::find_if(thrust::device, text, end, IsUnknown{ids_of_bytes});
    return found == end ? -1 : found - text;
  } catch (const std::exception& e) {  // thrust::system_error, std::bad_alloc
    throw DeviceError(std::string("cuda: looking through the text: ") + e.what() +
                      "; CHARRNN_HOLD_TEXT=0 leaves the text with the host");
  }
}

}  // namespace charrnn::cuda
