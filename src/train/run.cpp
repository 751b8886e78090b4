#include "train/run.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>

#include "backend/backend.h"
#include "charrnn/checkpoint.h"
#include "charrnn/trainer.h"
#include "data/corpus.h"
#include "data/streams.h"
#include "io/files.h"
#include "io/run_folder.h"
#include "model/step_cost.h"
#include "text/grouped.h"
#include "train/log_file.h"

namespace charrnn {

namespace {

using Clock = std::chrono::steady_clock;
constexpr int kSigint = 2, kSigterm = 15;
constexpr double kNotKnown = std::numeric_limits<double>::quiet_NaN();

double seconds_since(Clock::time_point begin) { return std::chrono::duration<double>(Clock::now() - begin).count(); }

/// Absolute paths, so that the config that lies in the run's folder can be run from anywhere.
Config effective_config(Config config) {
  if (!config.corpus.text)
    config.corpus.path = fs::absolute(find_corpus(config.corpus.path)).lexically_normal().string();
  config.run.dir = fs::absolute(config.run.dir).lexically_normal().string();
  if (config.init_from) config.init_from = fs::absolute(*config.init_from).lexically_normal().string();
  return config;
}

std::string byte_size(double bytes) {
  if (bytes < 10 << 20) return fmt::format("{:.0f} KiB", std::ceil(bytes / (1 << 10)));
  return fmt::format("{:.0f} MiB", bytes / (1 << 20));
}

std::string duration(double seconds) {
  if (seconds < 120) return fmt::format("{:.1f} seconds", seconds);
  return seconds < 7200 ? fmt::format("{:.0f} minutes", seconds / 60) : fmt::format("{:.1f} hours", seconds / 3600);
}

/// The article's advice: parameters and characters should be of the same order of magnitude.
std::string advice(double parameters, double characters) {
  const double ratio = parameters / characters;
  if (ratio > 10) return "many more parameters than characters: watch validation for overfitting, or use dropout";
  if (ratio < 0.1) return "many more characters than parameters: a larger model.hidden may learn more";
  return "of the same order of magnitude, as the article advises";
}

std::string clip_text(const ClipConfig& clip) {
  switch (clip.kind) {
    case ClipConfig::Kind::kNone: return "none";
    case ClipConfig::Kind::kValue: return fmt::format("each element to +-{}", clip.threshold);
    case ClipConfig::Kind::kNorm: break;
  }
  return fmt::format("norm to {}", clip.threshold);
}

/// The best validation so far, and whose it was.
struct Best {
  double nats = std::numeric_limits<double>::infinity();
  std::int64_t step = 0;
};

class Run {
 public:
  Run(const TrainOptions& options, RunObserver& observer)
      : options_(options), observer_(observer), config_(effective_config(options.config)) {}

  ExitCode dry_run();
  ExitCode run();

 private:
  Trainer::Options trainer_options() const;
  void open_folder();
  void begin();
  void loop();
  void handle(const Trainer::Step& step);
  void drain();
  void tell_notes();
  void check_profile();
  void open_profile();
  void close_profile();
  bool due(std::int64_t every) const { return every > 0 && trainer_->steps_done() % every == 0; }
  bool events_follow(std::int64_t step) const;
  void run_events(bool last);
  bool sample_is_due() const;
  void take_validation(double nats, bool scheduled);
  void write_metrics();
  std::string draw_sample();
  void write_sample(const std::string& text);
  void save(bool last, std::optional<Best> beaten = {});
  void check_skips();
  void finish(const std::string& reason);
  double test_loss();
  void tell_settings();
  int signal() const { return observer_.stop_signal(); }

