// Every setting of a run, with its default. Filled from YAML by read_config (src/config); written back by to_yaml.
#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "charrnn/network_shape.h"

namespace charrnn {

enum class Nonlinearity { kTanh, kRelu };
enum class SplitBy { kTail, kStream };
enum class Precision { kAuto, kFp32, kBf16, kTf32, kFp16 };
enum class Implementation { kAuto, kCudnn, kFused };  // of the recurrence on a GPU
enum class OptimizerKind { kRmsprop, kAdam, kAdagrad, kSgd };

struct CorpusConfig {
  std::string path;                 // one of path and text is set
  std::optional<std::string> text;  // the text itself
  std::string encoding = "bytes";
  std::array<double, 3> split{0.90, 0.05, 0.05};  // train, validation, test
  SplitBy split_by = SplitBy::kTail;
};

struct InitConfig {
  enum class Kind { kUniform, kNormal } kind = Kind::kUniform;
  double scale = 0.08;  // half-width of the uniform range, or the standard deviation
};

struct ModelConfig {
  Cell cell = Cell::kLstm;                          // keys cell and, for rnn, nonlinearity together
  Nonlinearity nonlinearity = Nonlinearity::kTanh;  // as written; other cells ignore it
  int layers = 2;
  int hidden = 128;
  double dropout = 0.0;      // [0, 1): between layers and before the output
  double forget_bias = 1.0;  // LSTM only
  InitConfig init;
};

struct OptimizerConfig {
  OptimizerKind name = OptimizerKind::kRmsprop;
  double learning_rate = 0.002;
  double decay_rate = 0.95;           // rmsprop
  double beta1 = 0.9, beta2 = 0.999;  // adam
  double momentum = 0.0;              // sgd
  double epsilon = 1e-8;
};

struct ScheduleConfig {
  enum class Kind { kConstant, kDecay, kCosine, kPlateau } kind = Kind::kConstant;
  double decay = 0.97;            // decay: factor per epoch ...
  int after_epoch = 10;           // ... from the end of this epoch on
  std::int64_t warmup_steps = 0;  // cosine: linear from 0
  double final_fraction = 0.1;    // cosine: key `final`, of the learning rate, at the last step
  double factor = 0.5;            // plateau
  int patience = 3;               // plateau: validations without improvement
};

struct ClipConfig {
  enum class Kind { kNone, kValue, kNorm } kind = Kind::kValue;
  double threshold = 5.0;  // on the gradient of the mean nats per character
};

struct TrainConfig {
  int batch = 50;
  int sequence = 50;
  std::int64_t epochs = 50;
  OptimizerConfig optimizer;
  ScheduleConfig schedule;
  ClipConfig clip;
  std::uint64_t seed = 123;
  Precision precision = Precision::kAuto;
  int skip_limit = 10;
};

struct ValidateConfig {
  std::int64_t every = 250;             // steps; 0: only at the end
  std::int64_t characters = 1'000'000;  // at most so many, always the same
  int patience = 0;                     // validations without improvement before the run stops; 0: never
};

struct CheckpointConfig {
  std::int64_t every = 250;  // steps; 0: only at the end
  int keep = 3;              // the newest so many, besides the best
};

struct SampleConfig {
  std::vector<std::int64_t> at;  // steps
  std::int64_t every = 0;        // steps; 0: only `at`
  std::int64_t length = 300;
  double temperature = 0.8;
  std::string prime = "\n";
};

struct RunConfig {
  std::string dir = "runs/default";
  std::string device = "auto";                            // auto | cpu | cuda | cuda:N
  Implementation implementation = Implementation::kAuto;  // the CPU ignores it
};

struct Config {
  CorpusConfig corpus;
  ModelConfig model;
  TrainConfig train;
  ValidateConfig validate;
  CheckpointConfig checkpoint;
  SampleConfig sample;
  RunConfig run;
  std::optional<std::string> init_from;  // a checkpoint: weights only

  NetworkShape network_shape(int vocabulary) const { return {model.cell, model.layers, model.hidden, vocabulary}; }
};

// The names of choices, as configs write them.
std::string_view name_of(Cell cell);  // both kinds of rnn are "rnn"; model.nonlinearity tells them apart
std::string_view name_of(Nonlinearity nonlinearity);
std::string_view name_of(SplitBy by);
std::string_view name_of(OptimizerKind kind);
std::string_view name_of(ScheduleConfig::Kind kind);
constexpr std::string_view name_of(Precision precision) {  // here, since backends name them too
  switch (precision) {
    case Precision::kAuto: return "auto";
    case Precision::kFp32: return "fp32";
    case Precision::kBf16: return "bf16";
    case Precision::kTf32: return "tf32";
    case Precision::kFp16: break;
  }
  return "fp16";
}
constexpr std::string_view name_of(Implementation implementation) {
  switch (implementation) {
    case Implementation::kAuto: return "auto";
    case Implementation::kCudnn: return "cudnn";
    case Implementation::kFused: break;
  }
  return "fused";
}

/// Reads a YAML file and applies overrides of the form key.path=value (values are YAML), in order.
/// @throws ConfigError with file, line, key path, what was expected and the nearest known key
Config read_config(const std::filesystem::path& file, const std::vector<std::string>& overrides = {});

/// The same for a text that is already in memory; `name` stands for the file in messages.
Config parse_config(const std::string& yaml, const std::string& name, const std::vector<std::string>& overrides = {});

/// The effective config as YAML that read_config reads back to an equal Config: every key, comments for units.
std::string to_yaml(const Config& config);

/// Key paths (corpus, model, train other than epochs; as in the file) whose values differ, each as
/// "train.batch is 50 here, 100 in the checkpoint". Empty when training may go on.
std::vector<std::string> training_differences(const Config& here, const Config& in_checkpoint);

}  // namespace charrnn
