// A checkpoint: a folder with model.safetensors (weights as PyTorch names them), state.safetensors (what training needs
// to go on bit for bit) and manifest.json (hashes; written last). It is complete or absent.
#pragma once

#include <cstdint>
#include <filesystem>
#include <limits>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "charrnn/config.h"
#include "charrnn/network_shape.h"
#include "charrnn/vocabulary.h"

namespace charrnn {

/// All that training carries from one step to the next, besides the weights.
struct TrainingState {
  std::int64_t step = 0;                // steps done; position in the text, dropout masks and RNGs follow from it
  std::vector<float> moment1, moment2;  // canonical arena, or empty where the optimizer has none
  int batch = 0;                        // effective lanes
  std::vector<float> h, c;              // [L,B,H]; c empty for cells without it

  double best_validation = std::numeric_limits<double>::infinity();  // nats per character; infinity: none yet
  std::int64_t best_step = 0;
  // Of the validations that the config's period asks for; one at the end of a session counts in the best alone, so that
  // where a run was cut changes nothing of what follows.
  double scheduled_best = std::numeric_limits<double>::infinity();
  int validations_without_best = 0;  // for validate.patience
  double plateau_scale = 1.0;        // schedule plateau: factor on the learning rate so far
  int plateau_bad = 0;
  int skipped_in_a_row = 0;
  std::int64_t skipped_total = 0;
  double loss_scale = 1;            // fp16: a power of two by which gradients are scaled on their way back; else 1
  std::int64_t since_overflow = 0;  // fp16: steps since they last overflowed

  std::string text_sha256;  // of the whole corpus
  std::int64_t text_characters = 0;
  std::string machine;  // CPU or GPU model, precision, and what computes the recurrence ...
  int threads = 0;      // ... and threads, on which bits depend
  // The line of metrics.jsonl of this very step, where a signal came before its validation or sample was done: they are
  // made up for when the run goes on. Else empty.
  std::string due_metrics;
  std::int64_t metrics_bytes = 0;  // lengths of metrics.jsonl and samples.txt at this step
  std::int64_t samples_bytes = 0;
};

struct Checkpoint {
  Config config;  // effective
  Vocabulary vocabulary;
  std::vector<float> parameters;  // canonical arena (ParameterLayout)
  std::int64_t step = 0;
  double validation_nats = std::numeric_limits<double>::quiet_NaN();  // of these weights, where known
  std::optional<TrainingState> state;                                 // absent when loaded with LoadState::kNo

  NetworkShape shape() const { return config.network_shape(vocabulary.size()); }
};

/// Writes to a temporary folder beside `folder`, fsyncs, renames. An existing `folder` is replaced.
/// @throws RunError (exit 1) when something cannot be written, or when a weight is NaN or infinite (it would not load);
///         the temporary folder is removed, old checkpoints stay. ShapeError if sizes do not fit together
void save_checkpoint(const std::filesystem::path& folder, const Checkpoint& checkpoint);

enum class LoadState { kYes, kNo };
/// Checks the manifest's sizes and hashes, the headers, names, shapes, finiteness of the weights and the vocabulary.
/// @throws FormatError (exit 3)
Checkpoint load_checkpoint(const std::filesystem::path& folder, LoadState load_state);

/// The part of those checks that needs no memory for the weights: manifest, sizes and the hash of each file that
/// load_checkpoint would read. @throws FormatError (exit 3)
void verify_checkpoint(const std::filesystem::path& folder, LoadState load_state);

/// What can be said of a checkpoint from its headers and manifest; reads no weights.
struct CheckpointSummary {
  struct Tensor {
    std::string file, name, dtype;
    std::vector<std::uint64_t> shape;
  };
  std::filesystem::path folder;
  std::int64_t step = 0;
  double validation_nats = std::numeric_limits<double>::quiet_NaN();
  NetworkShape shape;
  std::uint64_t parameter_count = 0;
  std::vector<std::pair<std::string, std::string>> hashes;  // file -> sha256, from the manifest
  std::vector<Tensor> tensors;
  Config config;
  Vocabulary vocabulary;
  std::vector<std::pair<std::string, std::string>> state;  // the training state's scalars, by name
};
CheckpointSummary peek_checkpoint(const std::filesystem::path& folder);

/// Which checkpoint RUN|CHECKPOINT means: a checkpoint itself; of a run its `best` if there is one, else the newest
/// good.
/// @throws FormatError if there is none
struct ResolvedCheckpoint {
  std::filesystem::path folder;
  std::string choice;                // "best", "newest" or "" when the path was a checkpoint itself
  std::vector<std::string> notes{};  // a sentence for each damaged one that was passed over
};
ResolvedCheckpoint resolve_checkpoint(const std::filesystem::path& run_or_checkpoint);

}  // namespace charrnn
