#include "cli/console_observer.h"

#include <fmt/format.h>

#include <cmath>
#include <nlohmann/json.hpp>
#include <numbers>

#include "charrnn/error.h"
#include "cli/commands.h"
#include "cli/signals.h"

namespace charrnn {

std::string format_step(const StepRecord& record) {
  std::string of = record.total_steps > 0 ? "/" + std::to_string(record.total_steps) : "";
  return fmt::format("step {}{}  epoch {:.2f}  loss {:.4f}  lr {:.1e}  |g| {:.3f}  {:.1f} ms  {:.0f} char/s{}",
                     record.step, of, record.epoch, record.nats_per_char, record.learning_rate, record.gradient_norm,
                     record.step_ms, record.chars_per_s, record.skipped ? "  skipped: NaN or infinity" : "");
}

void ConsoleObserver::result(std::string_view text) {
  if (stdout_gone_) return;
  try {
    write_stdout(text);
  } catch (const RunError& error) {
    stdout_gone_ = true;
    warn(std::string(error.what()) + "; the run goes on without printing there (its folder has all of it)");
  }
}

void ConsoleObserver::settings(const Rows& rows) {
  if (!dry_run_) {
    say(format_rows(rows));
  } else if (json_) {
    nlohmann::ordered_json object{{"schema", kJsonSchema}, {"plan", nlohmann::ordered_json::object()}};
    for (const auto& [name, value] : rows) object["plan"][name] = value;
    write_json(object);
  } else {
    write_stdout(format_rows(rows));
  }
}

void ConsoleObserver::note(const std::string& sentence) { say(sentence); }
void ConsoleObserver::warning(const std::string& sentence) { warn(sentence); }

void ConsoleObserver::step_done(const StepRecord& record) {
  smooth_ms_ = smooth_ms_ == 0 ? record.step_ms : 0.9 * smooth_ms_ + 0.1 * record.step_ms;
  if (!stderr_is_terminal() || record.skipped) {
    say(format_step(record));
  } else {
    draw_bar(record);
  }
}

void ConsoleObserver::draw_bar(const StepRecord& record) {
  constexpr auto kRedraw = std::chrono::milliseconds(100);
  const auto now = Clock::now();
  const bool last = record.step == record.total_steps;
  if (now - bar_drawn_ < kRedraw && !last) return;
  bar_drawn_ = now;
  const double fraction =
      record.total_steps > 0 ? static_cast<double>(record.step) / static_cast<double>(record.total_steps) : 0;
  const double left_s = static_cast<double>(record.total_steps - record.step) * smooth_ms_ / 1e3;
  draw_progress_bar(
      fraction, fmt::format("{}/{}  epoch {:.2f}  loss {:.3f}  lr {:.1e}  |g| {:.2f}  {:.0f} ms  {:.0f} char/s  ETA {}",
                            record.step, record.total_steps, record.epoch, record.nats_per_char, record.learning_rate,
                            record.gradient_norm, record.step_ms, record.chars_per_s,
                            format_duration(record.total_steps > 0 ? left_s : -1)));
}

void ConsoleObserver::validation_done(std::int64_t step, double nats_per_char, bool is_best) {
  say(fmt::format("step {}  validation {:.4f} nats/char ({:.4f} bits){}", step, nats_per_char,
                  nats_per_char / std::numbers::ln2, is_best ? "  best so far" : ""));
}

void ConsoleObserver::sample(std::int64_t step, std::string_view text) {
  if (json_) return;
  say(fmt::format("----- sample at step {} -----", step));
  result(std::string(text) + (text.ends_with('\n') ? "" : "\n"));
  say("-----");
}

void ConsoleObserver::checkpoint_saved(std::int64_t step, const std::filesystem::path& folder, bool is_best) {
  say(fmt::format("step {}  saved {}{}", step, folder.string(), is_best ? " (best)" : ""));
}

void ConsoleObserver::metrics_line(std::string_view json) {
  if (json_) result(std::string(json) + "\n");
}

void ConsoleObserver::progress(const std::string& what, double fraction) {
  if (!work_ || work_name_ != what) {
    work_.reset();
    work_.emplace(what);
    work_name_ = what;
  }
  work_->update(fraction);
  if (fraction >= 1) {
    work_.reset();
    work_name_.clear();
  }
}

void ConsoleObserver::scores(const std::string& title, const std::string& table) {
  if (json_) return;
  result(title + "\n" + table + (table.ends_with('\n') ? "" : "\n"));
}

void ConsoleObserver::finished(const RunSummary& summary) {
  say("");
  say(fmt::format("done: {} (step {}, {})", summary.reason, summary.step, format_duration(summary.seconds)));
  Rows rows;
  const auto loss = [&rows](const std::string& name, double nats, const std::string& behind = "") {
    if (std::isfinite(nats)) {
      rows.emplace_back(name,
                        fmt::format("{:.4f} nats/char, {:.4f} bits/char{}", nats, nats / std::numbers::ln2, behind));
    }
  };
  loss("training loss", summary.train_nats);
  loss("validation loss", summary.validation_nats);
  loss("best validation loss", summary.best_validation_nats, fmt::format(" at step {}", summary.best_step));
  loss("test loss", summary.test_nats);
  if (!summary.run_folder.empty()) rows.emplace_back("run", summary.run_folder.string());
  for (const auto& row : summary.files) rows.push_back(row);
  std::string text = format_rows(rows);
  if (!text.empty()) text.pop_back();  // say() ends the line
  say(text);
}

int ConsoleObserver::stop_signal() const { return charrnn::stop_signal(); }

}  // namespace charrnn
