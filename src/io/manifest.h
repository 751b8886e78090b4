// manifest.json of a checkpoint: which files belong to it, with sizes and hashes. It is written last, so a checkpoint
// that has one was written to the end.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace charrnn {

inline constexpr std::string_view kManifestFile = "manifest.json";
inline constexpr std::string_view kModelFile = "model.safetensors";
inline constexpr std::string_view kStateFile = "state.safetensors";
inline constexpr std::string_view kManifestFormat = "charrnn-checkpoint-1";

struct Manifest {
  struct File {
    std::string name;
    std::uint64_t bytes = 0;
    std::string sha256;  // 64 lower-case hex digits
  };
  std::int64_t step = 0;
  std::vector<File> files;

  const File* find(std::string_view name) const;
};

/// @param name  stands for the file in messages
/// @throws FormatError if it is malformed, of another format, or names a file that does not belong to a checkpoint
Manifest parse_manifest(std::string_view text, const std::string& name);

std::string format_manifest(const Manifest& manifest);

}  // namespace charrnn