  const TrainOptions& options_;
  RunObserver& observer_;
  Config config_;
  Clock::time_point begin_ = Clock::now();
  std::unique_ptr<RunFolder> folder_;
  std::unique_ptr<Trainer> trainer_;
  std::unique_ptr<LogFile> metrics_, samples_;
  std::int64_t last_step_ = 0;                     // the run ends here
  std::optional<nlohmann::ordered_json> pending_;  // the newest step's metrics line, not written yet
  bool events_cut_ = false;                        // a signal came before that step's validation or sample was done
  bool time_is_up_ = false;
  double train_nats_ = kNotKnown;
  double validation_nats_ = kNotKnown;  // of the weights as they are, or NaN
  std::int64_t saved_step_ = -1;
  bool save_failed_ = false;
  bool log_failed_ = false;
  bool prime_noted_ = false;
  StepRange profile_;  // none on a device without a profiler
  bool profiling_ = false;
};

Trainer::Options Run::trainer_options() const {
  return {options_.threads, [this](const std::string& what, double f) { observer_.progress(what, f); },
          [this] { return signal() != 0; }};
}

ExitCode Run::dry_run() {
  if (options_.resume != "auto" && options_.resume != "never") static_cast<void>(resolve_checkpoint(options_.resume));
  trainer_ = std::make_unique<Trainer>(config_, trainer_options());
  last_step_ = options_.steps > 0 ? options_.steps : trainer_->total_steps();
  tell_settings();
  for (const std::string& note : trainer_->notes()) observer_.note(note);
  return ExitCode::kOk;
}

void Run::open_folder() {
  std::optional<fs::path> source;
  const bool named = options_.resume != "auto" && options_.resume != "never";
  if (named) source = fs::canonical(resolve_checkpoint(options_.resume).folder);  // before any folder is made
  folder_ = std::make_unique<RunFolder>(config_.run.dir);
  const bool holds_run = folder_->holds_run();
  if (options_.resume == "never" && holds_run) {
    throw ConfigError(config_.run.dir +
                      ": holds a run already, and --resume never was asked for; choose another folder "
                      "with --output, or let it go on with --resume auto");
  }
  folder_->remove_leftovers();

  std::vector<std::string> notes;
  if (options_.resume == "auto") source = folder_->newest_good(notes);
  const bool own = source && fs::canonical(*source).parent_path().parent_path() == fs::canonical(folder_->root());
  if (source && !own && holds_run) {
    throw ConfigError(
        fmt::format("--resume {}: is a checkpoint of another run, and {} holds a run already; choose another "
                    "folder with --output",
                    options_.resume, config_.run.dir));
  }
  for (const std::string& note : notes) observer_.warning(note);
  if (!source && !notes.empty()) {  // a fresh start would cut the logs of a run that somebody may still want to mend
    throw FormatError(config_.run.dir + ": none of its checkpoints can be loaded: " + notes.front() +
                      ". Mend or remove the folder checkpoints, or choose another run.dir (--output)");
  }

  if (source) {
    const Checkpoint from = load_checkpoint(*source, LoadState::kYes);
    trainer_ = std::make_unique<Trainer>(config_, from, trainer_options());
    observer_.note(fmt::format("resumed at step {} ({})", from.step, source->string()));
    validation_nats_ = from.validation_nats;
    if (const std::string& due = from.state->due_metrics; !due.empty()) {
      pending_ = nlohmann::ordered_json::parse(due, nullptr, false);
      if (!pending_->is_object())
        throw FormatError(source->string() + ": state: due_metrics is no line of metrics.jsonl");
    }
    if (own) {
      if (named) folder_->forget_after(from.step);
      folder_->relink(from.step, from.state->best_step);
      if (!RunFolder::cut_log(folder_->metrics_file(), from.state->metrics_bytes) ||
          !RunFolder::cut_log(folder_->samples_file(), from.state->samples_bytes)) {
        observer_.warning("the logs are shorter than they were at that step: lines of earlier steps are missing");
      }
      saved_step_ = from.step;
    } else {
      trainer_->set_best(from.validation_nats, from.step);
    }
  } else {
    trainer_ = std::make_unique<Trainer>(config_, trainer_options());
    RunFolder::cut_log(folder_->metrics_file(), 0);  // of a run that ended before its first checkpoint
    RunFolder::cut_log(folder_->samples_file(), 0);
  }
}

void Run::tell_settings() {
  const Trainer& t = *trainer_;
  const StreamPlan& plan = t.plan();
  const DeviceInfo& device = t.backend().info();
  const NetworkShape shape = config_.network_shape(t.vocabulary().size());
  const ParameterLayout layout(shape);
  const auto parameters = static_cast<double>(layout.parameter_count());
  const double step_flops = training_step_flops(shape, plan.training.batch, plan.training.sequence);
  const double copies = config_.train.optimizer.name == OptimizerKind::kAdam ? 3 : 2;
  const double checkpoint_bytes = copies * 4 * parameters;

  std::vector<std::pair<std::string, std::string>> rows;
  const auto row = [&rows](const std::string& name, std::string value) { rows.emplace_back(name, std::move(value)); };
  row("config", options_.config_name);
  row("text", t.text_source());
  row("characters",
      fmt::format("{} (train {}, validation {}, test {})", grouped(t.text_characters()), grouped(plan.train_characters),
                  grouped(plan.validation_characters), grouped(plan.test_characters)));
  row("vocabulary", fmt::format("{} distinct characters", t.vocabulary().size()));
  row("model",
      fmt::format("{} x {} {}, dropout {}", shape.layers, shape.hidden, name_of(shape.cell), config_.model.dropout));
  row("parameters", fmt::format("{}: {}", grouped(static_cast<std::int64_t>(layout.parameter_count())),
                                advice(parameters, static_cast<double>(t.text_characters()))));
  row("batch", fmt::format("{} lanes of {} characters a step", plan.training.batch, plan.training.sequence));
  row("steps", fmt::format("{} in an epoch, {} in all", grouped(t.steps_per_epoch()), grouped(last_step_)));
  row("optimizer", fmt::format("{}, learning rate {}, clip {}", name_of(config_.train.optimizer.name),
                               config_.train.optimizer.learning_rate, clip_text(config_.train.clip)));
  row("device", device.threads > 0 ? fmt::format("{}: {}, {} threads", device.backend, device.name, device.threads)
                                   : fmt::format("{}: {}", device.backend, device.name));
  row("precision", t.precision_name());
  if (!device.implementation.empty()) row("implementation", device.implementation);
  row("memory", byte_size(static_cast<double>(t.memory_bytes())));
  row("disk", fmt::format("{} a checkpoint, at most {} of them", byte_size(checkpoint_bytes),
                          std::max(1, config_.checkpoint.keep) + 1));
  row("run folder", config_.run.dir);
  if (options_.dry_run) {
    const double rate = trainer_->backend().product_gflops(plan.training.batch, gate_count(shape.cell) * shape.hidden,
                                                           shape.hidden, trainer_->network().precision());
    constexpr double kShareOfRate = 0.75;  // what is left of a product's rate in a whole step, by experience
    const double step_seconds = step_flops / (kShareOfRate * rate * 1e9);
    row("estimate", fmt::format("about {:.2g} ms a step, {} in all, without validation and samples", step_seconds * 1e3,
                                duration(step_seconds * static_cast<double>(last_step_))));
  }
  observer_.settings(rows);
}

void Run::begin() {
  last_step_ = options_.steps > 0 ? options_.steps : trainer_->total_steps();
  tell_settings();
  for (const std::string& note : trainer_->notes()) observer_.note(note);
  replace_file(folder_->config_file(), to_yaml(config_));
  folder_->trial_save(trainer_->checkpoint(kNotKnown));
  metrics_ = std::make_unique<LogFile>(folder_->metrics_file());
  samples_ = std::make_unique<LogFile>(folder_->samples_file());
  const bool from_elsewhere = trainer_->steps_done() > 0 && saved_step_ < 0;
  if (from_elsewhere) save(true, std::isfinite(validation_nats_) ? std::optional(Best{}) : std::nullopt);
}

ExitCode Run::run() {
  open_folder();
  begin();
  constexpr std::int64_t kTiny = 16;  // the article's "hello": its scores fit on a screen
  const bool tiny = trainer_->text_characters() <= kTiny;
  if (trainer_->steps_done() >= last_step_ && !pending_) {
    observer_.note(
        fmt::format("the run is at step {} already, its last: nothing to do. Raise train.epochs or --steps to "
                    "go on",
                    trainer_->steps_done()));
    return ExitCode::kOk;
  }
  check_profile();
  if (tiny) observer_.scores("scores at step " + std::to_string(trainer_->steps_done()), trainer_->score_table());
  loop();
  if (tiny) observer_.scores("scores at step " + std::to_string(trainer_->steps_done()), trainer_->score_table());
  switch (signal()) {
    case kSigint: return ExitCode::kInterrupted;
    case kSigterm: return ExitCode::kTerminated;
    default: return ExitCode::kOk;
  }
}

/// True if something other than training happens right after `step`, for which no later step may have been started.
bool Run::events_follow(std::int64_t step) const {
  const auto every = [step](std::int64_t n) { return n > 0 && step % n == 0; };
  const auto& at = config_.sample.at;
  return step == last_step_ || every(config_.validate.every) || every(config_.checkpoint.every) ||
         every(config_.sample.every) || std::find(at.begin(), at.end(), step) != at.end();
}

void Run::loop() {
  std::int64_t submitted = trainer_->steps_done();
  if (pending_) run_events(submitted == last_step_);  // what a signal kept this step from
  while (true) {
    if (const int n = signal(); n != 0)
      return finish(fmt::format("stopped by {}", n == kSigint ? "SIGINT" : "SIGTERM"));
    if (submitted >= last_step_) return finish("all steps are done");
    if (time_is_up_) return finish(fmt::format("{} minutes are over", options_.minutes));
    const int patience = config_.validate.patience;
    if (patience > 0 && trainer_->state().validations_without_best >= patience) {
      return finish(fmt::format("{} validations in a row were no better than the best", patience));
    }
    ++submitted;
    if (submitted == profile_.first) open_profile();
    for (const Trainer::Step& step : trainer_->step()) handle(step);
    if (submitted == profile_.last) close_profile();
    tell_notes();
    time_is_up_ = options_.minutes > 0 && seconds_since(begin_) >= options_.minutes * 60;
    if (events_follow(submitted) || time_is_up_) drain();
    check_skips();
    if (events_follow(submitted) || time_is_up_) run_events(submitted == last_step_ || time_is_up_);
  }
}

void Run::drain() {
  for (const Trainer::Step& step : trainer_->drain()) handle(step);
}

void Run::tell_notes() {
  for (const std::string& note : trainer_->backend().take_notes()) observer_.note(note);
}

void Run::check_profile() {
  const StepRange asked = options_.profile;
  if (asked.first == 0) return;
  if (!trainer_->backend().info().accelerator) {
    observer_.note("--profile: there is nothing to profile on the CPU; it opens a window for a GPU's profiler");
    return;
  }
  if (asked.first <= trainer_->steps_done() || asked.first > last_step_) {
    throw ConfigError(
        fmt::format("--profile steps={}-{}: this session makes steps {} to {}, expected a first step among "
                    "them",
                    asked.first, asked.last, trainer_->steps_done() + 1, last_step_));
  }
  profile_ = asked;
}

/// Before the first step of the window is started: nothing of the steps before it is recorded.
void Run::open_profile() {
  drain();
  trainer_->backend().profile(true);
  profiling_ = true;
}

void Run::close_profile() {
  drain();
  if (std::exchange(profiling_, false)) trainer_->backend().profile(false);
}

void Run::handle(const Trainer::Step& step) {
  write_metrics();  // of the step before, which nothing can be added to any more
  nlohmann::ordered_json line;
  line["step"] = step.step;
  line["epoch"] = step.epoch;
  const auto put = [&line](const char* key, double value) {  // JSON has no NaN: what is not a number is not known
    if (std::isfinite(value)) line[key] = value;
  };
  put("train_nats_per_char", step.nats_per_char);
  put("learning_rate", step.learning_rate);
  put("gradient_norm", step.gradient_norm);
  put("ms_per_step", step.ms);
  if (step.skipped) line["skipped"] = true;
  pending_ = std::move(line);
  validation_nats_ = kNotKnown;
  train_nats_ = step.nats_per_char;
  const double characters = static_cast<double>(trainer_->plan().training.batch) * trainer_->plan().training.sequence;
  observer_.step_done({.step = step.step,
                       .total_steps = last_step_,
                       .epoch = step.epoch,
                       .nats_per_char = step.nats_per_char,
                       .learning_rate = step.learning_rate,
                       .gradient_norm = step.gradient_norm,
                       .step_ms = step.ms,
                       .chars_per_s = characters / step.ms * 1e3,
                       .skipped = step.skipped});
  if (step.skipped) {
    observer_.warning(
        fmt::format("step {}: the loss or the gradient was NaN or infinite; the update is skipped ({} in a "
                    "row, {} in all)",
                    step.step, trainer_->state().skipped_in_a_row, trainer_->state().skipped_total));
  }
}

void Run::check_skips() {
  const int in_a_row = trainer_->state().skipped_in_a_row;
  if (in_a_row < config_.train.skip_limit) return;
  write_metrics();
  throw RunError(
      fmt::format("the loss or the gradient was NaN or infinite in {} steps in a row (the last is step {}); no "
                  "update was made in them. Start a new run (--output) with a lower "
                  "train.optimizer.learning_rate or train.clip, and init_from: {} to keep what was learned",
                  in_a_row, trainer_->steps_done(), config_.run.dir));
}

bool Run::sample_is_due() const {
  const auto& at = config_.sample.at;
  return due(config_.sample.every) || std::find(at.begin(), at.end(), trainer_->steps_done()) != at.end();
}

/// Validation, metrics, sample and checkpoint of the step that is done. A signal in the middle of it leaves nothing
/// half done: finish() saves the step with its metrics line, and the run that goes on begins with these events.
void Run::run_events(bool last) {
  const bool scheduled = due(config_.validate.every);
  const double nats = scheduled || last ? trainer_->validate() : kNotKnown;
  const std::string sample = sample_is_due() ? draw_sample() : "";
  if (signal() != 0 && (scheduled || last || sample_is_due())) {  // either may be incomplete
    events_cut_ = true;
    return;
  }
  const Best before{trainer_->state().best_validation, trainer_->state().best_step};
  take_validation(nats, scheduled);
  const bool is_best = trainer_->state().best_validation < before.nats;
  write_metrics();
  write_sample(sample);
  if (last || is_best || due(config_.checkpoint.every)) save(last, is_best ? std::optional(before) : std::nullopt);
}

void Run::take_validation(double nats, bool scheduled) {
  if (std::isnan(nats)) return;
  validation_nats_ = nats;
  const bool is_best = trainer_->record_validation(nats, scheduled);
  observer_.validation_done(trainer_->steps_done(), nats, is_best);
}

void Run::write_metrics() {
  if (!pending_) return;
  nlohmann::ordered_json line = *std::exchange(pending_, std::nullopt);
  if (std::isfinite(validation_nats_)) line["validation_nats_per_char"] = validation_nats_;
  const std::string text = line.dump();
  if (!metrics_->append(text + "\n") && !std::exchange(log_failed_, true)) {
    observer_.warning(folder_->metrics_file().string() + ": cannot be written now; its lines are kept and tried again");
  }
  observer_.metrics_line(text);
}

std::string Run::draw_sample() {
  const std::int64_t step = trainer_->steps_done();
  SampleSettings settings;
  settings.length = config_.sample.length;
  settings.temperature = config_.sample.temperature;
  settings.prime = config_.sample.prime;
  constexpr std::uint64_t kSpread = 0x9E3779B97F4A7C15U;  // so that neighbouring steps get unlike seeds
  settings.seed = config_.train.seed + kSpread * static_cast<std::uint64_t>(step);
  for (const char c : settings.prime) {
    if (trainer_->vocabulary().find(static_cast<std::uint8_t>(c)) >= 0) continue;
    settings.prime.clear();
    if (!std::exchange(prime_noted_, true)) {
      observer_.note("sample.prime holds the character " + printable(static_cast<std::uint8_t>(c)) +
                     ", which is not in the text: samples start with a random character");
    }
    break;
  }
  try {
    return trainer_->sample(settings);
  } catch (const RunError& error) {  // scores that are not finite: training may still recover, or ends by skip_limit
    observer_.warning(fmt::format("no sample at step {}: {}", step, error.what()));
    return "";
  }
}

void Run::write_sample(const std::string& text) {
  if (text.empty()) return;
  const std::int64_t step = trainer_->steps_done();
  observer_.sample(step, text);
  samples_->append(fmt::format("==== step {} temperature {} ====\n{}\n", step, config_.sample.temperature, text));
}

/// @param beaten  if this is the best checkpoint: what was the best until now, and is again should the save fail
void Run::save(bool last, std::optional<Best> beaten) {
  if (trainer_->state().skipped_in_a_row > 0) {  // weights that give NaN must not push the good checkpoints out
    observer_.note(fmt::format("step {} is not saved: its update was skipped", trainer_->steps_done()));
    return;
  }
  const bool is_best = beaten.has_value();
  try {
    Checkpoint checkpoint = trainer_->checkpoint(validation_nats_);
    metrics_->sync();
    samples_->sync();
    if (events_cut_) checkpoint.state->due_metrics = pending_->dump();
    checkpoint.state->metrics_bytes = metrics_->size();
    checkpoint.state->samples_bytes = samples_->size();
    folder_->save(checkpoint, is_best, config_.checkpoint.keep);
    save_failed_ = false;
    log_failed_ = false;
    saved_step_ = checkpoint.step;
    observer_.checkpoint_saved(checkpoint.step, folder_->checkpoint_folder(checkpoint.step), is_best);
  } catch (const RunError& error) {
    if (last || std::exchange(save_failed_, true)) throw;
    if (beaten) trainer_->set_best(beaten->nats, beaten->step);
    observer_.warning(
        fmt::format("the checkpoint of step {} could not be saved: {}. The older ones are intact; the run "
                    "goes on and tries once more at the next turn",
                    trainer_->steps_done(), error.what()));
  }
}

void Run::finish(const std::string& reason) {
  drain();
  close_profile();  // where the run ends within the window
  if (!events_cut_) write_metrics();
  if (saved_step_ != trainer_->steps_done()) save(true);
  const bool stopped = signal() != 0;
  RunSummary summary;
  summary.reason = reason;
  summary.step = trainer_->steps_done();
  summary.train_nats = train_nats_;
  summary.validation_nats = validation_nats_;
  if (std::isfinite(trainer_->state().best_validation)) {
    summary.best_validation_nats = trainer_->state().best_validation;
    summary.best_step = trainer_->state().best_step;
  }
  if (!stopped) summary.test_nats = test_loss();
  tell_notes();
  summary.seconds = seconds_since(begin_);
  summary.run_folder = folder_->root();
  summary.files = {{"newest checkpoint", (folder_->root() / "latest").string()}};
  if (fs::exists(folder_->root() / "best")) {
    summary.files.emplace_back("best checkpoint", (folder_->root() / "best").string());
  }
  summary.files.emplace_back("metrics", folder_->metrics_file().string());
  summary.files.emplace_back("samples", folder_->samples_file().string());
  observer_.finished(summary);
}

/// Of the best checkpoint, or of the newest where nothing was validated.
double Run::test_loss() {
  if (trainer_->plan().test.empty()) return kNotKnown;
  return trainer_->test(load_checkpoint(resolve_checkpoint(folder_->root()).folder, LoadState::kNo));
}

}  // namespace

ExitCode run_training(const TrainOptions& options, RunObserver& observer) {
  Run run(options, observer);
  return options.dry_run ? run.dry_run() : run.run();
}

}  // namespace charrnn
