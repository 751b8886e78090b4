#include "charrnn/config.h"

#include <fmt/format.h>

#include <algorithm>
#include <fstream>
#include <numeric>
#include <sstream>

#include "charrnn/error.h"
#include "config/schema.h"

namespace charrnn {

std::string_view name_of(Cell cell) {
  switch (cell) {
    case Cell::kLstm: return "lstm";
    case Cell::kGru: return "gru";
    case Cell::kRnnTanh:
    case Cell::kRnnRelu: break;
  }
  return "rnn";
}

std::string_view name_of(Nonlinearity n) { return n == Nonlinearity::kTanh ? "tanh" : "relu"; }

std::string_view name_of(SplitBy by) { return by == SplitBy::kTail ? "tail" : "stream"; }

std::string_view name_of(OptimizerKind kind) {
  switch (kind) {
    case OptimizerKind::kRmsprop: return "rmsprop";
    case OptimizerKind::kAdam: return "adam";
    case OptimizerKind::kAdagrad: return "adagrad";
    case OptimizerKind::kSgd: break;
  }
  return "sgd";
}

std::string_view name_of(ScheduleConfig::Kind kind) {
  switch (kind) {
    case ScheduleConfig::Kind::kConstant: return "constant";
    case ScheduleConfig::Kind::kDecay: return "decay";
    case ScheduleConfig::Kind::kCosine: return "cosine";
    case ScheduleConfig::Kind::kPlateau: break;
  }
  return "plateau";
}

namespace {

constexpr const char* kSchedule = "train.schedule";
constexpr std::int64_t kMaxCharacters = INT32_MAX;  // a step: rows of the largest matrices
constexpr double kMaxParameters = 1e12;             // 4 TB of weights: far above any machine, far below 2^63 bytes

std::vector<std::string> split_path(const std::string& path) {
  std::vector<std::string> parts(1);
  for (const char c : path) {
    if (c == '.') {
      parts.emplace_back();
    } else {
      parts.back() += c;
    }
  }
  return parts;
}

std::size_t edit_distance(const std::string& a, const std::string& b) {
  std::vector<std::size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), std::size_t{0});
  for (std::size_t i = 1; i <= a.size(); ++i) {
    std::size_t diagonal = row[0];
    row[0] = i;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const std::size_t replace = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
      diagonal = row[j];
      row[j] = std::min({row[j] + 1, row[j - 1] + 1, replace});
    }
  }
  return row[b.size()];
}

bool is_key(const std::string& path) {
  const auto& keys = config_keys();
  return std::any_of(keys.begin(), keys.end(), [&](const ConfigKey& k) { return k.path == path; });
}

/// True if the key's value is {name: number}.
bool takes_entry(const std::string& path) {
  const auto& keys = config_keys();
  return std::any_of(keys.begin(), keys.end(), [&](const ConfigKey& k) { return k.takes_entry && k.path == path; });
}

/// True if some key lies below this path.
bool is_group(const std::string& path) {
  const auto& keys = config_keys();
  return std::any_of(keys.begin(), keys.end(), [&](const ConfigKey& k) { return k.path.rfind(path + ".", 0) == 0; });
}

[[noreturn]] void unknown_key(const std::string& place, const std::string& path) {
  constexpr std::size_t kLongest = 200;  // of what is worth comparing
  const std::string here = path.substr(0, kLongest);
  const auto last = [](const std::string& p) { return p.substr(p.rfind('.') + 1); };  // npos + 1 is 0
  std::string nearest;
  std::size_t best = SIZE_MAX;
  const auto consider = [&](const std::string& candidate) {
    if (here.rfind(candidate + ".", 0) == 0) return;       // the group that it stands in
    const bool misplaced = last(here) == last(candidate);  // the right key in the wrong group
    const std::size_t distance = misplaced ? 1 : edit_distance(here, candidate);
    if (distance < best) {
      best = distance;
      nearest = candidate;
    }
  };
  for (const ConfigKey& key : config_keys()) {
    for (std::size_t end = key.path.find('.'); end != std::string::npos; end = key.path.find('.', end + 1)) {
      consider(key.path.substr(0, end));
    }
    consider(key.path);
  }
  throw ConfigError(fmt::format("{}: {} is not a key; the nearest known key is {} (docs/config.md lists all)", place,
                                shown_text(path), nearest));
}

