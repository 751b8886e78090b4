#include "cli/find_config.h"

#include <algorithm>
#include <cstdlib>
#include <system_error>
#include <vector>

#include "charrnn/error.h"
#include "cli/console.h"
#include "cli/options.h"

namespace charrnn {
namespace {

namespace fs = std::filesystem;

bool is_file(const fs::path& path) {
  std::error_code ignored;
  return fs::exists(path, ignored) && !fs::is_directory(path, ignored);
}

std::vector<fs::path> shipped_folders() {
  std::vector<fs::path> folders;
  if (const char* own = std::getenv("CHARRNN_CONFIGS"); own != nullptr && *own != '\0') folders.emplace_back(own);
  std::error_code failed;
  const fs::path program = fs::read_symlink("/proc/self/exe", failed);
  if (!failed) folders.push_back(program.parent_path().parent_path() / "share" / "charrnn" / "configs");
  folders.emplace_back(CHARRNN_SOURCE_CONFIGS);
  return folders;
}

std::vector<std::string> shipped_names(const std::vector<fs::path>& folders) {
  std::vector<std::string> names;
  for (const fs::path& folder : folders) {
    std::error_code ignored;
    for (const auto& entry : fs::directory_iterator(folder, ignored)) {
      if (entry.path().extension() == ".yaml") names.push_back(entry.path().stem().string());
    }
  }
  std::sort(names.begin(), names.end());
  names.erase(std::unique(names.begin(), names.end()), names.end());
  return names;
}

}  // namespace

FoundConfig find_config(const std::string& name) {
  if (is_file(name)) return {name, false};
  std::error_code ignored;
  const bool is_folder = fs::is_directory(name, ignored);
  if (name.find('/') != std::string::npos) {
    throw ConfigError("--config " + name + ": " +
                      (is_folder ? "this is a folder, expected a YAML file" : "there is no such file"));
  }
  const std::vector<fs::path> folders = shipped_folders();
  for (const fs::path& folder : folders) {
    for (const std::string& candidate : {name, name + ".yaml"}) {
      if (is_file(folder / candidate)) return {folder / candidate, true};
    }
  }
  std::string stem = name;
  if (stem.ends_with(".yaml")) stem.resize(stem.size() - 5);
  const std::vector<std::string> known = shipped_names(folders);
  std::string message = "--config " + name + ": " +
                        (is_folder ? "this is a folder here"
                                   : "there is no such file here (" + fs::current_path(ignored).string() + ")") +
                        ", and no shipped config of this name" + did_you_mean(stem, known);
  if (known.empty()) {
    message += "; looked in";
    for (std::size_t i = 0; i < folders.size(); ++i) message += (i == 0 ? " " : ", ") + folders[i].string();
    message += "; set CHARRNN_CONFIGS to the folder that holds them";
  } else {
    message += "; shipped are";
    for (std::size_t i = 0; i < known.size(); ++i) message += (i == 0 ? " " : ", ") + known[i];
  }
  throw ConfigError(message);
}

fs::path find_config_aloud(const std::string& name) {
  const FoundConfig found = find_config(name);
  if (found.shipped) say("config: " + name + " is not in this folder; taking the shipped " + found.file.string());
  return found.file;
}

}  // namespace charrnn
