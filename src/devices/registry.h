// From a device's name to a backend.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include "backend/backend.h"

namespace charrnn {

struct DeviceOptions {
  std::string device = "auto";                            // auto | cpu | cuda | cuda:N
  int threads = 0;                                        // of the CPU; 0: all that this process may use
  Implementation implementation = Implementation::kAuto;  // of the recurrence on a GPU; the CPU ignores it
};

/// auto is the first CUDA device that can be used, else the CPU; cuda is the first that can be used.
/// @throws ConfigError for a name it does not know, DeviceError for a device that is not there, with the reason
std::unique_ptr<Backend> open_backend(const DeviceOptions& options);

struct BackendStatus {
  std::string backend;  // cpu | cuda
  std::string device;   // as --device takes it: cpu, cuda:0; empty: there is none
  bool available = false;
  std::string detail;  // the device's name and, for an absent one, the reason in one sentence
  std::vector<Precision> precisions;
  int threads = 0;
  std::size_t memory_bytes = 0;  // of a GPU; else 0
};

struct BackendList {
  std::vector<BackendStatus> backends;  // the CPU; each CUDA device, or one entry that says why there is none
  std::string cudnn;                    // its version, or why there is none; empty without a CUDA backend
};

/// Every backend that exists, present or not.
BackendList list_backends();

}  // namespace charrnn