/// A value as `{key: value}` or `[value, value]`.
std::string flow_text(const YamlNode& node) {
  if (node.kind == YamlNode::Kind::kScalar) return node.scalar;
  if (node.kind == YamlNode::Kind::kEmpty) return "";
  std::vector<std::string> parts;
  constexpr std::size_t kMostParts = 10;  // more are not shown
  for (const auto& [key, value] : node.map) {
    if (parts.size() < kMostParts) parts.push_back(key + ": " + flow_text(value));
  }
  for (const YamlNode& item : node.list) {
    if (parts.size() < kMostParts) parts.push_back(flow_text(item));
  }
  const bool is_list = node.kind == YamlNode::Kind::kList;
  return fmt::format("{}{}{}", is_list ? "[" : "{", fmt::join(parts, ", "), is_list ? "]" : "}");
}

/// A value as a message shows it.
std::string shown(const YamlNode& node) {
  switch (node.kind) {
    case YamlNode::Kind::kEmpty: return "empty";
    case YamlNode::Kind::kMap:
    case YamlNode::Kind::kList: return shown_text(flow_text(node));
    case YamlNode::Kind::kScalar: break;
  }
  const std::string text = shown_text(node.scalar);
  return node.quoted ? "\"" + text + "\"" : text;
}

/// Applies values to a Config. The tree is walked by the table, and the table by the tree.
class Reader {
 public:
  explicit Reader(YamlNode root, std::string name) : root_(std::move(root)), name_(std::move(name)) {}

  void override_with(const std::string& assignment);
  Config read();

 private:
  void check_names(const YamlNode& node, const std::string& path) const;
  YamlNode* find(const std::string& path);
  void infer_schedule_kind();
  bool replaced_choice(const ConfigKey& key);
  void check_whole(const Config& config);

  YamlNode root_;
  std::string name_;
};

void Reader::override_with(const std::string& assignment) {
  const std::size_t equals = assignment.find('=');
  if (equals == std::string::npos || equals == 0) {
    throw ConfigError("--set " + shown_text(assignment) + ": expected key.path=value, such as --set model.hidden=512");
  }
  std::string path = assignment.substr(0, equals), text = assignment.substr(equals + 1);
  const std::string place = "--set " + shown_text(path);
  if (const std::size_t dot = path.rfind('.'); dot != std::string::npos && takes_entry(path.substr(0, dot))) {
    text = fmt::format("{{{}: {}}}", path.substr(dot + 1), text);  // train.clip.value=1 is train.clip={value: 1}
    path.resize(dot);
  }
  if (!is_key(path) && !is_group(path)) unknown_key(place, path);
  YamlNode value = parse_yaml(text, place);
  const std::function<void(YamlNode&)> mark = [&](YamlNode& node) {
    node.place = place;
    node.overridden = true;
    for (auto& [key, child] : node.map) mark(child);
    for (YamlNode& child : node.list) mark(child);
  };
  mark(value);

  YamlNode* node = &root_;
  std::string group;
  for (const std::string& part : split_path(path)) {
    if (node->kind == YamlNode::Kind::kEmpty || (group == kSchedule && node->kind == YamlNode::Kind::kScalar)) {
      node->kind = YamlNode::Kind::kMap;  // a group that is empty, or says `schedule: none`, makes room for its keys
      node->scalar.clear();
    }
    if (node->kind != YamlNode::Kind::kMap) {
      throw ConfigError(fmt::format("{}: {} is {}, expected a group of keys to set {} in", node->place,
                                    group.empty() ? "the config" : group, shown(*node), path));
    }
    YamlNode* next = node->find(part);
    if (next == nullptr) {
      YamlNode added;
      added.place = place;
      node->map.push_back({part, std::move(added)});
      next = &node->map.back().value;
    }
    node = next;
    group += (group.empty() ? "" : ".") + part;
  }
  *node = std::move(value);
  if (path != "corpus.text" && path != "corpus.path") return;
  auto& corpus = root_.find("corpus")->map;  // the one replaces the other
  const std::string other = path == "corpus.text" ? "path" : "text";
  corpus.erase(std::remove_if(corpus.begin(), corpus.end(), [&](const auto& entry) { return entry.key == other; }),
               corpus.end());
}

