#include "devices/registry.h"

#include "charrnn/error.h"
#include "cpu/cpu_backend.h"

namespace charrnn {

namespace {

constexpr const char* kNoCuda = "this build has no CUDA backend; use --device cpu";

}

std::unique_ptr<Backend> open_backend(const std::string& device, int threads) {
  if (threads < 0) throw ConfigError("--threads is " + std::to_string(threads) + ", expected 0 (all) or more");
  if (device == "auto" || device == "cpu") return cpu::make_cpu_backend(threads);
  if (device == "cuda" || device.rfind("cuda:", 0) == 0) throw DeviceError("device " + device + ": " + kNoCuda);
  throw ConfigError("device is \"" + device + "\", expected auto, cpu, cuda or cuda:N");
}

std::vector<BackendStatus> list_backends() {
  return {{"cpu", true, cpu::cpu_name(), {Precision::kFp32}, cpu::usable_processors()},
          {"cuda", false, kNoCuda, {}, 0}};
}

}  // namespace charrnn
