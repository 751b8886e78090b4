#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "cli/bench_timing.h"
#include "cli/commands.h"
#include "cli/console.h"
#include "cli/describe.h"
#include "cli/find_config.h"
#include "model/evaluator.h"
#include "model/initialize.h"
#include "model/step_cost.h"

namespace charrnn {
namespace {

constexpr const char* kEpilog =
    "--what step runs the training step itself (forward, backward, clipping, update), sample draws texts and eval "
    "scores one, through the code of the commands of these names. All work on random characters and random weights "
    "from "
    "a fixed seed, read no text and touch no run folder. gflops counts matrix products without the one-hot one, by the "
    "device's own clock where it has one; peak_gflops is the best rate of the device's own products, 2048^3 (on a GPU "
    "8192^3 too) and the network's shapes, in the same run.\n"
    "--json: {schema, what, chars_per_second, gflops, peak_memory_bytes, device, precision, threads, ...}; of a step "
    "also {ms_per_step_median, ms_per_step_min, ms_per_step_max, peak_gflops, ...}, on a GPU with "
    "{device_ms_per_step_median, launches_per_step, implementation}; of sample and eval {us_per_char_median, "
    "us_per_char_min, us_per_char_max, ...}, of eval peak_gflops too. On a GPU the memory is the device's.";

/// What is timed, and how much of it.
struct Task {
  std::string what = "step";
  int vocabulary = 100;
  std::int64_t steps = 20;
  std::string profile;
  StepRange window;  // of --profile
  int count = 1;
  int streams = 1;
  std::int64_t length = 0;  // 0: not given
  int repeats = 5;
};

constexpr std::int64_t kDrawn = 1000;    // characters of each text
constexpr std::int64_t kScored = 20000;  // characters of a text

/// @throws UsageError for a flag of another --what
void check(const Options& options, Task& task) {
  if (task.what != "step" && task.what != "sample" && task.what != "eval") {
    throw UsageError(fmt::format("--what is '{}', expected step, sample or eval", task.what));
  }
  const std::vector<std::pair<std::string, std::vector<std::string>>> owners{
      {"--steps", {"step"}},   {"--profile", {"step"}},          {"--count", {"sample"}},
      {"--streams", {"eval"}}, {"--length", {"sample", "eval"}}, {"--repeats", {"sample", "eval"}}};
  for (const auto& [flag, whats] : owners) {
    if (!options.given(flag) || std::find(whats.begin(), whats.end(), task.what) != whats.end()) continue;
    throw UsageError(fmt::format("{} is for --what {}, but --what is {}", flag, fmt::join(whats, " and "), task.what));
  }
  if (options.given("--profile")) task.window = parse_profile(task.profile);
  if (task.window.last > task.steps) {
    throw UsageError(fmt::format("--profile is '{}', but only {} steps are timed (--steps)", task.profile, task.steps));
  }
}

struct Machine {
  const Config& config;
  Backend& backend;
  Network& network;
  const NetworkShape& shape() const { return network.layout().shape(); }
};

/// What was measured, as it is printed and as JSON.
struct Report {
  nlohmann::ordered_json object;
  Rows rows;
};

Rows first_rows(const Machine& machine) {
  const DeviceInfo& info = machine.backend.info();
  std::string where = fmt::format("{} ({})", info.backend, info.name);
  if (info.threads > 0) where += fmt::format(", {} threads", info.threads);
  where += fmt::format(", {}", name_of(machine.network.precision()));
  if (!info.implementation.empty()) where += ", " + info.implementation;
  return {{"network", shape_name(machine.shape())},
          {"parameters", format_count(static_cast<std::int64_t>(machine.network.layout().parameter_count()))},
          {"device", where}};
}

void describe_shape(nlohmann::ordered_json& object, const Machine& machine) {
  const NetworkShape& shape = machine.shape();
  object["cell"] = name_of(shape.cell);
  object["layers"] = shape.layers;
  object["hidden"] = shape.hidden;
  object["vocabulary"] = shape.vocabulary;
}

/// "GFLOP/s" and the number, with its share of the peak where that is above 0.
std::pair<std::string, std::string> rate_row(const Backend& backend, double gflops, double peak,
                                             const std::string& cost) {
  const bool accelerator = backend.info().accelerator;
  const double unit = accelerator ? 1e3 : 1;
  std::string share;
  if (peak > 0) {
    share = fmt::format("; {:.0f} % of the {}'s own {:.1f}", 100 * gflops / peak, accelerator ? "device" : "machine",
                        peak / unit);
  }
  return {accelerator ? "TFLOP/s" : "GFLOP/s", fmt::format("{:.1f} ({}{})", gflops / unit, cost, share)};
}

Report report_step(const Machine& machine, const Task& task) {
  const int batch = machine.config.train.batch, sequence = machine.config.train.sequence;
  if (task.window.first != 0 && !machine.backend.info().accelerator) {
    say("--profile: there is nothing to profile on the CPU; it opens a window for a GPU's profiler");
  }
  const StepTimes times = time_steps(machine.config, machine.backend, machine.network, task.steps, task.window);
  say_notes(machine.backend);
  const Spread ms = spread_of(times.wall);
  const double device_ms = times.device.empty() ? 0 : spread_of(times.device).median;
  const std::int64_t launches = machine.backend.use().launches_a_step;
  const double flops = training_step_flops(machine.shape(), batch, sequence);
  const double chars_per_s = static_cast<double>(batch) * sequence / ms.median * 1e3;
  const double gflops = flops / (device_ms > 0 ? device_ms : ms.median) / 1e6;
  const std::int64_t memory = peak_memory_bytes(machine.backend);  // before the device's own products take theirs
  const double peak = peak_gflops(machine.backend, machine.network, batch, sequence);

  Report report;
  report.object = {{"schema", kJsonSchema},
                   {"what", task.what},
                   {"ms_per_step_median", ms.median},
                   {"ms_per_step_min", ms.least},
                   {"ms_per_step_max", ms.most},
                   {"chars_per_second", chars_per_s},
                   {"gflops", gflops},
                   {"peak_gflops", peak},
                   {"gflop_per_step", flops / 1e9},
                   {"peak_memory_bytes", memory}};
  if (device_ms > 0) report.object["device_ms_per_step_median"] = device_ms;
  if (launches > 0) report.object["launches_per_step"] = launches;
  describe(report.object, machine.backend, machine.network);
  report.object["steps"] = task.steps;
  describe_shape(report.object, machine);
  report.object["batch"] = batch;
  report.object["sequence"] = sequence;
  report.object["parameters"] = machine.network.layout().parameter_count();

  report.rows = first_rows(machine);
  const int digits = machine.backend.info().accelerator ? 3 : 2;  // a step there may take a few milliseconds
  report.rows.emplace_back("batch x sequence", fmt::format("{} x {}", batch, sequence));
  report.rows.emplace_back("ms/step", fmt::format("{1:.{0}f} median, {2:.{0}f} min, {3:.{0}f} max of {4}", digits,
                                                  ms.median, ms.least, ms.most, task.steps));
  report.rows.emplace_back("chars/s", format_count(std::llround(chars_per_s)));
  if (device_ms > 0) report.rows.emplace_back("by the device", fmt::format("{:.3f} ms/step median", device_ms));
  report.rows.push_back(rate_row(machine.backend, gflops, peak, fmt::format("{:.1f} GFLOP a step", flops / 1e9)));
  if (launches > 0) report.rows.emplace_back("launches/step", format_count(launches));
  report.rows.emplace_back("peak memory", format_bytes(static_cast<double>(memory)));
  return report;
}

/// What drawing and scoring have in common: `characters` in each of the repeats that took `ms`.
Report report_characters(const Machine& machine, const Task& task, const std::vector<double>& ms,
                         std::int64_t characters) {
  say_notes(machine.backend);
  Spread us = spread_of(ms);
  for (double* value : {&us.median, &us.least, &us.most}) *value *= 1e3 / static_cast<double>(characters);
  const double flops = forward_flops(machine.shape(), 1, 1), gflops = flops / us.median / 1e3;
  const std::int64_t memory = peak_memory_bytes(machine.backend);
  const bool scores = task.what == "eval";
  const double peak = scores ? peak_gflops(machine.backend, machine.network, task.streams,
                                           evaluation_steps(static_cast<std::size_t>(task.streams)))
                             : 0;
  Report report;
  report.object = {{"schema", kJsonSchema},
                   {"what", task.what},
                   {"us_per_char_median", us.median},
                   {"us_per_char_min", us.least},
                   {"us_per_char_max", us.most},
                   {"chars_per_second", 1e6 / us.median},
                   {"gflops", gflops}};
  if (scores) report.object["peak_gflops"] = peak;
  report.object["gflop_per_char"] = flops / 1e9;
  report.object["peak_memory_bytes"] = memory;
  describe(report.object, machine.backend, machine.network);
  report.object["repeats"] = task.repeats;
  report.object["length"] = task.length;
  if (scores) {
    report.object["streams"] = task.streams;
  } else {
    report.object["count"] = task.count;
  }
  describe_shape(report.object, machine);
  report.object["parameters"] = machine.network.layout().parameter_count();

  report.rows = first_rows(machine);
  report.rows.emplace_back(scores ? "streams" : "texts", format_count(scores ? task.streams : task.count));
  report.rows.emplace_back("us/char",
                           fmt::format("{:.2f} median, {:.2f} min, {:.2f} max of {} times {} characters", us.median,
                                       us.least, us.most, task.repeats, format_count(characters)));
  report.rows.emplace_back("chars/s", format_count(std::llround(1e6 / us.median)));
  report.rows.push_back(rate_row(machine.backend, gflops, peak, fmt::format("{:.1f} MFLOP a character", flops / 1e6)));
  report.rows.emplace_back("peak memory", format_bytes(static_cast<double>(memory)));
  return report;
}

Report report_sample(const Machine& machine, const Task& task) {
  SampleSettings settings;
  settings.length = task.length;
  settings.count = task.count;
  settings.temperature = machine.config.sample.temperature;
  settings.seed = machine.config.train.seed;
  const std::vector<double> ms = time_samples(machine.network, settings, task.repeats);
  Report report = report_characters(machine, task, ms, task.length * task.count);
  report.object["temperature"] = settings.temperature;
  return report;
}

Report report_eval(const Machine& machine, const Task& task) {
  const std::vector<double> ms = time_evaluations(
      machine.network,
      {.streams = task.streams, .characters = task.length, .seed = machine.config.train.seed, .repeats = task.repeats});
  return report_characters(machine, task, ms, task.length);
}

}  // namespace

ExitCode bench_command(const Arguments& arguments) {
  std::string name;
  std::vector<std::string> overrides;
  Task task;
  bool json = false;
  DeviceFlags device;

  Options options("bench --config FILE",
                  "Times the training step of a config, or sampling or scoring, on this machine.", kEpilog);
  options.text("--config", name, "a YAML file, or the name of a shipped config", "FILE");
  options.list("--set", overrides, "override one key of the config; may be given often");
  options.text("--what", task.what, "step (the default), sample or eval", "W");
  options.whole("--vocabulary", task.vocabulary, "characters (default 100)", 2, 256);
  options.whole("--steps", task.steps, "step: how many to time after a warm-up (default 20)", 1, 1'000'000);
  options.whole("--count", task.count, "sample: texts, drawn as one batch (default 1)", 1, kMaxBatch);
  options.whole("--streams", task.streams, "eval: cut the text into so many streams (default 1)", 1, kMaxBatch);
  options.whole("--length", task.length,
                fmt::format("sample: characters to draw of each text (default {}); eval: to score (default {})", kDrawn,
                            kScored),
                1, 1'000'000'000);
  options.whole("--repeats", task.repeats, "sample, eval: how often, after one to warm up (default 5)", 1, 1'000'000);
  device.add_to(options, "auto");
  options.text("--profile", task.profile,
               "step: steps=10-20: which timed steps a GPU's profiler records (docs/profiling.md)", "steps=A-B");
  options.json(json);
  if (!options.parse(arguments)) return ExitCode::kOk;
  if (name.empty()) throw UsageError("--config is missing: which network is to be timed?");
  DeviceOptions chosen = device.parsed_device();
  check(options, task);
  if (task.length == 0) task.length = task.what == "sample" ? kDrawn : kScored;
  if (task.what == "eval" && task.streams > task.length) {
    throw UsageError(fmt::format("--streams is {}, expected at most --length, {}: each predicts a character at least",
                                 task.streams, task.length));
  }

  const Config config = read_config(find_config_aloud(name), overrides);
  const Precision precision = options.given("--precision") ? device.parsed_precision() : config.train.precision;
  if (!options.given("--device")) chosen.device = config.run.device;
  if (!options.given("--implementation")) chosen.implementation = config.run.implementation;
  const auto backend = open_backend(chosen);
  const auto network = backend->make_network(config.network_shape(task.vocabulary), precision);
  {
    std::vector<float> parameters(network->layout().arena_size());
    initialize_parameters(network->layout(), config.model, config.train.seed, parameters);
    network->write(Arena::kParameters, parameters);
  }
  const Machine machine{config, *backend, *network};
  const Report report = task.what == "step"     ? report_step(machine, task)
                        : task.what == "sample" ? report_sample(machine, task)
                                                : report_eval(machine, task);
  if (json) {
    write_json(report.object);
  } else {
    write_stdout(format_rows(report.rows));
  }
  return ExitCode::kOk;
}

}  // namespace charrnn
