// The one table of keys. Reading, writing, suggestions for a mistyped key and the comparison with a checkpoint's config
// all come from it.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "charrnn/config.h"
#include "config/yaml_reader.h"

namespace charrnn {

struct ConfigKey {
  std::string path;                                    // group.key or group.group.key
  std::string expected;                                // "a whole number from 1 to 64"
  std::string comment;                                 // for the written config
  std::function<bool(Config&, const YamlNode&)> read;  // false: the value is not as expected
  std::function<std::string(const Config&)> write;     // as YAML
  std::function<bool(const Config&)> applies;          // empty: always. False: the key belongs to another choice
  bool takes_entry = false;                            // its value is {name: number}
  bool fixed = false;                                  // may not change when a run goes on
};

/// In the order of the written config; a key that others' `applies` depends on stands before them.
const std::vector<ConfigKey>& config_keys();

}  // namespace charrnn
