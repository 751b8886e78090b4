// A training run on the console.
#pragma once

#include <chrono>
#include <optional>
#include <string>

#include "cli/console.h"
#include "train/observer.h"

namespace charrnn {

class ConsoleObserver : public RunObserver {
 public:
  /// @param json     lines of metrics.jsonl on stdout instead of samples
  /// @param dry_run  the plan is the result: it goes to stdout
  ConsoleObserver(bool json, bool dry_run) : json_(json), dry_run_(dry_run) {}

  void settings(const Rows& rows) override;
  void note(const std::string& sentence) override;
  void warning(const std::string& sentence) override;
  void step_done(const StepRecord& record) override;
  void validation_done(std::int64_t step, double nats_per_char, bool is_best) override;
  void sample(std::int64_t step, std::string_view text) override;
  void checkpoint_saved(std::int64_t step, const std::filesystem::path& folder, bool is_best) override;
  void metrics_line(std::string_view json) override;
  void progress(const std::string& what, double fraction) override;
  void scores(const std::string& title, const std::string& table) override;
  void finished(const RunSummary& summary) override;
  int stop_signal() const override;

  /// Has something that belonged on stdout been lost?
  bool stdout_failed() const { return stdout_gone_; }

 private:
  using Clock = std::chrono::steady_clock;

  void draw_bar(const StepRecord& record);
  /// To stdout. A reader that has gone away is no reason to end a run of hours: said once, then nothing more is
  /// written.
  void result(std::string_view text);

  bool json_;
  bool dry_run_;
  bool stdout_gone_ = false;
  double smooth_ms_ = 0;
  Clock::time_point bar_drawn_{};
  std::optional<ProgressBar> work_;  // of progress()
  std::string work_name_;
};

/// `step 12/21150  epoch 0.03  loss 3.2100  lr 2.0e-03  |g| 0.412  35.2 ms  71023 char/s`
std::string format_step(const StepRecord& record);

}  // namespace charrnn
