// YAML as a small tree with places, from yaml-cpp's events. Anchors, aliases, tags, repeated keys and several documents are
// refused while reading, so that nothing behind this sees them.
#pragma once

#include <string>
#include <utility>
#include <vector>

namespace charrnn {

struct YamlNode {
  enum class Kind { kScalar, kMap, kList, kEmpty };

  Kind kind = Kind::kEmpty;
  std::string place;      // "FILE:LINE", or "--set key"
  bool quoted = false;    // a scalar in quotes is a string whatever it looks like
  bool overridden = false;  // came from the command line
  std::string scalar;
  std::vector<std::pair<std::string, YamlNode>> map;   // in the file's order; keys differ
  std::vector<YamlNode> list;

  YamlNode* find(const std::string& key);
};

/// @param name  stands for the file in places
/// @throws ConfigError
YamlNode parse_yaml(const std::string& text, const std::string& name);

}  // namespace charrnn
