// Fine-tuning: the weights of a checkpoint in a fresh network whose vocabulary may be another.
#pragma once

#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "backend/parameter_layout.h"
#include "charrnn/vocabulary.h"

namespace charrnn {

/// Overwrites `arena` (freshly initialised) with the checkpoint's weights. Characters are mapped by value; those that
/// the checkpoint does not know keep their fresh weights.
/// @returns what could not be mapped, as sentences
/// @throws ConfigError if cell, layers or hidden differ; FormatError
std::vector<std::string> take_weights(const std::filesystem::path& run_or_checkpoint, const ParameterLayout& layout,
                                      const Vocabulary& vocabulary, std::span<float> arena);

}  // namespace charrnn
