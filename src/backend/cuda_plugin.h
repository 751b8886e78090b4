// The door of libcharrnn_cuda.so: what the program looks up in it. The library is opened at run time, so that one
// program runs on machines with and without CUDA.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "backend/backend.h"

namespace charrnn {

/// Raised whenever this file or the seam changes: a library of another build is refused, not called.
inline constexpr int kCudaPluginAbi = 2;
inline constexpr const char* kCudaPluginSymbol = "charrnn_cuda_plugin";

struct CudaDeviceStatus {
  int index = 0;
  std::string name;
  bool usable = false;
  std::string reason;  // why not: too old a GPU, say
  std::vector<Precision> precisions;
  std::size_t memory_bytes = 0;
};

struct CudaStatus {
  std::vector<CudaDeviceStatus> devices;
  std::string missing;  // a sentence: no driver, no GPU; empty where there are devices
  std::string cudnn;    // its version, or a sentence why `cudnn` cannot be chosen
};

struct CudaPlugin {
  int abi = 0;
  CudaStatus (*status)() = nullptr;
  /// @param device  index
  /// @throws DeviceError
  std::unique_ptr<Backend> (*open)(int device, Implementation implementation) = nullptr;
};

/// The type of the symbol.
using CudaPluginEntry = const CudaPlugin* (*)();

}  // namespace charrnn
