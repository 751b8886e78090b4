#include <fmt/format.h>
#include <sys/resource.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <numeric>

#include "cli/commands.h"
#include "cli/console.h"
#include "cli/describe.h"
#include "cli/find_config.h"
#include "data/loader.h"
#include "devices/registry.h"
#include "model/initialize.h"
#include "model/step_cost.h"

namespace charrnn {
namespace {

using Clock = std::chrono::steady_clock;

constexpr const char* kEpilog =
    "Runs the training step itself (forward, backward, clipping, update) on random characters from a fixed seed; reads "
    "no text and touches no run folder. gflops counts the step's matrix products without the one-hot one, by the "
    "device's own clock where it has one; peak_gflops is the best rate of the device's own products, 2048^3 (on a GPU "
    "8192^3 too) and the step's shapes, in the same run.\n"
    "--json: {schema, ms_per_step_median, ms_per_step_min, ms_per_step_max, chars_per_second, gflops, peak_gflops, "
    "peak_memory_bytes, device, precision, threads, ...}; on a GPU also {device_ms_per_step_median, "
    "launches_per_step, implementation}, and the memory is the device's.";

constexpr int kWarmUp = 3;   // steps: packing, page faults, clocks
constexpr int kWindows = 8;  // of an epoch

bool is_gpu(const Backend& backend) { return backend.info().backend != "cpu"; }

/// Random characters, and how training would read them.
struct RandomText {
  std::string text;
  Vocabulary vocabulary;
  std::array<TokenId, 256> ids_of_bytes{};
  TrainingStreams streams;
  std::vector<HostWindow> windows;  // of each step of an epoch; none where the session holds the text
};

RandomText random_text(const Config& config, int characters) {
  RandomText random;
  random.streams = {.batch = config.train.batch,
                    .sequence = config.train.sequence,
                    .stride = std::int64_t{kWindows} * config.train.sequence,
                    .windows_per_epoch = kWindows};
  std::vector<std::uint8_t> bytes(static_cast<std::size_t>(characters));
  std::iota(bytes.begin(), bytes.end(), std::uint8_t{0});
  random.vocabulary = Vocabulary(std::move(bytes));
  random.ids_of_bytes.fill(-1);
  std::iota(random.ids_of_bytes.begin(), random.ids_of_bytes.begin() + characters, 0);
  Rng rng(config.train.seed, kBenchStream);
  random.text.resize(static_cast<std::size_t>(random.streams.batch * random.streams.stride + 1));
  for (char& c : random.text) c = static_cast<char>(rng.uniform() * characters);
  return random;
}

/// Hands the text to the session, or cuts it into windows, as training does.
void offer(Session& session, RandomText& random) {
  const TrainingStreams& streams = random.streams;
  if (session.hold_text({.text = random.text,
                         .ids_of_bytes = random.ids_of_bytes,
                         .batch = streams.batch,
                         .steps = streams.sequence,
                         .stride = streams.stride,
                         .windows_per_epoch = streams.windows_per_epoch})) {
    return;
  }
  random.windows.resize(kWindows);
  std::int64_t step = 0;
  for (HostWindow& window : random.windows) {
    fill_training_window(random.text, random.vocabulary, streams, ++step, window);
  }
}

/// Milliseconds of each step, after the warm-up.
struct Times {
  std::vector<double> wall;    // from result to result
  std::vector<double> device;  // by the device's own clock; empty where it has none
};

/// As many steps in flight as the device wants.
Times time_steps(const Config& config, Backend& backend, Session& session, const RandomText& random, std::int64_t steps,
                 StepRange profile) {
  const std::int64_t all = kWarmUp + steps, in_flight = std::max(1, backend.info().steps_in_flight);
  // A profiler records whole steps: none is in flight when its window opens or closes.
  const std::int64_t opens = profile.first == 0 ? all : kWarmUp + profile.first - 1;
  const std::int64_t closes = profile.first == 0 ? all : kWarmUp + profile.last;
  std::int64_t submitted = 0;
  Times times;
  ProgressBar bar("timing");
  Clock::time_point last = Clock::now();
  for (std::int64_t done = 0; done < all; ++done) {
    if (done == opens) backend.profile(true);
    if (done == closes) backend.profile(false);
    const std::int64_t until = done < opens ? opens : done < closes ? closes : all;
    for (; submitted < until && submitted - done < in_flight; ++submitted) {
      DropoutKey dropout;
      dropout.probability = static_cast<float>(config.model.dropout);
      dropout.seed = config.train.seed;
      dropout.step = static_cast<std::uint64_t>(submitted + 1);
      const UpdateSettings settings{config.train.optimizer, config.train.clip};
      const std::int64_t index = random.streams.window_of(submitted + 1);
      if (random.windows.empty()) {
        session.submit_text_step(index, dropout, settings);
      } else {
        session.submit_step(random.windows[static_cast<std::size_t>(index)].view(), dropout, settings);
      }
    }
    const StepResult result = session.next_result();
    const Clock::time_point now = Clock::now();
    if (result.skipped) throw RunError("a step of the benchmark gave NaN or infinity; a lower learning rate would not");
    if (done >= kWarmUp) {
      times.wall.push_back(std::chrono::duration<double, std::milli>(now - last).count());
      if (result.device_ms > 0) times.device.push_back(result.device_ms);
    }
    bar.update(static_cast<double>(done + 1) / static_cast<double>(all));
    last = Clock::now();  // the bar's time is nobody's
  }
  if (profile.first != 0 && closes == all) backend.profile(false);
  return times;
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const std::size_t half = values.size() / 2;
  return values.size() % 2 == 1 ? values[half] : (values[half - 1] + values[half]) / 2;
}

/// The best rate of this device's products: 2048^3 (which does not fill a GPU: 8192^3), and the step's own shapes.
double peak_gflops(Backend& backend, const NetworkShape& shape, int batch, int steps, Precision precision) {
  const int H = shape.hidden;
  const int GH = gate_count(shape.cell) * H;
  const int TB = static_cast<int>(std::min<std::int64_t>(std::int64_t{steps} * batch, std::numeric_limits<int>::max()));
  double best = backend.product_gflops(2048, 2048, 2048, precision);
  if (is_gpu(backend)) best = std::max(best, backend.product_gflops(8192, 8192, 8192, precision));
  best = std::max(best, backend.product_gflops(batch, GH, H, precision));
  best = std::max(best, backend.product_gflops(TB, GH, H, precision));
  best = std::max(best, backend.product_gflops(GH, H, TB, precision));
  return best;
}

std::int64_t peak_memory_bytes() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return std::int64_t{usage.ru_maxrss} * 1024;
}

}  // namespace

