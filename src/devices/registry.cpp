#include "devices/registry.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

#include "charrnn/error.h"
#include "cpu/cpu_backend.h"
#include "devices/cuda_library.h"

namespace charrnn {

namespace {

constexpr const char* kPrefix = "cuda:";
constexpr int kAnyDevice = -1;

/// The N of cuda:N, or kAnyDevice for cuda.
/// @throws ConfigError for another name
int cuda_index(const std::string& device) {
  if (device == "cuda") return kAnyDevice;
  int index = 0;
  const std::string number = device.starts_with(kPrefix) ? device.substr(std::string(kPrefix).size()) : "";
  const char* const end = number.data() + number.size();
  const auto [at, error] = std::from_chars(number.data(), end, index);
  if (number.empty() || error != std::errc() || at != end || index < 0) {
    throw ConfigError(fmt::format("device is \"{}\", expected auto, cpu, cuda or cuda:N", device));
  }
  return index;
}

std::string described(const CudaDeviceStatus& device) {
  return device.name.empty() ? device.reason : fmt::format("{}: {}", device.name, device.reason);
}

std::string missing_or_default(const CudaStatus& status) {
  return status.missing.empty() ? "the CUDA backend finds no device" : status.missing;
}

/// The device that is meant. @throws DeviceError with the reason why it cannot be had
const CudaDeviceStatus& choose(const CudaStatus& status, const std::string& name, int index) {
  const auto& devices = status.devices;
  const auto refuse = [&name](const std::string& reason) {
    throw DeviceError(fmt::format("device {}: {}; --device cpu computes on the CPU", name, reason));
  };
  if (devices.empty()) refuse(missing_or_default(status));
  const auto found = std::find_if(devices.begin(), devices.end(), [index](const CudaDeviceStatus& d) {
    return index == kAnyDevice ? d.usable : d.index == index;
  });
  if (found == devices.end()) {
    if (index == kAnyDevice) refuse(described(devices.front()));
    std::string names;
    for (const auto& d : devices) names += fmt::format("{}{}{}", names.empty() ? "" : ", ", kPrefix, d.index);
    refuse(fmt::format("there is no such device, only {}", names));
  }
  if (!found->usable) refuse(described(*found));
  return *found;
}

}  // namespace

std::unique_ptr<Backend> open_backend(const DeviceOptions& options) {
  const std::string& device = options.device;
  if (options.threads < 0) {
    throw ConfigError("--threads is " + std::to_string(options.threads) + ", expected 0 (all) or more");
  }
  if (device == "cpu") return cpu::make_cpu_backend(options.threads);
  const bool any = device == "auto";
  const int index = any ? kAnyDevice : cuda_index(device);

  const CudaLibrary library = open_cuda_library();
  if (library.plugin == nullptr) {
    if (any && !library.asked_for) return cpu::make_cpu_backend(options.threads);  // `devices` tells why
    throw DeviceError(fmt::format("device {}: {}; --device cpu computes on the CPU", device, library.missing));
  }
  const CudaStatus status = library.plugin->status();
  if (any && std::none_of(status.devices.begin(), status.devices.end(), [](const auto& d) { return d.usable; })) {
    return cpu::make_cpu_backend(options.threads);
  }
  return library.plugin->open(choose(status, device, index).index, options.implementation);
}

BackendList list_backends() {
  BackendList list;
  list.backends.push_back({.backend = "cpu",
                           .device = "cpu",
                           .available = true,
                           .detail = cpu::cpu_name(),
                           .precisions = cpu::precisions(),
                           .threads = cpu::usable_processors()});
  const auto absent = [&list](const std::string& reason) {
    list.backends.push_back({.backend = "cuda", .device = "", .detail = reason, .precisions = {}});
  };
  const CudaLibrary library = open_cuda_library();
  if (library.plugin == nullptr) {
    absent(library.missing);
    return list;
  }
  const CudaStatus status = library.plugin->status();
  if (status.devices.empty()) absent(missing_or_default(status));
  for (const CudaDeviceStatus& device : status.devices) {
    list.backends.push_back({.backend = "cuda",
                             .device = fmt::format("{}{}", kPrefix, device.index),
                             .available = device.usable,
                             .detail = device.usable ? device.name : described(device),
                             .precisions = device.precisions,
                             .memory_bytes = device.memory_bytes});
  }
  list.cudnn = status.cudnn;
  return list;
}

}  // namespace charrnn
