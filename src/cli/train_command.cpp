#include <cmath>
#include <limits>

#include "cli/commands.h"
#include "cli/console_observer.h"
#include "cli/find_config.h"
#include "cli/signals.h"
#include "train/run.h"

namespace charrnn {
namespace {

constexpr const char* kEpilog =
    "Started again with the same config, a run goes on from its newest good checkpoint, bit for bit. SIGINT or SIGTERM "
    "saves and ends (exit 130 or 143); a second one ends at once. Samples go to stdout, everything else to stderr; "
    "with "
    "--json the lines of metrics.jsonl go to stdout instead of samples, and with --dry-run {schema, plan}.\n"
    "FILE may be the name of a shipped config (hello, shakespeare, ...) when no such file is in the working directory.";

void check(const TrainOptions& train, const Options& options, const std::string& config) {
  if (config.empty())
    throw UsageError("--config is missing: which YAML file? charrnn-gpu --config hello is the smallest");
  if (options.given("--minutes") && !(train.minutes > 0 && std::isfinite(train.minutes))) {
    throw UsageError("--minutes must be a number above 0");
  }
  if (train.resume.empty()) throw UsageError("--resume is empty, expected auto, never or a checkpoint's folder");
}

}  // namespace

ExitCode train_command(const Arguments& arguments) {
  std::string config;
  std::string device;
  std::string implementation = "auto";
  std::string output;
  std::string profile;
  std::vector<std::string> overrides;
  TrainOptions train;

  Options options("train --config FILE", "Trains a network on a text, or goes on with a run.", kEpilog);
  options.text("--config", config, "a YAML file, or the name of a shipped config", "FILE");
  options.list("--set", overrides, "override one key of the config, e.g. model.hidden=256; may be given often");
  add_device(options, device);
  add_implementation(options, implementation);
  add_threads(options, train.threads);
  options.number("--minutes", train.minutes, "validate, save and end after so many minutes");
  options.whole("--steps", train.steps, "validate, save and end at this step of the run", 1,
                std::numeric_limits<std::int64_t>::max());
  options.text("--profile", profile, "steps=10-20: what a GPU's profiler records of the run (docs/profiling.md)",
               "steps=A-B");
  options.text("--resume", train.resume,
               "auto (the default): go on with a run that is there; never: refuse to; or a checkpoint's folder", "R");
  options.text("--output", output, "the run's folder; the same as --set run.dir=DIR", "DIR");
  options.flag("--dry-run", train.dry_run, "print the plan (parameters, steps, memory, disk, time) and train nothing");
  options.flag("--json", train.json, "print the lines of metrics.jsonl on stdout instead of samples");
  if (!options.parse(arguments)) return ExitCode::kOk;
  check(train, options, config);
  const Implementation chosen = parse_implementation(implementation);
  if (options.given("--profile")) train.profile = parse_profile(profile);

  const std::filesystem::path file = find_config_aloud(config);
  train.config_name = file.string();
  train.config = read_config(file, overrides);
  if (options.given("--device")) train.config.run.device = device;
  if (options.given("--implementation")) train.config.run.implementation = chosen;
  if (options.given("--output")) {
    if (output.empty()) throw UsageError("--output is empty, expected a folder");
    train.config.run.dir = output;
  }

  install_stop_handlers();
  ConsoleObserver observer(train.json, train.dry_run);
  const ExitCode code = run_training(train, observer);
  if (code == ExitCode::kOk && observer.stdout_failed()) {
    throw RunError("the run is complete and saved, but standard output was lost on the way");
  }
  return code;
}

}  // namespace charrnn
