// A checkpoint's network on a device: what sampling, evaluation and Rnn start from.
#pragma once

#include <filesystem>
#include <memory>
#include <string>

#include "backend/backend.h"
#include "charrnn/checkpoint.h"
#include "charrnn/config.h"
#include "devices/registry.h"

namespace charrnn {

struct LoadedModel {
  ResolvedCheckpoint source;
  Checkpoint checkpoint;             // without its training state; its parameters have been moved to the network
  std::unique_ptr<Backend> backend;  // outlives the network
  std::unique_ptr<Network> network;
};

/// @throws FormatError, DeviceError, ConfigError
LoadedModel load_model(const std::filesystem::path& run_or_checkpoint, const DeviceOptions& device,
                       Precision precision);

}  // namespace charrnn
