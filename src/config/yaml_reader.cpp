#include "config/yaml_reader.h"

#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/yaml.h>

#include <optional>
#include <sstream>

#include "charrnn/error.h"

namespace charrnn {

namespace {

constexpr std::size_t kMaxBytes = 1 << 20;
constexpr std::size_t kMaxDepth = 16;  // our deepest key has 3 parts
constexpr std::size_t kMaxNodes = 100'000;
constexpr std::size_t kMaxKeys = 500;  // in one group, which find() searches key by key

class TreeBuilder final : public YAML::EventHandler {
 public:
  explicit TreeBuilder(std::string name) : name_(std::move(name)) {}

  std::optional<YamlNode> root;

  void OnDocumentStart(const YAML::Mark& mark) override {
    if (started_) fail(mark, "a second document starts here, expected one; remove the line ---");
    started_ = true;
  }
  void OnDocumentEnd() override {}
  void OnNull(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    check(mark, "", anchor);
    add(make(mark, YamlNode::Kind::kEmpty));
  }
  void OnAlias(const YAML::Mark& mark, YAML::anchor_t) override {
    fail(mark, path() + " is an alias (*name), expected a plain value; write it out");
  }
  void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                const std::string& value) override {
    check(mark, tag, anchor);
    YamlNode node = make(mark, YamlNode::Kind::kScalar);
    node.scalar = value;
    node.quoted = tag == "!";
    add(std::move(node));
  }
  void OnSequenceStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                       YAML::EmitterStyle::value) override {
    check(mark, tag, anchor);
    open(make(mark, YamlNode::Kind::kList), mark);
  }
  void OnSequenceEnd() override { close(); }
  void OnMapStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                  YAML::EmitterStyle::value) override {
    check(mark, tag, anchor);
    open(make(mark, YamlNode::Kind::kMap), mark);
  }
  void OnMapEnd() override { close(); }

 private:
  struct Level {
    YamlNode node;
    std::optional<YamlNode> key;  // of the map entry whose value comes next
  };

  [[noreturn]] static void fail_at(const std::string& place, const std::string& what) {
    throw ConfigError(place + ": " + what);
  }
  [[noreturn]] void fail(const YAML::Mark& mark, const std::string& what) const {
    throw ConfigError(name_ + ":" + std::to_string(mark.line + 1) + ": " + what);
  }

  /// The key whose value is being read.
  std::string path() const {
    std::string out;
    for (const Level& level : levels_) {
      if (level.key) out += (out.empty() ? "" : ".") + shown_text(level.key->scalar);
    }
    return out.empty() ? "the config" : out;
  }

  void check(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor) const {
    if (anchor != 0) fail(mark, path() + " has an anchor (&name), expected a plain value; remove it");
    if (!tag.empty() && tag != "?" && tag != "!") {
      fail(mark, path() + " has the tag " + shown_text(tag) + ", expected a plain value; remove the tag");
    }
  }

  YamlNode make(const YAML::Mark& mark, YamlNode::Kind kind) {
    if (++nodes_ > kMaxNodes) fail(mark, "more than " + std::to_string(kMaxNodes) + " values stand here");
    YamlNode node;
    node.kind = kind;
    node.place = name_ + ":" + std::to_string(mark.line + 1);
    return node;
  }

  void open(YamlNode node, const YAML::Mark& mark) {
    if (levels_.size() >= kMaxDepth)
      fail(mark, "more than " + std::to_string(kMaxDepth) + " groups or lists are nested here, expected at most 3");
    levels_.push_back({std::move(node), {}});
  }

  void close() {
    YamlNode node = std::move(levels_.back().node);
    levels_.pop_back();
    add(std::move(node));
  }

  void add(YamlNode node) {
    if (levels_.empty()) {
      root = std::move(node);
      return;
    }
    Level& level = levels_.back();
    if (level.node.kind == YamlNode::Kind::kList) {
      level.node.list.push_back(std::move(node));
    } else if (!level.key) {
      if (node.kind != YamlNode::Kind::kScalar)
        fail_at(node.place, path() + " has a key that is no name, expected name: value");
      level.key = std::move(node);
      check_key(level);
    } else {
      if (node.kind == YamlNode::Kind::kEmpty) node.place = level.key->place;  // yaml-cpp places it on the next line
      node.place = level.key->place;  // what a person looks for, and yaml-cpp puts an empty value on the next line
      level.node.map.push_back({level.key->scalar, std::move(node)});
      level.key.reset();
    }
  }

  void check_key(Level& level) const {
    const YamlNode& key = *level.key;
    if (key.scalar == "<<")
      fail_at(key.place, path() + " is a merge key, expected the keys themselves; write them out");
    if (key.scalar.find('.') != std::string::npos) {
      fail_at(key.place, path() + " has a dot in a key, expected one key inside the other; write a.b as a: {b: ...}");
    }
    if (const YamlNode* first = level.node.find(key.scalar)) {
      fail_at(key.place, path() + " stands twice (first at " + first->place + "), expected once; remove one of them");
    }
    if (level.node.map.size() >= kMaxKeys) {
      fail_at(key.place,
              "more than " + std::to_string(kMaxKeys) + " keys stand in one group, expected those of a config");
    }
  }

  std::string name_;
  bool started_ = false;
  std::size_t nodes_ = 0;
  std::vector<Level> levels_;
};

}  // namespace