ExitCode bench_command(const Arguments& arguments) {
  std::string name;
  std::vector<std::string> overrides;
  int vocabulary = 100;
  std::int64_t steps = 20;
  bool json = false;
  std::string profile;
  DeviceFlags device;

  Options options("bench --config FILE", "Times the training step of a config on this machine.", kEpilog);
  options.text("--config", name, "a YAML file, or the name of a shipped config", "FILE");
  options.list("--set", overrides, "override one key of the config; may be given often");
  options.whole("--vocabulary", vocabulary, "characters (default 100)", 2, 256);
  options.whole("--steps", steps, "steps to time after a warm-up (default 20)", 1, 1'000'000);
  device.add_to(options, "auto");
  options.text("--profile", profile, "steps=10-20: which timed steps a GPU's profiler records (docs/profiling.md)",
               "steps=A-B");
  options.json(json);
  if (!options.parse(arguments)) return ExitCode::kOk;
  if (name.empty()) throw UsageError("--config is missing: which network is to be timed?");
  DeviceOptions chosen = device.parsed_device();
  StepRange window;
  if (options.given("--profile")) window = parse_profile(profile);
  if (window.last > steps) {
    throw UsageError(fmt::format("--profile is '{}', but only {} steps are timed (--steps)", profile, steps));
  }

  const Config config = read_config(find_config_aloud(name), overrides);
  const Precision precision = options.given("--precision") ? device.parsed_precision() : config.train.precision;
  const NetworkShape shape = config.network_shape(vocabulary);
  const int batch = config.train.batch;
  const int sequence = config.train.sequence;

  if (!options.given("--device")) chosen.device = config.run.device;
  if (!options.given("--implementation")) chosen.implementation = config.run.implementation;
  const auto backend = open_backend(chosen);
  const auto network = backend->make_network(shape, precision);
  {
    std::vector<float> parameters(network->layout().arena_size());
    initialize_parameters(network->layout(), config.model, config.train.seed, parameters);
    network->write(Arena::kParameters, parameters);
  }
  if (window.first != 0 && !is_gpu(*backend)) {
    say("--profile: there is nothing to profile on the CPU; it opens a window for a GPU's profiler");
  }
  Times times;
  {
    const auto session = network->open({.batch = batch, .max_steps = sequence, .training = true});
    session->reset();
    RandomText text = random_text(config, vocabulary);
    offer(*session, text);
    times = time_steps(config, *backend, *session, text, steps, window);
  }
  say_notes(*backend);
  const std::vector<double>& ms = times.wall;
  const double middle = median(ms);
  const double device_middle = times.device.empty() ? 0 : median(times.device);
  const DeviceUse use = backend->use();
  const double characters = static_cast<double>(batch) * sequence;
  const double flops = training_step_flops(shape, batch, sequence);
  // Before the device's own products take theirs.
  const std::int64_t memory = is_gpu(*backend) ? static_cast<std::int64_t>(use.peak_bytes) : peak_memory_bytes();
  const double peak = peak_gflops(*backend, shape, batch, sequence, network->precision());

  const double fastest = *std::min_element(ms.begin(), ms.end());
  const double slowest = *std::max_element(ms.begin(), ms.end());
  const double chars_per_s = characters / middle * 1e3;
  const double gflops = flops / (device_middle > 0 ? device_middle : middle) / 1e6;
  if (json) {
    nlohmann::ordered_json object{
        {"schema", kJsonSchema},      {"ms_per_step_median", middle},    {"ms_per_step_min", fastest},
        {"ms_per_step_max", slowest}, {"chars_per_second", chars_per_s}, {"gflops", gflops},
        {"peak_gflops", peak},        {"gflop_per_step", flops / 1e9},   {"peak_memory_bytes", memory}};
    if (device_middle > 0) object["device_ms_per_step_median"] = device_middle;
    if (use.launches_a_step > 0) object["launches_per_step"] = use.launches_a_step;
    describe(object, *backend, *network);
    object["steps"] = steps;
    object["cell"] = name_of(shape.cell);
    object["layers"] = shape.layers;
    object["hidden"] = shape.hidden;
    object["vocabulary"] = shape.vocabulary;
    object["batch"] = batch;
    object["sequence"] = sequence;
    object["parameters"] = network->layout().parameter_count();
    write_json(object);
    return ExitCode::kOk;
  }
  const DeviceInfo& info = backend->info();
  std::string where = fmt::format("{} ({})", info.backend, info.name);
  if (info.threads > 0) where += fmt::format(", {} threads", info.threads);
  where += fmt::format(", {}", name_of(network->precision()));
  if (!info.implementation.empty()) where += ", " + info.implementation;
  const double share = peak > 0 ? 100 * gflops / peak : 0;
  const int digits = is_gpu(*backend) ? 3 : 2;  // a step there may take a few milliseconds
  Rows rows{
      {"network", shape_name(shape)},
      {"parameters", format_count(static_cast<std::int64_t>(network->layout().parameter_count()))},
      {"batch x sequence", fmt::format("{} x {}", batch, sequence)},
      {"device", where},
      {"ms/step",
       fmt::format("{1:.{0}f} median, {2:.{0}f} min, {3:.{0}f} max of {4}", digits, middle, fastest, slowest, steps)},
      {"chars/s", format_count(std::llround(chars_per_s))},
  };
  if (device_middle > 0) {
    rows.emplace_back("by the device", fmt::format("{:.3f} ms/step median", device_middle));
  }
  if (is_gpu(*backend)) {
    rows.emplace_back("TFLOP/s", fmt::format("{:.1f} ({:.1f} GFLOP a step; {:.0f} % of the device's own {:.1f})",
                                             gflops / 1e3, flops / 1e9, share, peak / 1e3));
  } else {
    rows.emplace_back("GFLOP/s", fmt::format("{:.1f} ({:.1f} GFLOP a step; {:.0f} % of the machine's own {:.1f})",
                                             gflops, flops / 1e9, share, peak));
  }
  if (use.launches_a_step > 0) rows.emplace_back("launches/step", format_count(use.launches_a_step));
  rows.emplace_back("peak memory", format_bytes(static_cast<double>(memory)));
  write_stdout(format_rows(rows));
  return ExitCode::kOk;
}

}  // namespace charrnn
