// The format is described for readers in other languages in docs/checkpoint.md; keep the two in step.
#include "charrnn/checkpoint.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include <array>
#include <charconv>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <variant>

#include "backend/parameter_layout.h"
#include "charrnn/error.h"
#include "io/files.h"
#include "io/manifest.h"
#include "io/run_folder.h"
#include "io/safetensors.h"
#include "io/sha256.h"
#include "io/strict_json.h"

namespace charrnn {

namespace {

constexpr std::string_view kFormat = "charrnn-1";  // of both safetensors files, in their metadata
constexpr std::uintmax_t kMaxManifestBytes = 1 << 16;

using Shape = std::vector<std::uint64_t>;

Shape shape_of(const ParameterTensor& t) { return t.cols == 0 ? Shape{t.rows} : Shape{t.rows, t.cols}; }

Shape lanes_shape(const NetworkShape& shape, int batch) {  // [L,B,H]
  return {static_cast<std::uint64_t>(shape.layers), static_cast<std::uint64_t>(batch),
          static_cast<std::uint64_t>(shape.hidden)};
}

std::size_t count_of(const Shape& shape) {
  std::size_t count = 1;
  for (const std::uint64_t extent : shape) count *= extent;
  return count;
}

/// Every scalar of the training state, by its name in the file.
template <class State, class Visit>
void for_each_scalar(State& s, Visit visit) {
  visit("step", s.step);
  visit("batch", s.batch);
  visit("best_validation", s.best_validation);
  visit("best_step", s.best_step);
  visit("validations_without_best", s.validations_without_best);
  visit("plateau_scale", s.plateau_scale);
  visit("scheduled_best", s.scheduled_best);
  visit("plateau_bad", s.plateau_bad);
  visit("skipped_in_a_row", s.skipped_in_a_row);
  visit("skipped_total", s.skipped_total);
  visit("text_sha256", s.text_sha256);
  visit("text_characters", s.text_characters);
  visit("machine", s.machine);
  visit("threads", s.threads);
  visit("due_metrics", s.due_metrics);
  visit("metrics_bytes", s.metrics_bytes);
  visit("samples_bytes", s.samples_bytes);
}

/// The same for those that checkpoints of earlier versions lack: they keep their defaults then.
template <class State, class Visit>
void for_each_later_scalar(State& s, Visit visit) {
  visit("loss_scale", s.loss_scale);
  visit("since_overflow", s.since_overflow);
}

// ---- writing

std::string state_json(const TrainingState& state) {
  nlohmann::ordered_json json = nlohmann::ordered_json::object();
  const auto put = [&json](const char* name, const auto& value) {
    if constexpr (std::is_floating_point_v<std::decay_t<decltype(value)>>) {
      // Written with as many digits as bring the same bits back. JSON has no infinity: null is "none yet".
      json[name] = std::isfinite(value) ? nlohmann::ordered_json(value) : nlohmann::ordered_json(nullptr);
    } else {
      json[name] = value;
    }
  };
  for_each_scalar(state, put);
  for_each_later_scalar(state, put);
  return json.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

void check_size(const char* what, std::size_t found, std::size_t expected) {
  if (found != expected) {
    throw ShapeError(fmt::format("checkpoint: {} has {} floats, expected {}", what, found, expected));
  }
}

std::vector<TensorToWrite> arena_tensors(const ParameterLayout& layout, const std::string& prefix,
                                         const std::vector<float>& arena) {
  std::vector<TensorToWrite> tensors;
  for (const ParameterTensor& t : layout.tensors()) {
    tensors.push_back({prefix + t.name, shape_of(t), std::span(arena).subspan(t.offset, t.count())});
  }
  return tensors;
}

/// Writes a safetensors file and says what the manifest has to say of it.
Manifest::File write_tensors(const fs::path& folder, std::string_view name, const std::vector<TensorToWrite>& tensors,
                             const std::map<std::string, std::string>& metadata) {
  const std::string header = format_safetensors_header(tensors, metadata);
  std::vector<std::string_view> pieces{header};
  for (const TensorToWrite& t : tensors) pieces.push_back(tensor_bytes(t.values));
  Manifest::File entry{std::string(name), 0, {}};
  Sha256 hash;
  for (const std::string_view piece : pieces) {
    entry.bytes += piece.size();
    hash.update(piece);
  }
  entry.sha256 = hash.hex();
  write_new_file(folder / name, pieces);
  return entry;
}

Manifest::File write_model(const fs::path& folder, const Checkpoint& checkpoint, const ParameterLayout& layout) {
  const auto bytes = checkpoint.vocabulary.bytes();
  std::map<std::string, std::string> metadata{{"format", std::string(kFormat)},
                                              {"config", to_yaml(checkpoint.config)},
                                              {"vocabulary",
                                               nlohmann::json(std::vector<int>(bytes.begin(), bytes.end())).dump()},
                                              {"step", std::to_string(checkpoint.step)}};
  if (std::isfinite(checkpoint.validation_nats)) {
    metadata["validation_nats_per_char"] = fmt::format("{}", checkpoint.validation_nats);  // shortest that comes back
  }
  return write_tensors(folder, kModelFile, arena_tensors(layout, "", checkpoint.parameters), metadata);
}

Manifest::File write_state(const fs::path& folder, const Checkpoint& checkpoint, const ParameterLayout& layout) {
  const TrainingState& state = *checkpoint.state;
  std::vector<TensorToWrite> tensors;
  const auto add_arena = [&](const std::string& prefix, const std::vector<float>& arena) {
    if (arena.empty()) return;
    for (TensorToWrite& t : arena_tensors(layout, prefix, arena)) tensors.push_back(std::move(t));
  };
  add_arena("moment1.", state.moment1);
  add_arena("moment2.", state.moment2);
  const Shape lanes = lanes_shape(layout.shape(), state.batch);
  tensors.push_back({"h", lanes, state.h});
  if (has_cell_state(layout.shape().cell)) tensors.push_back({"c", lanes, state.c});
  return write_tensors(folder, kStateFile, tensors, {{"format", std::string(kFormat)}, {"state", state_json(state)}});
}

void check_before_save(const fs::path& folder, const Checkpoint& checkpoint, const ParameterLayout& layout) {
  check_size("parameters", checkpoint.parameters.size(), layout.arena_size());
  for (const ParameterTensor& t : layout.tensors()) {
    for (const float weight : std::span(checkpoint.parameters).subspan(t.offset, t.count())) {
      if (std::isfinite(weight)) continue;
      throw RunError(
          fmt::format("{}: is not saved: the weights of {} hold NaN or infinity, and such a checkpoint would "
                      "not load; lower train.optimizer.learning_rate or clip the gradient",
                      folder.string(), t.name));
    }
  }
  if (!checkpoint.state) return;
  const TrainingState& state = *checkpoint.state;
  if (!state.moment1.empty()) check_size("moment1", state.moment1.size(), layout.arena_size());
  if (!state.moment2.empty()) check_size("moment2", state.moment2.size(), layout.arena_size());
  const std::size_t lanes = count_of(lanes_shape(layout.shape(), state.batch));
  check_size("h", state.h.size(), lanes);
  check_size("c", state.c.size(), has_cell_state(layout.shape().cell) ? lanes : 0);
  if (state.step != checkpoint.step) {
    throw ShapeError(
        fmt::format("checkpoint: its state is of step {}, its weights of step {}", state.step, checkpoint.step));
  }
}

// ---- reading

/// @throws FormatError if `file` is anything but a regular file; a link could lead out of the folder
std::uint64_t regular_file_size(const fs::path& file) {
  struct stat status {};
  if (::lstat(file.c_str(), &status) != 0) {
    throw FormatError(
        fmt::format("{}: is missing, but {} names it: the checkpoint is not complete", file.string(), kManifestFile));
  }
  if (!S_ISREG(status.st_mode)) {
    throw FormatError(fmt::format("{}: is {}, expected a regular file", file.string(),
                                  S_ISLNK(status.st_mode)   ? "a symbolic link"
                                  : S_ISDIR(status.st_mode) ? "a folder"
                                                            : "a pipe or a device"));
  }
  return static_cast<std::uint64_t>(status.st_size);
}

/// The manifest, its files' sizes checked.
Manifest read_manifest(const fs::path& folder) {
  const fs::path file = folder / kManifestFile;
  std::error_code error;
  if (!fs::exists(folder, error)) {
    throw FormatError(fmt::format("{}: there is no such checkpoint; expected a folder with {} and {}", folder.string(),
                                  kModelFile, kManifestFile));
  }
  if (!fs::is_directory(folder, error)) {
    throw FormatError(fmt::format("{}: is no folder; a checkpoint is the folder that holds {} and {}", folder.string(),
                                  kModelFile, kManifestFile));
  }
  if (fs::symlink_status(file, error).type() == fs::file_type::not_found) {
    throw FormatError(
        fmt::format("{}: has no {}: its save was interrupted, or it was copied in part; use another "
                    "checkpoint of the run",
                    folder.string(), kManifestFile));
  }
  regular_file_size(file);
  Manifest manifest = parse_manifest(read_file(file, kMaxManifestBytes), file.string());
  for (const Manifest::File& entry : manifest.files) {
    const std::uint64_t size = regular_file_size(folder / entry.name);
    if (size == entry.bytes) continue;
    throw FormatError(
        fmt::format("{}: has {} bytes, {} says {}: the file is damaged or cut short; use another "
                    "checkpoint of the run",
                    (folder / entry.name).string(), size, kManifestFile, entry.bytes));
  }
  return manifest;
}

void check_hash(const fs::path& file, const std::string& found, const std::string& expected) {
  if (found == expected) return;
  throw FormatError(
      fmt::format("{}: its sha256 is {}, {} says {}: the file is damaged; use another checkpoint of the run",
                  file.string(), found, kManifestFile, expected));
}

const Manifest::File& state_entry(const fs::path& folder, const Manifest& manifest) {
  const Manifest::File* entry = manifest.find(kStateFile);
  if (entry == nullptr) {
    throw FormatError(
        fmt::format("{}: holds weights only, no {}: training cannot go on from it; start a new run with "
                    "init_from",
                    folder.string(), kStateFile));
  }
  return *entry;
}

SafetensorsFile read_tensors(const fs::path& folder, const Manifest::File& entry) {
  const fs::path file = folder / entry.name;
  std::string bytes = read_file(file, entry.bytes);
  check_hash(file, sha256_hex(bytes), entry.sha256);
  return SafetensorsFile::parse(std::move(bytes), file.string());
}

const std::string& metadata_text(const SafetensorsHeader& header, const std::string& key, const std::string& name) {
  const auto found = header.metadata.find(key);
  if (found == header.metadata.end()) {
    throw FormatError(
        fmt::format("{}: has no {} in its __metadata__; it is none of this program's", name, in_quotes(key)));
  }
  return found->second;
}

void check_format(const SafetensorsHeader& header, const std::string& name) {
  const std::string& format = metadata_text(header, "format", name);
  if (format == kFormat) return;
  throw FormatError(fmt::format("{}: format is {}, expected '{}'; a newer version of the program may read it", name,
                                in_quotes(format), kFormat));
}

template <class Number>
Number parse_number(const std::string& text, const std::string& what) {
  Number number{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || end != text.data() + text.size()) {
    throw FormatError(fmt::format("{} is {}, expected a number", what, in_quotes(text)));
  }
  return number;
}

Vocabulary parse_vocabulary(const std::string& json, const std::string& name) {
  const std::string what = name + ": vocabulary";
  constexpr std::size_t kMost = 256;
  std::vector<std::uint8_t> bytes;
  parse_json(json, what, [&](const JsonEvent& event) {
    if (event.path.empty() && event.in_arrays == 0 && event.kind == JsonEvent::Kind::kArray) return;
    if (event.kind != JsonEvent::Kind::kUnsigned || event.in_arrays != 1 || !event.path.empty() ||
        event.number >= kMost) {
      throw FormatError(
          fmt::format("{}: has {}, expected a list of whole numbers from 0 to 255", what, describe(event)));
    }
    if (bytes.size() == kMost) throw FormatError(fmt::format("{}: has more than {} characters", what, kMost));
    bytes.push_back(static_cast<std::uint8_t>(event.number));
  });
  try {
    return Vocabulary(std::move(bytes));
  } catch (const Error& error) {
    throw FormatError(fmt::format("{}: {}", name, error.what()));
  }
}

/// What the header of model.safetensors says besides the tensors.
struct ModelHeader {
  Config config;
  Vocabulary vocabulary;
  NetworkShape shape;
  std::int64_t step = 0;
  double validation_nats = std::numeric_limits<double>::quiet_NaN();
};

ModelHeader read_model_header(const SafetensorsHeader& header, const Manifest& manifest, const std::string& name) {
  check_format(header, name);
  ModelHeader model;
  try {
    model.config = parse_config(metadata_text(header, "config", name), name + ": config");
  } catch (const ConfigError& error) {
    throw FormatError(error.what());
  }
  model.vocabulary = parse_vocabulary(metadata_text(header, "vocabulary", name), name);
  model.step = parse_number<std::int64_t>(metadata_text(header, "step", name), name + ": step");
  if (model.step != manifest.step) {
    throw FormatError(fmt::format("{}: is of step {}, {} says {}", name, model.step, kManifestFile, manifest.step));
  }
  if (header.metadata.contains("validation_nats_per_char")) {
    model.validation_nats = parse_number<double>(metadata_text(header, "validation_nats_per_char", name),
                                                 name + ": validation_nats_per_char");
  }
  model.shape = model.config.network_shape(model.vocabulary.size());
  if (model.shape.layers < 1 || model.shape.layers > kMaxLayers || model.shape.hidden < 1 ||
      model.shape.hidden > kMaxHidden) {
    throw FormatError(fmt::format("{}: config: {} layers of {}, expected 1 to {} of 1 to {}", name, model.shape.layers,
                                  model.shape.hidden, kMaxLayers, kMaxHidden));
  }
  if (const TensorInfo* head = header.find("head.weight");
      head != nullptr && !head->shape.empty() && head->shape[0] != static_cast<std::uint64_t>(model.shape.vocabulary)) {
    throw FormatError(fmt::format("{}: tensor 'head.weight': shape is {}, but the vocabulary has {} characters", name,
                                  shape_text(head->shape), model.shape.vocabulary));
  }
  return model;
}

/// Names and shapes that a file must have, no more and no less.
void check_tensors(const SafetensorsHeader& header, const std::vector<std::pair<std::string, Shape>>& expected,
                   const std::string& name) {
  std::map<std::string, const Shape*, std::less<>> shapes;
  for (const auto& [tensor, shape] : expected) shapes.emplace(tensor, &shape);
  for (const TensorInfo& t : header.tensors) {
    const auto known = shapes.find(t.name);
    if (known == shapes.end()) {
      throw FormatError(
          fmt::format("{}: tensor {}: does not belong to the network of its config", name, in_quotes(t.name)));
    }
    if (t.dtype != Dtype::kF32) {
      throw FormatError(
          fmt::format("{}: tensor {}: dtype is {}, expected F32", name, in_quotes(t.name), dtype_name(t.dtype)));
    }
    if (t.shape != *known->second) {
      throw FormatError(fmt::format("{}: tensor {}: shape is {}, expected {}", name, in_quotes(t.name),
                                    shape_text(t.shape), shape_text(*known->second)));
    }
    shapes.erase(known);
  }
  if (!shapes.empty()) {
    throw FormatError(fmt::format("{}: has no tensor {}, which the network of its config needs", name,
                                  in_quotes(shapes.begin()->first)));
  }
}

std::vector<std::pair<std::string, Shape>> arena_shapes(const ParameterLayout& layout, const std::string& prefix) {
  std::vector<std::pair<std::string, Shape>> shapes;
  for (const ParameterTensor& t : layout.tensors()) shapes.emplace_back(prefix + t.name, shape_of(t));
  return shapes;
}

/// After check_tensors: the arena is then no larger than what was read, but for the padding between tensors.
std::vector<float> read_arena(const SafetensorsFile& file, const ParameterLayout& layout, const std::string& prefix) {
  std::vector<float> arena(layout.arena_size());
  for (const ParameterTensor& t : layout.tensors()) {
    file.copy_f32(prefix + t.name, shape_of(t), std::span(arena).subspan(t.offset, t.count()));
  }
  return arena;
}

/// The scalars in a state's JSON, each taken once.
class Scalars {
 public:
  Scalars(const std::string& json, std::string what) : what_(std::move(what)) {
    parse_json(json, what_, [this](const JsonEvent& event) {
      if (event.path.empty() && event.in_arrays == 0 && event.kind == JsonEvent::Kind::kObject) return;
      const bool scalar = event.kind != JsonEvent::Kind::kObject && event.kind != JsonEvent::Kind::kArray;
      if (!scalar || event.path.size() != 1 || event.in_arrays > 0) {
        throw FormatError(fmt::format("{}: has {}, expected an object of numbers and strings", what_, describe(event)));
      }
      Value value{event.kind, event.number, event.real, std::string(event.text), {}};
      value.shown = describe(event);
      values_.emplace(event.path[0], std::move(value));
    });
  }

  bool has(const char* name) const { return values_.contains(name); }
  void take(const char* name, int& to) { to = static_cast<int>(take_whole(name, std::numeric_limits<int>::max())); }
  void take(const char* name, std::int64_t& to) { to = take_whole(name, std::numeric_limits<std::int64_t>::max()); }
  void take(const char* name, double& to) {
    const Value value = take_value(name);
    switch (value.kind) {
      case JsonEvent::Kind::kNull: to = std::numeric_limits<double>::infinity(); return;
      case JsonEvent::Kind::kUnsigned:
      case JsonEvent::Kind::kNegative:
      case JsonEvent::Kind::kReal: to = value.real; return;
      default: refuse(name, value, "a number, or null for none yet");
    }
  }
  void take(const char* name, std::string& to) {
    Value value = take_value(name);
    if (value.kind != JsonEvent::Kind::kString) refuse(name, value, "a string");
    to = std::move(value.text);
  }

  void check_empty() const {
    if (values_.empty()) return;
    throw FormatError(
        fmt::format("{}: has the key {}, which this version does not know", what_, in_quotes(values_.begin()->first)));
  }

 private:
  struct Value {
    JsonEvent::Kind kind;
    std::uint64_t number;
    double real;
    std::string text;
    std::string shown;
  };

  [[noreturn]] void refuse(const char* name, const Value& value, const std::string& expected) const {
    throw FormatError(fmt::format("{}: {} is {}, expected {}", what_, name, value.shown, expected));
  }
  Value take_value(const char* name) {
    auto node = values_.extract(name);
    if (node.empty()) throw FormatError(fmt::format("{}: has no {}", what_, name));
    return std::move(node.mapped());
  }
  std::int64_t take_whole(const char* name, std::int64_t most) {
    const Value value = take_value(name);
    if (value.kind != JsonEvent::Kind::kUnsigned || value.number > static_cast<std::uint64_t>(most)) {
      refuse(name, value, fmt::format("a whole number from 0 to {}", most));
    }
    return static_cast<std::int64_t>(value.number);
  }

  std::string what_;
  std::map<std::string, Value> values_;
};

/// The state without its tensors.
TrainingState read_state_header(const SafetensorsHeader& header, const ModelHeader& model, const std::string& name) {
  check_format(header, name);
  TrainingState state;
  Scalars scalars(metadata_text(header, "state", name), name + ": state");
  for_each_scalar(state, [&scalars](const char* key, auto& to) { scalars.take(key, to); });
  for_each_later_scalar(state, [&scalars](const char* key, auto& to) {
    if (scalars.has(key)) scalars.take(key, to);
  });
  scalars.check_empty();
  if (state.step != model.step) {
    throw FormatError(fmt::format("{}: is of step {}, {} of step {}", name, state.step, kModelFile, model.step));
  }
  if (state.batch > kMaxBatch) {
    throw FormatError(fmt::format("{}: state: batch is {}, expected at most {}", name, state.batch, kMaxBatch));
  }
  int exponent = 0;
  if (!std::isfinite(state.loss_scale) || std::frexp(state.loss_scale, &exponent) != 0.5) {  // 0.5 * 2^exponent
    throw FormatError(fmt::format("{}: state: loss_scale is {}, expected a power of two", name, state.loss_scale));
  }
  return state;
}

/// Which moments the optimizer of a config cannot do without.
int needed_moments(const OptimizerConfig& optimizer) {
  switch (optimizer.name) {
    case OptimizerKind::kAdam: return 2;
    case OptimizerKind::kRmsprop:
    case OptimizerKind::kAdagrad: return 1;
    case OptimizerKind::kSgd: return optimizer.momentum != 0 ? 1 : 0;
  }
  return 0;
}

TrainingState read_state(const fs::path& folder, const Manifest& manifest, const ModelHeader& model,
                         const ParameterLayout& layout) {
  const SafetensorsFile file = read_tensors(folder, state_entry(folder, manifest));
  const std::string name = (folder / kStateFile).string();
  TrainingState state = read_state_header(file.header(), model, name);

  std::vector<std::pair<std::string, Shape>> expected;
  const auto expect_arena = [&](const std::string& prefix, int number) {
    // One tensor of it stands for all: with any there, each must be.
    bool there = needed_moments(model.config.train.optimizer) >= number;
    for (const TensorInfo& t : file.header().tensors) there = there || t.name.starts_with(prefix);
    if (!there) return false;
    for (auto& tensor : arena_shapes(layout, prefix)) expected.push_back(std::move(tensor));
    return true;
  };
  const bool has_moment1 = expect_arena("moment1.", 1);
  const bool has_moment2 = expect_arena("moment2.", 2);
  const Shape lanes = lanes_shape(model.shape, state.batch);
  expected.emplace_back("h", lanes);
  if (has_cell_state(model.shape.cell)) expected.emplace_back("c", lanes);
  check_tensors(file.header(), expected, name);

  if (has_moment1) state.moment1 = read_arena(file, layout, "moment1.");
  if (has_moment2) state.moment2 = read_arena(file, layout, "moment2.");
  state.h.resize(count_of(lanes));
  file.copy_f32("h", lanes, state.h);
  if (has_cell_state(model.shape.cell)) {
    state.c.resize(count_of(lanes));
    file.copy_f32("c", lanes, state.c);
  }
  return state;
}

void check_finite(const ParameterLayout& layout, const std::vector<float>& parameters, const std::string& name) {
  for (const ParameterTensor& t : layout.tensors()) {
    for (std::size_t k = 0; k < t.count(); ++k) {
      if (std::isfinite(parameters[t.offset + k])) continue;
      throw FormatError(fmt::format("{}: tensor {}: value {} is {}, expected finite weights", name, in_quotes(t.name),
                                    k, parameters[t.offset + k]));
    }
  }
}

}  // namespace

void save_checkpoint(const std::filesystem::path& folder, const Checkpoint& checkpoint) {
  if (checkpoint.vocabulary.size() == 0) throw ShapeError("checkpoint: its vocabulary is empty");
  const ParameterLayout layout(checkpoint.shape());
  check_before_save(folder, checkpoint, layout);
  const fs::path temporary = temporary_name(folder);
  if (temporary.has_parent_path()) make_folders(temporary.parent_path());
  remove_folder(temporary);  // of a killed process that had this one's id
  make_folder(temporary);
  try {
    Manifest manifest;
    manifest.step = checkpoint.step;
    manifest.files.push_back(write_model(temporary, checkpoint, layout));
    if (checkpoint.state) manifest.files.push_back(write_state(temporary, checkpoint, layout));
    const std::string text = format_manifest(manifest);
    write_new_file(temporary / kManifestFile, {text});  // last: a folder that has one is complete
    sync_folder(temporary);
    replace_folder(temporary, folder);
  } catch (...) {
    remove_folder(temporary);
    throw;
  }
}

void verify_checkpoint(const std::filesystem::path& folder, LoadState load_state) {
  const Manifest manifest = read_manifest(folder);
  if (load_state == LoadState::kYes) state_entry(folder, manifest);
  for (const Manifest::File& entry : manifest.files) {
    if (entry.name == kStateFile && load_state == LoadState::kNo) continue;
    check_hash(folder / entry.name, sha256_of_file(folder / entry.name), entry.sha256);
  }
}

Checkpoint load_checkpoint(const std::filesystem::path& folder, LoadState load_state) {
  const Manifest manifest = read_manifest(folder);
  if (load_state == LoadState::kYes) state_entry(folder, manifest);
  const std::string name = (folder / kModelFile).string();
  Checkpoint checkpoint;
  ModelHeader model;
  {
    const SafetensorsFile file = read_tensors(folder, *manifest.find(kModelFile));
    model = read_model_header(file.header(), manifest, name);
    const ParameterLayout layout(model.shape);
    check_tensors(file.header(), arena_shapes(layout, ""), name);
    checkpoint.parameters = read_arena(file, layout, "");
    check_finite(layout, checkpoint.parameters, name);
  }  // the file's bytes go before the state's come
  if (load_state == LoadState::kYes) {
    checkpoint.state = read_state(folder, manifest, model, ParameterLayout(model.shape));
  }
  checkpoint.config = std::move(model.config);
  checkpoint.vocabulary = std::move(model.vocabulary);
  checkpoint.step = model.step;
  checkpoint.validation_nats = model.validation_nats;
  return checkpoint;
}

CheckpointSummary peek_checkpoint(const std::filesystem::path& folder) {
  const Manifest manifest = read_manifest(folder);
  CheckpointSummary summary;
  const auto add_tensors = [&summary](std::string_view file, const SafetensorsHeader& header) {
    for (const TensorInfo& t : header.tensors) {
      summary.tensors.push_back({std::string(file), t.name, std::string(dtype_name(t.dtype)), t.shape});
    }
  };
  const fs::path file = folder / kModelFile;
  const SafetensorsHeader header = SafetensorsFile::read_header(file);
  ModelHeader model = read_model_header(header, manifest, file.string());
  const ParameterLayout layout(model.shape);
  check_tensors(header, arena_shapes(layout, ""), file.string());
  add_tensors(kModelFile, header);
  if (manifest.find(kStateFile) != nullptr) {
    const fs::path state_file = folder / kStateFile;
    const SafetensorsHeader state_header = SafetensorsFile::read_header(state_file);
    const TrainingState state = read_state_header(state_header, model, state_file.string());
    const auto show = [&summary](const char* key, const auto& value) {
      if constexpr (std::is_floating_point_v<std::decay_t<decltype(value)>>) {
        summary.state.emplace_back(key, std::isfinite(value) ? fmt::format("{}", value) : "none yet");
      } else {
        summary.state.emplace_back(key, fmt::format("{}", value));
      }
    };
    for_each_scalar(state, show);
    for_each_later_scalar(state, show);
    add_tensors(kStateFile, state_header);
  }
  summary.folder = folder;
  summary.step = model.step;
  summary.validation_nats = model.validation_nats;
  summary.shape = model.shape;
  summary.parameter_count = layout.parameter_count();
  for (const Manifest::File& entry : manifest.files) summary.hashes.emplace_back(entry.name, entry.sha256);
  summary.config = std::move(model.config);
  summary.vocabulary = std::move(model.vocabulary);
  return summary;
}

ResolvedCheckpoint resolve_checkpoint(const std::filesystem::path& run_or_checkpoint) {
  const fs::path& path = run_or_checkpoint;
  const std::string hint = "train one with: charrnn-gpu --config shakespeare-small --output DIR";
  std::error_code error;
  if (path.empty() || !fs::exists(path, error)) {
    throw FormatError(fmt::format("{}: there is no such folder; expected a run's folder or a checkpoint's; {}",
                                  in_quotes(path.string()), hint));
  }
  if (!fs::is_directory(path, error)) {
    throw FormatError(fmt::format("{}: is no folder; expected a run's folder, or a checkpoint's, which holds {} and {}",
                                  path.string(), kModelFile, kManifestFile));
  }
  if (fs::exists(path / kManifestFile, error) || fs::exists(path / kModelFile, error)) return {path, ""};

  std::vector<std::string> notes;
  const auto good = [&notes](const fs::path& folder) {
    try {
      verify_checkpoint(folder, LoadState::kNo);
      return true;
    } catch (const FormatError& e) {
      notes.push_back(fmt::format("passed over: {}", e.what()));
      return false;
    }
  };
  if (const fs::path target = fs::read_symlink(path / "best", error); !error) {
    const fs::path best = path / target;
    if (fs::exists(best, error) && good(best)) return {best, "best", notes};
  }
  const auto all = list_checkpoints(path);
  for (auto i = all.rbegin(); i != all.rend(); ++i) {
    if (good(i->second)) return {i->second, "newest", notes};
  }
  if (!notes.empty()) {
    throw FormatError(fmt::format("{}: has no checkpoint that can be read; {}", path.string(), fmt::join(notes, "; ")));
  }
  throw FormatError(
      fmt::format("{}: has no checkpoint: looked for {} in it (a checkpoint), for best and for "
                  "checkpoints/step-NNNNNNNN (a run); {}",
                  path.string(), kManifestFile, hint));
}

}  // namespace charrnn
