#include "config/schema.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <optional>

namespace charrnn {

namespace {

using Kind = YamlNode::Kind;

/// Plain decimal digits only: no sign +, no leading zeros (octal to some), no 0x, no underscores.
bool looks_decimal(const std::string& s) {
  std::size_t i = !s.empty() && s[0] == '-' ? 1 : 0;
  if (i >= s.size()) return false;
  return !(s[i] == '0' && i + 1 < s.size() && s[i + 1] >= '0' && s[i + 1] <= '9');
}

template <class Number>
std::optional<Number> parse_number(const YamlNode& node) {
  if (node.kind != Kind::kScalar || node.quoted || !looks_decimal(node.scalar)) return {};
  Number value{};
  const char* const end = node.scalar.data() + node.scalar.size();
  const auto [stop, error] = std::from_chars(node.scalar.data(), end, value);
  if (error != std::errc{} || stop != end) return {};
  if constexpr (std::is_floating_point_v<Number>) {
    if (!std::isfinite(value)) return {};
  }
  return value;
}

// So that the written config, with its escapes, stays below the largest that is read.
constexpr std::size_t kLongestText = 65'536;
constexpr std::size_t kLongestPath = 4096;
constexpr std::size_t kMostSteps = 10'000;
// Of the numbers that must be above 0: what a float holds with room for arithmetic.
constexpr double kSmallest = 1e-30, kLargest = 1e30;

/// What can name a file: not empty, and no NUL, which would end it early.
bool is_path(const YamlNode& node) {
  return node.kind == Kind::kScalar && !node.scalar.empty() && node.scalar.size() <= kLongestPath &&
         node.scalar.find('\0') == std::string::npos;
}

bool is_text(const YamlNode& node) { return node.kind == Kind::kScalar && node.scalar.size() <= kLongestText; }

/// auto | cpu | cuda | cuda:N
bool is_device(const std::string& name) {
  if (name == "auto" || name == "cpu" || name == "cuda") return true;
  const std::string prefix = "cuda:", number = name.substr(std::min(prefix.size(), name.size()));
  return name.rfind(prefix, 0) == 0 && !number.empty() && number.size() <= 3 &&
         number.find_first_not_of("0123456789") == std::string::npos;
}

/// A string in double quotes, with escapes, as YAML reads it back.
std::string quote(const std::string& text) {
  std::string out = "\"";
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    switch (c) {
      case '"': out += "\\\""; break;
      case '\\': out += "\\\\"; break;
      case '\n': out += "\\n"; break;
      case '\r': out += "\\r"; break;
      case '\t': out += "\\t"; break;
      default:
        if (byte < 0x20 || byte == 0x7F) {
          out += fmt::format("\\x{:02x}", byte);
        } else {
          out += c;  // a part of UTF-8
        }
    }
  }
  return out + "\"";
}

template <class Access>
using FieldOf = std::remove_reference_t<std::invoke_result_t<Access, Config&>>;

/// A whole number in [low, high]. `at` gives the field.
template <class Access>
ConfigKey whole(std::string path, std::string comment, std::int64_t low, std::int64_t high, Access at) {
  ConfigKey key;
  key.path = std::move(path);
  key.comment = std::move(comment);
  key.expected = high == INT64_MAX ? fmt::format("a whole number, {} or more", low)
                                   : fmt::format("a whole number from {} to {}", low, high);
  key.read = [=](Config& c, const YamlNode& node) {
    const auto value = parse_number<std::int64_t>(node);
    if (!value || *value < low || *value > high) return false;
    at(c) = static_cast<FieldOf<Access>>(*value);
    return true;
  };
  key.write = [=](const Config& c) { return fmt::format("{}", at(const_cast<Config&>(c))); };
  return key;
}

enum class Bound { kClosed, kOpen };

/// A number in the interval from low to high.
template <class Access>
ConfigKey number(std::string path, std::string comment, Bound below, double low, double high, Bound above, Access at) {
  ConfigKey key;
  key.path = std::move(path);
  key.comment = std::move(comment);
  key.expected = fmt::format("a number in {}{}, {}{}", below == Bound::kOpen ? '(' : '[', low, high,
                             above == Bound::kOpen ? ')' : ']');
  key.read = [=](Config& c, const YamlNode& node) {
    const auto value = parse_number<double>(node);
    if (!value || *value < low || *value > high) return false;
    if ((below == Bound::kOpen && *value == low) || (above == Bound::kOpen && *value == high)) return false;
    at(c) = *value;
    return true;
  };
  key.write = [=](const Config& c) { return fmt::format("{}", at(const_cast<Config&>(c))); };
  return key;
}

/// Above 0, and so that the engine's float holds it.
template <class Access>
ConfigKey positive(std::string path, std::string comment, Access at) {
  return number(std::move(path), std::move(comment), Bound::kClosed, kSmallest, kLargest, Bound::kClosed, at);
}

/// One of a few names.
template <class Value, class Access>
ConfigKey choice(std::string path, std::string comment, std::vector<Value> values, Access at) {
  ConfigKey key;
  key.path = std::move(path);
  key.comment = std::move(comment);
  for (const Value v : values) key.expected += (key.expected.empty() ? "" : " | ") + std::string(name_of(v));
  key.read = [=](Config& c, const YamlNode& node) {
    for (const Value v : values) {
      if (node.kind != Kind::kScalar || node.scalar != name_of(v)) continue;
      at(c) = v;
      return true;
    }
    return false;
  };
  key.write = [=](const Config& c) { return std::string(name_of(at(const_cast<Config&>(c)))); };
  return key;
}

/// A name: see is_path().
template <class Access>
ConfigKey text(std::string path, std::string comment, std::string expected, Access at) {
  ConfigKey key;
  key.path = std::move(path);
  key.comment = std::move(comment);
  key.expected = std::move(expected);
  key.read = [=](Config& c, const YamlNode& node) {
    if (!is_path(node)) return false;
    at(c) = node.scalar;
    return true;
  };
  key.write = [=](const Config& c) { return quote(at(const_cast<Config&>(c))); };
  return key;
}

/// `{name: number}` with one of a few names, such as `{value: 5.0}`.
const YamlNode* single_entry(const YamlNode& node, const std::string& name) {
  return node.kind == Kind::kMap && node.map.size() == 1 && node.map[0].key == name ? &node.map[0].value : nullptr;
}

ConfigKey split_key() {
  ConfigKey key;
  key.path = "corpus.split";
  key.comment = "train, validation, test";
  key.expected = "three numbers in [0, 1] that sum to 1, the first above 0";
  key.read = [](Config& c, const YamlNode& node) {
    if (node.kind != Kind::kList || node.list.size() != 3) return false;
    double sum = 0;
    for (std::size_t i = 0; i < 3; ++i) {
      const auto value = parse_number<double>(node.list[i]);
      if (!value || *value < 0 || *value > 1) return false;
      c.corpus.split[i] = *value;
      sum += *value;
    }
    return c.corpus.split[0] > 0 && std::abs(sum - 1) < 1e-9;
  };
  key.write = [](const Config& c) {
    return fmt::format("[{}, {}, {}]", c.corpus.split[0], c.corpus.split[1], c.corpus.split[2]);
  };
  return key;
}

ConfigKey init_key() {
  ConfigKey key;
  key.path = "model.init";
  key.takes_entry = true;
  key.comment = "{uniform: half-width} or {normal: standard deviation}";
  key.expected = "{uniform: x} or {normal: x} with x above 0 (from 1e-30 to 1e+30)";
  key.read = [](Config& c, const YamlNode& node) {
    for (const auto kind : {InitConfig::Kind::kUniform, InitConfig::Kind::kNormal}) {
      const YamlNode* const scale = single_entry(node, kind == InitConfig::Kind::kUniform ? "uniform" : "normal");
      if (scale == nullptr) continue;
      const auto value = parse_number<double>(*scale);
      if (!value || *value < kSmallest || *value > kLargest) return false;
      c.model.init = {kind, *value};
      return true;
    }
    return false;
  };
  key.write = [](const Config& c) {
    return fmt::format("{{{}: {}}}", c.model.init.kind == InitConfig::Kind::kUniform ? "uniform" : "normal",
                       c.model.init.scale);
  };
  return key;
}

ConfigKey clip_key() {
  ConfigKey key;
  key.path = "train.clip";
  key.takes_entry = true;
  key.comment = "{value: x}, {norm: x} or none; on the gradient of the mean nats per character";
  key.expected = "{value: x} or {norm: x} with x above 0 (from 1e-30 to 1e+30), or none";
  key.read = [](Config& c, const YamlNode& node) {
    if (node.kind == Kind::kScalar && node.scalar == "none") {
      c.train.clip = {ClipConfig::Kind::kNone, ClipConfig{}.threshold};
      return true;
    }
    for (const auto kind : {ClipConfig::Kind::kValue, ClipConfig::Kind::kNorm}) {
      const YamlNode* const threshold = single_entry(node, kind == ClipConfig::Kind::kValue ? "value" : "norm");
      if (threshold == nullptr) continue;
      const auto value = parse_number<double>(*threshold);
      if (!value || *value < kSmallest || *value > kLargest) return false;
      c.train.clip = {kind, *value};
      return true;
    }
    return false;
  };
  key.write = [](const Config& c) -> std::string {
    if (c.train.clip.kind == ClipConfig::Kind::kNone) return "none";
    return fmt::format("{{{}: {}}}", c.train.clip.kind == ClipConfig::Kind::kValue ? "value" : "norm",
                       c.train.clip.threshold);
  };
  return key;
}

ConfigKey seed_key() {
  ConfigKey key;
  key.path = "train.seed";
  key.comment = "weights, dropout and samples follow from it";
  key.expected = "a whole number from 0 to 18446744073709551615";
  key.read = [](Config& c, const YamlNode& node) {
    const auto value = parse_number<std::uint64_t>(node);
    if (value) c.train.seed = *value;
    return value.has_value();
  };
  key.write = [](const Config& c) { return fmt::format("{}", c.train.seed); };
  return key;
}

ConfigKey cell_key() {
  ConfigKey key;
  key.path = "model.cell";
  key.comment = "lstm | gru | rnn";
  key.expected = "lstm | gru | rnn";
  key.read = [](Config& c, const YamlNode& node) {
    for (const Cell cell : {Cell::kLstm, Cell::kGru, Cell::kRnnTanh}) {
      if (node.kind != Kind::kScalar || node.scalar != name_of(cell)) continue;
      c.model.cell = cell;
      return true;
    }
    return false;
  };
  key.write = [](const Config& c) { return std::string(name_of(c.model.cell)); };
  return key;
}

ConfigKey nonlinearity_key() {
  const auto field = [](Config & c) -> auto& { return c.model.nonlinearity; };
  ConfigKey key = choice<Nonlinearity>("model.nonlinearity", "of the rnn cell: tanh | relu",
                                       {Nonlinearity::kTanh, Nonlinearity::kRelu}, field);
  const auto read = key.read;
  key.read = [read](Config& c, const YamlNode& node) {
    if (!read(c, node)) return false;
    if (c.model.cell == Cell::kRnnTanh && c.model.nonlinearity == Nonlinearity::kRelu) c.model.cell = Cell::kRnnRelu;
    return true;
  };
  return key;
}

ConfigKey sample_at_key() {
  ConfigKey key;
  key.path = "sample.at";
  key.comment = "steps";
  key.expected = fmt::format("a list of at most {} steps, each a whole number, 1 or more", kMostSteps);
  key.read = [](Config& c, const YamlNode& node) {
    if (node.kind != Kind::kList || node.list.size() > kMostSteps) return false;
    c.sample.at.clear();
    for (const YamlNode& item : node.list) {
      const auto value = parse_number<std::int64_t>(item);
      if (!value || *value < 1) return false;
      c.sample.at.push_back(*value);
    }
    return true;
  };
  key.write = [](const Config& c) { return fmt::format("[{}]", fmt::join(c.sample.at, ", ")); };
  return key;
}

/// What is there or not: corpus.path, corpus.text, init_from.
ConfigKey corpus_path_key() {
  ConfigKey key;
  key.path = "corpus.path";
  key.comment = "the text to train on";
  key.expected = "the name of a file";
  key.read = [](Config& c, const YamlNode& node) {
    if (!is_path(node)) return false;
    c.corpus.path = node.scalar;
    return true;
  };
  key.write = [](const Config& c) { return c.corpus.text ? "" : quote(c.corpus.path); };
  return key;
}

ConfigKey corpus_text_key() {
  ConfigKey key;
  key.path = "corpus.text";
  key.comment = "the text itself";
  key.expected =
      fmt::format("a text of at most {} bytes; a longer one goes into a file, named by corpus.path", kLongestText);
  key.read = [](Config& c, const YamlNode& node) {
    if (!is_text(node)) return false;
    c.corpus.text = node.scalar;
    return true;
  };
  key.write = [](const Config& c) { return c.corpus.text ? quote(*c.corpus.text) : ""; };
  return key;
}

ConfigKey encoding_key() {
  ConfigKey key = text(
      "corpus.encoding", "what a character is", "bytes", [](Config & c) -> auto& { return c.corpus.encoding; });
  const auto read = key.read;
  key.read = [read](Config& c, const YamlNode& node) { return node.scalar == "bytes" && read(c, node); };
  key.write = [](const Config& c) { return c.corpus.encoding; };
  return key;
}

ConfigKey prime_key() {
  ConfigKey key = text(
      "sample.prime", "what samples start from; empty: a random character",
      fmt::format("a text of at most {} bytes, in quotes", kLongestText),
      [](Config & c) -> auto& { return c.sample.prime; });
  key.read = [](Config& c, const YamlNode& node) {
    if (!is_text(node)) return false;
    c.sample.prime = node.scalar;
    return true;
  };
  return key;
}

ConfigKey init_from_key() {
  ConfigKey key;
  key.path = "init_from";
  key.comment = "a run or checkpoint to take the weights from; none: fresh weights";
  key.expected = "the folder of a run or a checkpoint, or none";
  key.read = [](Config& c, const YamlNode& node) {
    if (!is_path(node)) return false;
    c.init_from.reset();
    if (node.quoted || node.scalar != "none") c.init_from = node.scalar;
    return true;
  };
  key.write = [](const Config& c) { return c.init_from ? quote(*c.init_from) : "none"; };
  return key;
}

ConfigKey device_key() {
  ConfigKey key = text(
      "run.device", "auto | cpu | cuda | cuda:N", "auto, cpu, cuda or cuda:N",
      [](Config & c) -> auto& { return c.run.device; });
  const auto read = key.read;
  key.read = [read](Config& c, const YamlNode& node) { return is_device(node.scalar) && read(c, node); };
  key.write = [](const Config& c) { return c.run.device; };
  return key;
}

ConfigKey only_for(ConfigKey key, OptimizerKind kind) {
  key.applies = [kind](const Config& c) { return c.train.optimizer.name == kind; };
  return key;
}

ConfigKey only_for(ConfigKey key, ScheduleConfig::Kind kind) {
  key.applies = [kind](const Config& c) { return c.train.schedule.kind == kind; };
  return key;
}

std::vector<ConfigKey> make_keys() {
  using Optimizer = OptimizerKind;
  using Schedule = ScheduleConfig::Kind;
  constexpr std::int64_t kAny = INT64_MAX;
  std::vector<ConfigKey> keys{
      corpus_path_key(),
      corpus_text_key(),
      encoding_key(),
      split_key(),
      choice<SplitBy>(
          "corpus.split_by", "tail: the end is held out | stream: the last windows of each lane",
          {SplitBy::kTail, SplitBy::kStream}, [](Config & c) -> auto& { return c.corpus.split_by; }),
      cell_key(),
      nonlinearity_key(),
      whole(
          "model.layers", "", 1, kMaxLayers, [](Config & c) -> auto& { return c.model.layers; }),
      whole(
          "model.hidden", "units a layer", 1, kMaxHidden, [](Config & c) -> auto& { return c.model.hidden; }),
      number(
          "model.dropout", "between layers and before the output", Bound::kClosed, 0, 0.999, Bound::kClosed,
          [](Config & c) -> auto& { return c.model.dropout; }),
      number(
          "model.forget_bias", "of the lstm cell", Bound::kClosed, -100, 100, Bound::kClosed,
          [](Config & c) -> auto& { return c.model.forget_bias; }),
      init_key(),
      whole(
          "train.batch", "lanes", 1, kMaxBatch, [](Config & c) -> auto& { return c.train.batch; }),
      whole(
          "train.sequence", "characters of truncated back-propagation", 1, kMaxSteps,
          [](Config & c) -> auto& { return c.train.sequence; }),
      whole(
          "train.epochs", "", 1, 1'000'000'000, [](Config & c) -> auto& { return c.train.epochs; }),
      choice<Optimizer>(
          "train.optimizer.name", "rmsprop | adam | adagrad | sgd",
          {Optimizer::kRmsprop, Optimizer::kAdam, Optimizer::kAdagrad, Optimizer::kSgd},
          [](Config & c) -> auto& { return c.train.optimizer.name; }),
      positive(
          "train.optimizer.learning_rate", "", [](Config & c) -> auto& { return c.train.optimizer.learning_rate; }),
      only_for(number(
                   "train.optimizer.decay_rate", "of the mean square", Bound::kClosed, 0, 1, Bound::kOpen,
                   [](Config & c) -> auto& { return c.train.optimizer.decay_rate; }),
               Optimizer::kRmsprop),
      only_for(number(
                   "train.optimizer.beta1", "of the mean", Bound::kClosed, 0, 1, Bound::kOpen,
                   [](Config & c) -> auto& { return c.train.optimizer.beta1; }),
               Optimizer::kAdam),
      only_for(number(
                   "train.optimizer.beta2", "of the mean square", Bound::kClosed, 0, 1, Bound::kOpen,
                   [](Config & c) -> auto& { return c.train.optimizer.beta2; }),
               Optimizer::kAdam),
      only_for(number(
                   "train.optimizer.momentum", "", Bound::kClosed, 0, 1, Bound::kOpen,
                   [](Config & c) -> auto& { return c.train.optimizer.momentum; }),
               Optimizer::kSgd),
      positive(
          "train.optimizer.epsilon", "", [](Config & c) -> auto& { return c.train.optimizer.epsilon; }),
      choice<Schedule>(
          "train.schedule.kind", "constant | decay | cosine | plateau",
          {Schedule::kConstant, Schedule::kDecay, Schedule::kCosine, Schedule::kPlateau},
          [](Config & c) -> auto& { return c.train.schedule.kind; }),
      only_for(number(
                   "train.schedule.decay", "factor at each epoch's end ...", Bound::kOpen, 0, 1, Bound::kClosed,
                   [](Config & c) -> auto& { return c.train.schedule.decay; }),
               Schedule::kDecay),
      only_for(whole(
                   "train.schedule.after_epoch", "... from the end of this epoch on", 1, 1'000'000'000,
                   [](Config & c) -> auto& { return c.train.schedule.after_epoch; }),
               Schedule::kDecay),
      only_for(whole(
                   "train.schedule.warmup_steps", "linear from 0", 0, kAny,
                   [](Config & c) -> auto& { return c.train.schedule.warmup_steps; }),
               Schedule::kCosine),
      only_for(number(
                   "train.schedule.final", "share of the learning rate at the last step", Bound::kClosed, 0, 1,
                   Bound::kClosed, [](Config & c) -> auto& { return c.train.schedule.final_fraction; }),
               Schedule::kCosine),
      only_for(number(
                   "train.schedule.factor", "when validation gets no better", Bound::kOpen, 0, 1, Bound::kOpen,
                   [](Config & c) -> auto& { return c.train.schedule.factor; }),
               Schedule::kPlateau),
      only_for(whole(
                   "train.schedule.patience", "validations without improvement before that", 0, 1'000'000,
                   [](Config & c) -> auto& { return c.train.schedule.patience; }),
               Schedule::kPlateau),
      clip_key(),
      seed_key(),
      choice<Precision>(
          "train.precision", "auto is the first that the device has natively of bf16, fp16, fp32",
          {Precision::kAuto, Precision::kFp32, Precision::kBf16, Precision::kTf32, Precision::kFp16},
          [](Config & c) -> auto& { return c.train.precision; }),
      whole(
          "train.skip_limit", "updates skipped in a row for NaN or infinity before the run ends", 1, 1'000'000'000,
          [](Config & c) -> auto& { return c.train.skip_limit; }),
      whole(
          "validate.every", "steps; 0: only at the end", 0, kAny, [](Config & c) -> auto& { return c.validate.every; }),
      whole(
          "validate.characters", "at most so many, always the same", 1, kAny,
          [](Config & c) -> auto& { return c.validate.characters; }),
      whole(
          "validate.patience", "validations without improvement before the run ends; 0: never", 0, 1'000'000'000,
          [](Config & c) -> auto& { return c.validate.patience; }),
      whole(
          "checkpoint.every", "steps; 0: only at the end", 0, kAny,
          [](Config & c) -> auto& { return c.checkpoint.every; }),
      whole(
          "checkpoint.keep", "the newest so many, besides the best", 1, 1'000'000,
          [](Config & c) -> auto& { return c.checkpoint.keep; }),
      sample_at_key(),
      whole(
          "sample.every", "steps; 0: only at those above", 0, kAny, [](Config & c) -> auto& { return c.sample.every; }),
      whole(
          "sample.length", "characters", 1, 100'000'000, [](Config & c) -> auto& { return c.sample.length; }),
      positive(
          "sample.temperature", "", [](Config & c) -> auto& { return c.sample.temperature; }),
      prime_key(),
      text(
          "run.dir", "the run's folder", "the name of a folder", [](Config & c) -> auto& { return c.run.dir; }),
      device_key(),
      choice<Implementation>(
          "run.implementation", "of the recurrence on a GPU: auto | cudnn | fused",
          {Implementation::kAuto, Implementation::kCudnn, Implementation::kFused},
          [](Config & c) -> auto& { return c.run.implementation; }),
      init_from_key(),
  };
  // What the weights follow from. The text's own identity is its sha256, and epochs only say when to end.
  for (ConfigKey& key : keys) {
    const bool part =
        key.path.rfind("corpus.", 0) == 0 || key.path.rfind("model.", 0) == 0 || key.path.rfind("train.", 0) == 0;
    key.fixed = part && key.path != "corpus.path" && key.path != "corpus.text" && key.path != "train.epochs";
  }
  return keys;
}

}  // namespace

const std::vector<ConfigKey>& config_keys() {
  static const std::vector<ConfigKey> keys = make_keys();
  return keys;
}

}  // namespace charrnn
