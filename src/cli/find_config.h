// Which file --config NAME means.
#pragma once

#include <filesystem>
#include <string>

namespace charrnn {

struct FoundConfig {
  std::filesystem::path file;
  bool shipped = false;  // not the user's own file: the program says which it took
};

/// NAME if it is a file. Else, for a name without a slash, NAME or NAME.yaml among the shipped configs: in
/// $CHARRNN_CONFIGS, in share/charrnn/configs beside the program's bin, in the repository that it was built from.
/// @throws ConfigError that says where it looked and what there is
FoundConfig find_config(const std::string& name);

/// find_config(), and says on stderr which file was taken if that was not the obvious one.
std::filesystem::path find_config_aloud(const std::string& name);

}  // namespace charrnn
