// What a training run tells while it runs. The library does not print: the command line (or a test) implements this.
#pragma once

#include <cstdint>
#include <filesystem>
#include <limits>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace charrnn {

/// One update, finished.
struct StepRecord {
  std::int64_t step = 0;         // counted from 1
  std::int64_t total_steps = 0;  // the step at which this run ends (epochs or --steps); 0: not known
  double epoch = 0;              // epochs done after this step, with fraction
  double nats_per_char = 0;      // training loss of this step's batch
  double learning_rate = 0;
  double gradient_norm = 0;  // before clipping
  double step_ms = 0;
  double chars_per_s = 0;
  bool skipped = false;  // NaN or infinity: the update was not made
};

/// How a run ended, for the last lines that it prints.
struct RunSummary {
  std::string reason;  // a sentence: "all 50 epochs are done", "stopped by SIGINT at step 12", ...
  std::int64_t step = 0;
  double seconds = 0;                                            // of this session
  double train_nats = std::numeric_limits<double>::quiet_NaN();  // NaN where not known, as all below
  double validation_nats = std::numeric_limits<double>::quiet_NaN();
  double best_validation_nats = std::numeric_limits<double>::quiet_NaN();
  std::int64_t best_step = 0;
  double test_nats = std::numeric_limits<double>::quiet_NaN();
  std::filesystem::path run_folder;
  std::vector<std::pair<std::string, std::string>> files;  // what lies where: ("best checkpoint", path), ...
};

/// All calls come from the thread that called run_training(), in the order of events. Every method does nothing unless
/// overridden.
class RunObserver {
 public:
  virtual ~RunObserver() = default;

  /// Name and value of each thing worth knowing before the first step; `--dry-run` ends after it.
  virtual void settings(const std::vector<std::pair<std::string, std::string>>& /*rows*/) {}
  virtual void note(const std::string& /*sentence*/) {}
  virtual void warning(const std::string& /*sentence*/) {}

  virtual void step_done(const StepRecord& /*record*/) {}
  virtual void validation_done(std::int64_t /*step*/, double /*nats_per_char*/, bool /*is_best*/) {}
  /// A text drawn from the network at `step`: raw bytes, prime included.
  virtual void sample(std::int64_t /*step*/, std::string_view /*text*/) {}
  virtual void checkpoint_saved(std::int64_t /*step*/, const std::filesystem::path& /*folder*/, bool /*is_best*/) {}
  /// A line that was appended to metrics.jsonl, without its line break.
  virtual void metrics_line(std::string_view /*json*/) {}

  /// Long work that prints nothing else (indexing, evaluation): what it is, and the fraction done, [0, 1]. 1 ends it.
  virtual void progress(const std::string& /*what*/, double /*fraction*/) {}
  /// For tiny texts such as the article's "hello": the network's scores, as a table, before and after.
  virtual void scores(const std::string& /*title*/, const std::string& /*table*/) {}
  virtual void finished(const RunSummary& /*summary*/) {}

  /// The signal (SIGINT or SIGTERM) that asked the run to save and end, or 0. Polled between steps and in long work.
  virtual int stop_signal() const { return 0; }
};

}  // namespace charrnn