std::size_t invalid_utf8(const std::string& text) {
  std::size_t i = 0;
  while (i < text.size()) {
    const auto byte = [&](std::size_t k) { return i + k < text.size() ? static_cast<unsigned char>(text[i + k]) : 0U; };
    const auto is_next = [&](std::size_t k) { return (byte(k) & 0xC0U) == 0x80U; };
    const unsigned first = byte(0);
    std::size_t length = 0;
    if (first < 0x80) {
      length = 1;
    } else if (first >= 0xC2 && first < 0xE0) {
      length = is_next(1) ? 2 : 0;
    } else if (first >= 0xE0 && first < 0xF0) {
      const bool overlong = first == 0xE0 && byte(1) < 0xA0, surrogate = first == 0xED && byte(1) >= 0xA0;
      length = is_next(1) && is_next(2) && !overlong && !surrogate ? 3 : 0;
    } else if (first >= 0xF0 && first < 0xF5) {
      const bool overlong = first == 0xF0 && byte(1) < 0x90, beyond = first == 0xF4 && byte(1) >= 0x90;
      length = is_next(1) && is_next(2) && is_next(3) && !overlong && !beyond ? 4 : 0;
    }
    if (length == 0) return i;
    i += length;
  }
  return std::string::npos;
}

std::string shown_text(const std::string& text) {
  constexpr std::size_t kMost = 60;
  std::string out;
  for (const char c : text) {
    if (out.size() >= kMost && (static_cast<unsigned char>(c) & 0xC0U) != 0x80U)
      return out + "...";  // between characters
    const auto byte = static_cast<unsigned char>(c);
    if (c == '\n') {
      out += "\\n";
    } else if (byte < 0x20 || byte == 0x7F) {
      constexpr const char* kDigits = "0123456789abcdef";
      out += {'\\', 'x', kDigits[byte >> 4U], kDigits[byte & 15U]};
    } else {
      out += c;
    }
  }
  return out;
}

YamlNode* YamlNode::find(const std::string& key) {
  for (auto& [name, node] : map) {
    if (name == key) return &node;
  }
  return nullptr;
}

YamlNode parse_yaml(const std::string& text, const std::string& name) {
  if (text.size() > kMaxBytes) {
    throw ConfigError(name + ": has more bytes than the " + std::to_string(kMaxBytes) + " of the largest config" +
                      "; is this the text to train on? It goes to corpus.path");
  }
  if (const std::size_t at = text.find('\0'); at != std::string::npos) {
    throw ConfigError(name + ": holds a NUL byte at offset " + std::to_string(at) + "; a config is a text file");
  }
  if (const std::size_t at = invalid_utf8(text); at != std::string::npos) {
    throw ConfigError(name + ": is not UTF-8 at offset " + std::to_string(at) + "; save it as UTF-8");
  }
  TreeBuilder builder(name);
  try {
    std::istringstream in(text);
    YAML::Parser parser(in);
    while (parser.HandleNextDocument(builder)) {
    }
  } catch (const YAML::Exception& e) {
    const std::string line = e.mark.is_null() ? "" : ":" + std::to_string(e.mark.line + 1);
    throw ConfigError(name + line + ": is not YAML: " + shown_text(e.msg));
  }
  return builder.root.value_or(YamlNode{});
}

}  // namespace charrnn
