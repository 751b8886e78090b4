// Any text is a config or is refused with a ConfigError.
#include <cstddef>
#include <cstdint>
#include <string>

#include "charrnn/config.h"
#include "charrnn/error.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  try {
    const std::string text(reinterpret_cast<const char*>(data), size);
    const charrnn::Config config = charrnn::parse_config(text, "fuzz.yaml");
    if (charrnn::to_yaml(charrnn::parse_config(charrnn::to_yaml(config), "again")) != charrnn::to_yaml(config)) {
      __builtin_trap();  // what is accepted survives being written and read
    }
  } catch (const charrnn::ConfigError&) {
    // refused, as it should be
  }
  return 0;
}