void Reader::check_names(const YamlNode& node, const std::string& path) const {
  for (const auto& [key, child] : node.map) {
    const std::string full = path.empty() ? key : fmt::format("{}.{}", path, key);
    if (is_key(full)) continue;
    if (!is_group(full)) unknown_key(child.place, full);
    if (child.kind == YamlNode::Kind::kMap) {
      check_names(child, full);
    } else if (full != kSchedule) {  // `schedule: none` and the like are read below
      throw ConfigError(fmt::format("{}: {} is {}, expected a group of keys", child.place, full, shown(child)));
    }
  }
}

YamlNode* Reader::find(const std::string& path) {
  YamlNode* node = &root_;
  for (const std::string& part : split_path(path)) {
    node = node->find(part);
    if (node == nullptr) return nullptr;
  }
  return node;
}

/// `schedule: none`, and `{decay: 0.97, after_epoch: 10}` without a kind, are short for what they say.
void Reader::infer_schedule_kind() {
  YamlNode* const schedule = find(kSchedule);
  if (schedule == nullptr) return;
  YamlNode kind;
  kind.kind = YamlNode::Kind::kScalar;
  kind.place = schedule->place;
  if (schedule->kind == YamlNode::Kind::kMap) {
    if (schedule->find("kind") != nullptr) return;
    const bool decays = schedule->find("decay") != nullptr || schedule->find("after_epoch") != nullptr;
    if (!decays) {
      throw ConfigError(
          fmt::format("{}: {} has no kind, expected decay and after_epoch, or kind: cosine | plateau | "
                      "constant",
                      schedule->place, kSchedule));
    }
    kind.scalar = "decay";
  } else if (schedule->kind == YamlNode::Kind::kScalar &&
             (schedule->scalar == "none" || schedule->scalar == "constant")) {
    kind.scalar = "constant";
    schedule->kind = YamlNode::Kind::kMap;
    schedule->scalar.clear();
  } else {
    throw ConfigError(
        fmt::format("{}: {} is {}, expected a group of keys, or none", schedule->place, kSchedule, shown(*schedule)));
  }
  schedule->map.insert(schedule->map.begin(), {"kind", std::move(kind)});
}

/// True if the key stands in the file for a choice that the command line has changed: --set train.optimizer.name=adam
/// makes rmsprop's decay_rate go.
bool Reader::replaced_choice(const ConfigKey& key) {
  const bool of_schedule = key.path.rfind(kSchedule, 0) == 0;
  const YamlNode* const choice = find(of_schedule ? "train.schedule.kind" : "train.optimizer.name");
  return choice != nullptr && choice->overridden;
}

Config Reader::read() {
  if (root_.kind == YamlNode::Kind::kEmpty) root_.kind = YamlNode::Kind::kMap;
  if (root_.kind != YamlNode::Kind::kMap) {
    throw ConfigError(name_ + ": is no group of keys, expected corpus: ..., model: ..., train: ...");
  }
  check_names(root_, "");
  infer_schedule_kind();
  Config config;
  for (const ConfigKey& key : config_keys()) {
    const YamlNode* const node = find(key.path);
    if (node == nullptr) continue;
    if (key.applies && !key.applies(config)) {
      if (!node->overridden && replaced_choice(key)) continue;
      const bool of_schedule = key.path.rfind(kSchedule, 0) == 0;
      throw ConfigError(
          fmt::format("{}: {} does not go with {} {}; remove it", node->place, key.path,
                      of_schedule ? "the schedule" : "the optimizer",
                      of_schedule ? name_of(config.train.schedule.kind) : name_of(config.train.optimizer.name)));
    }
    if (!key.read(config, *node)) {
      throw ConfigError(fmt::format("{}: {} is {}, expected {}", node->place, key.path, shown(*node), key.expected));
    }
  }
  check_whole(config);
  return config;
}

