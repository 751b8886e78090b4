// From a device's name to a backend.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "backend/backend.h"

namespace charrnn {

/// @param device   auto | cpu | cuda | cuda:N
/// @param threads  CPU threads; 0: all that this process may use
/// @throws ConfigError for a name it does not know, DeviceError for a device that is not there, with the reason
std::unique_ptr<Backend> open_backend(const std::string& device, int threads);

struct BackendStatus {
  std::string backend;  // cpu | cuda
  bool available = false;
  std::string detail;  // the device's name, or the reason for its absence, in one sentence
  std::vector<Precision> precisions;
  int threads = 0;
};

/// Every backend that exists, present or not.
std::vector<BackendStatus> list_backends();

}  // namespace charrnn
