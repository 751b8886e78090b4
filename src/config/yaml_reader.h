// YAML as a small tree with places, from yaml-cpp's events. Anchors, aliases, tags, repeated keys and several documents
// are refused while reading, so that nothing behind this sees them.
#pragma once

#include <string>
#include <vector>

namespace charrnn {

struct YamlNode {
  enum class Kind { kScalar, kMap, kList, kEmpty };

  Kind kind = Kind::kEmpty;
  std::string place;        // "FILE:LINE", or "--set key"
  bool quoted = false;      // a scalar in quotes is a string whatever it looks like
  bool overridden = false;  // came from the command line
  std::string scalar;
  struct Entry;            // no std::pair: clang does not take one of a type that is not complete
  std::vector<Entry> map;  // in the file's order; keys differ
  std::vector<YamlNode> list;

  YamlNode* find(const std::string& key);
};

struct YamlNode::Entry {
  std::string key;
  YamlNode value;
};

/// Offset of the first byte that is not part of valid UTF-8, or npos. Overlong forms and surrogates are not valid.
std::size_t invalid_utf8(const std::string& text);

/// A piece of a file as a message shows it: one line of printable ASCII or UTF-8, shortened.
std::string shown_text(const std::string& text);

/// @param name  stands for the file in places
/// @throws ConfigError
YamlNode parse_yaml(const std::string& text, const std::string& name);

}  // namespace charrnn