/// What no single key can be blamed for.
void Reader::check_whole(const Config& c) {
  const YamlNode* const path = find("corpus.path");
  const YamlNode* const text = find("corpus.text");
  if (path == nullptr && text == nullptr) {
    throw ConfigError(name_ + ": corpus.path is missing, expected the name of the text to train on (or corpus.text)");
  }
  if (path != nullptr && text != nullptr) {
    throw ConfigError(
        fmt::format("{}: corpus.text stands beside corpus.path ({}), expected one of them", text->place, path->place));
  }
  const std::int64_t characters = std::int64_t{c.train.batch} * c.train.sequence;
  if (characters > kMaxCharacters) {
    const YamlNode* node = find("train.batch");
    if (node == nullptr) node = find("train.sequence");  // one of them, since the defaults' product is small
    throw ConfigError(
        fmt::format("{}: train.batch is {} and train.sequence {}, which makes {} characters a step, expected at "
                    "most {}",
                    node->place, c.train.batch, c.train.sequence, characters, kMaxCharacters));
  }
  const double h = c.model.hidden, parameters = c.model.layers * (2 * gate_count(c.model.cell) * h * (h + 256));
  if (parameters > kMaxParameters) {
    const YamlNode* const hidden = find("model.hidden");
    throw ConfigError(
        fmt::format("{}: model.hidden is {}, which makes {:.3g} parameters with {} layers, expected at most "
                    "{:.0e}",
                    hidden == nullptr ? name_ : hidden->place, c.model.hidden, parameters, c.model.layers,
                    kMaxParameters));
  }
}

}  // namespace

Config parse_config(const std::string& yaml, const std::string& name, const std::vector<std::string>& overrides) {
  Reader reader(parse_yaml(yaml, name), name);
  for (const std::string& assignment : overrides) reader.override_with(assignment);
  return reader.read();
}

Config read_config(const std::filesystem::path& file, const std::vector<std::string>& overrides) {
  std::error_code error;
  const auto status = std::filesystem::status(file, error);
  if (!std::filesystem::exists(status))
    throw ConfigError(file.string() + ": there is no such file; --config takes a YAML file");
  if (std::filesystem::is_directory(status)) throw ConfigError(file.string() + ": is a folder, expected a YAML file");
  std::ifstream in(file, std::ios::binary);
  if (!in) throw ConfigError(file.string() + ": cannot be read; look at its permissions");
  constexpr std::size_t kReadAtMost = (1 << 20) + 1;  // one byte over what parse_yaml takes
  std::string text(kReadAtMost, '\0');
  in.read(text.data(), static_cast<std::streamsize>(text.size()));
  text.resize(static_cast<std::size_t>(in.gcount()));
  return parse_config(text, file.string(), overrides);
}

std::string to_yaml(const Config& config) {
  std::string out;
  std::vector<std::string> open;  // groups that the last key lay in
  for (const ConfigKey& key : config_keys()) {
    if (key.applies && !key.applies(config)) continue;
    const std::string value = key.write(config);
    if (value.empty()) continue;
    if (const std::size_t at = invalid_utf8(value); at != std::string::npos) {
      throw ConfigError(
          fmt::format("{} is not UTF-8 (byte {}), expected what a YAML file can hold; use another name", key.path, at));
    }
    std::vector<std::string> parts = split_path(key.path);
    const std::string name = parts.back();
    parts.pop_back();
    for (std::size_t depth = 0; depth < parts.size(); ++depth) {
      if (depth < open.size() && open[depth] == parts[depth]) continue;
      open.resize(depth);
      open.push_back(parts[depth]);
      out += fmt::format("{:{}}{}:\n", "", 2 * depth, parts[depth]);
    }
    open.resize(parts.size());
    std::string line = fmt::format("{:{}}{}: {}", "", 2 * parts.size(), name, value);
    constexpr std::size_t kCommentColumn = 34;
    if (!key.comment.empty()) {
      line.resize(std::max(line.size() + 2, kCommentColumn), ' ');
      line += "# " + key.comment;
    }
    out += line + "\n";
  }
  return out;
}

std::vector<std::string> training_differences(const Config& here, const Config& in_checkpoint) {
  std::vector<std::string> differences;
  for (const ConfigKey& key : config_keys()) {
    if (!key.fixed) continue;
    const bool applies_here = !key.applies || key.applies(here),
               applies_there = !key.applies || key.applies(in_checkpoint);
    if (!applies_here || !applies_there) continue;  // the choice itself differs, and is named
    const std::string a = key.write(here), b = key.write(in_checkpoint);
    if (a != b) differences.push_back(fmt::format("{} is {} here, {} in the checkpoint", key.path, a, b));
  }
  return differences;
}

}  // namespace charrnn
