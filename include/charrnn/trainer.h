// Training, a step at a time. run_training() (src/train/run.h), which adds folders, logs and signals, is a user of
// this.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "charrnn/checkpoint.h"
#include "charrnn/config.h"
#include "charrnn/sampler.h"

namespace charrnn {

class Backend;
class Network;
struct StreamPlan;

class Trainer {
 public:
  struct Options {
    int threads = 0;                                                         // CPU; 0: all
    std::function<void(const std::string& what, double fraction)> progress;  // long silent work
    std::function<bool()> cancelled;                                         // asked now and then in evaluations
  };

  struct Step {
    std::int64_t step = 0;     // counted from 1
    double epoch = 0;          // epochs done after this step
    double nats_per_char = 0;  // of this step's batch, before its update
    double learning_rate = 0;
    double gradient_norm = 0;  // of the mean nats per character, before clipping
    double ms = 0;             // from the step before, by the host's clock
    double device_ms = 0;      // by the device's own clock; 0: it has none
    bool skipped = false;      // loss or gradient was NaN or infinite; nothing was updated
  };

  /// A fresh run: opens the text, the device, and draws the weights (or takes them from config.init_from).
  /// @throws ConfigError, DataError, DeviceError, FormatError
  Trainer(Config config, const Options& options);

  /// Goes on from a checkpoint that holds its state, bit for bit if the machine and the threads are the same.
  /// @throws ConfigError naming each changed key of corpus, model or train (other than epochs), DataError for another
  /// text
  Trainer(Config config, const Checkpoint& from, const Options& options);

  ~Trainer();
  Trainer(const Trainer&) = delete;
  Trainer& operator=(const Trainer&) = delete;

  /// Starts the next step; returns those that have finished since the last call, in order. A device may have some in
  /// flight, so this can be none; drain() waits for them.
  std::vector<Step> step();
  std::vector<Step> drain();

  /// Nats per character of the validation split; NaN without one, or when cancelled. Changes nothing of the training.
  double validate();
  /// The same for the test split, with the given weights.
  double test(const Checkpoint& with);

  /// Takes note of a scheduled validation: best so far, patience, plateau. True if it is the best.
  bool record_validation(double nats_per_char, bool scheduled);

  std::string sample(const SampleSettings& settings);
  /// The scores (logits) for the first characters of the text from zero state, as a table; for tiny texts.
  std::string score_table();

  /// What counts as the best so far from now on: its checkpoint is the one that there is. NaN: none.
  void set_best(double validation_nats, std::int64_t step);

  /// Everything to go on from here. @throws RunError if a weight is not finite
  Checkpoint checkpoint(double validation_nats);

  const Config& config() const;
  const Vocabulary& vocabulary() const;
  const StreamPlan& plan() const;
  const Backend& backend() const;
  Backend& backend();
  const Network& network() const;
  const TrainingState& state() const;  // counters; without arrays
  std::int64_t text_characters() const;
  const std::string& text_source() const;
  std::int64_t steps_done() const;
  std::int64_t steps_per_epoch() const;
  std::int64_t total_steps() const;  // epochs * steps_per_epoch
  std::string precision_name() const;
  std::size_t memory_bytes() const;  // what network and sessions take
  /// Sentences worth telling: smaller batches, characters left out, a changed machine, init_from's mapping.
  const std::vector<std::string>& notes() const;

 private:
  struct Parts;
  std::unique_ptr<Parts> parts_;
};

}  // namespace charrnn
