// Any bytes are a manifest that names only files of a checkpoint, or are refused with a FormatError.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "charrnn/error.h"
#include "io/manifest.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace charrnn;
  try {
    const Manifest manifest = parse_manifest({reinterpret_cast<const char*>(data), size}, "the manifest");
    if (manifest.step < 0 || manifest.find(kModelFile) == nullptr) std::abort();
    for (const Manifest::File& file : manifest.files) {
      if (file.name != kModelFile && file.name != kStateFile) std::abort();
    }
    // What is written of it reads back the same.
    const Manifest again = parse_manifest(format_manifest(manifest), "the manifest");
    if (again.step != manifest.step || again.files.size() != manifest.files.size()) std::abort();
  } catch (const FormatError&) {
  }
  return 0;
}
