// Any bytes are a sound safetensors file or are refused with a FormatError.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <vector>

#include "charrnn/error.h"
#include "io/safetensors.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace charrnn;
  try {
    const SafetensorsFile file =
        SafetensorsFile::parse(std::string(reinterpret_cast<const char*>(data), size), "the file");
    for (const TensorInfo& t : file.header().tensors) {
      if (t.begin > t.end || t.end > size) std::abort();
      if (t.dtype != Dtype::kF32) continue;
      std::vector<float> values((t.end - t.begin) / sizeof(float));
      file.copy_f32(t.name, t.shape, values);
    }
  } catch (const FormatError&) {
  }
  return 0;
}
