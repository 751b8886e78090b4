#include <fmt/format.h>
#include <sys/resource.h>

#include <algorithm>
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
    "no "
    "text and touches no run folder. gflops counts the step's matrix products without the one-hot one; peak_gflops is "
    "the "
    "best rate of the machine's own products, 2048^3 and the step's shapes, in the same run.\n"
    "--json: {schema, ms_per_step_median, ms_per_step_min, ms_per_step_max, chars_per_second, gflops, peak_gflops, "
    "peak_memory_bytes, device, precision, threads, ...}.";

constexpr int kWarmUp = 3;   // steps: packing, page faults, clocks
constexpr int kWindows = 8;  // different ones, used in turn

std::vector<HostWindow> random_windows(const Config& config, int vocabulary) {
  Rng random(config.train.seed, kBenchStream);
  const std::size_t size =
      static_cast<std::size_t>(config.train.sequence) * static_cast<std::size_t>(config.train.batch);
  std::vector<HostWindow> windows(kWindows);
  for (HostWindow& window : windows) {
    window.steps = config.train.sequence;
    window.batch = config.train.batch;
    window.ids.resize(size);
    window.targets.resize(size);
    for (TokenId& id : window.ids) id = static_cast<TokenId>(random.uniform() * vocabulary);
    for (TokenId& id : window.targets) id = static_cast<TokenId>(random.uniform() * vocabulary);
    window.weight = static_cast<double>(size);
  }
  return windows;
}

/// Milliseconds of each step, after the warm-up. As many steps in flight as the device wants.
std::vector<double> time_steps(const Config& config, Session& session, const std::vector<HostWindow>& windows,
                               std::int64_t steps, int in_flight) {
  const std::int64_t all = kWarmUp + steps;
  std::int64_t submitted = 0;
  std::vector<double> ms;
  ProgressBar bar("timing");
  Clock::time_point last = Clock::now();
  for (std::int64_t done = 0; done < all; ++done) {
    for (; submitted < all && submitted - done < std::max(1, in_flight); ++submitted) {
      DropoutKey dropout;
      dropout.probability = static_cast<float>(config.model.dropout);
      dropout.seed = config.train.seed;
      dropout.step = static_cast<std::uint64_t>(submitted + 1);
      session.submit_step(windows[static_cast<std::size_t>(submitted % kWindows)].view(), dropout,
                          {config.train.optimizer, config.train.clip});
    }
    const StepResult result = session.next_result();
    const Clock::time_point now = Clock::now();
    if (result.skipped) throw RunError("a step of the benchmark gave NaN or infinity; a lower learning rate would not");
    if (done >= kWarmUp) ms.push_back(std::chrono::duration<double, std::milli>(now - last).count());
    bar.update(static_cast<double>(done + 1) / static_cast<double>(all));
    last = Clock::now();  // the bar's time is nobody's
  }
  return ms;
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const std::size_t half = values.size() / 2;
  return values.size() % 2 == 1 ? values[half] : (values[half - 1] + values[half]) / 2;
}

/// The best rate of this machine's products: 2048^3, and the step's own shapes.
double peak_gflops(Backend& backend, const NetworkShape& shape, int batch, int steps, Precision precision) {
  const int H = shape.hidden;
  const int GH = gate_count(shape.cell) * H;
  const int TB = static_cast<int>(std::min<std::int64_t>(std::int64_t{steps} * batch, std::numeric_limits<int>::max()));
  double best = backend.product_gflops(2048, 2048, 2048, precision);
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
  DeviceFlags device;

  Options options("bench --config FILE", "Times the training step of a config on this machine.", kEpilog);
  options.text("--config", name, "a YAML file, or the name of a shipped config", "FILE");
  options.list("--set", overrides, "override one key of the config; may be given often");
  options.whole("--vocabulary", vocabulary, "characters (default 100)", 2, 256);
  options.whole("--steps", steps, "steps to time after a warm-up (default 20)", 1, 1'000'000);
  device.add_to(options, "auto");
  options.json(json);
  if (!options.parse(arguments)) return ExitCode::kOk;
  if (name.empty()) throw UsageError("--config is missing: which network is to be timed?");

  const Config config = read_config(find_config_aloud(name), overrides);
  const Precision precision = options.given("--precision") ? device.parsed_precision() : config.train.precision;
  const NetworkShape shape = config.network_shape(vocabulary);
  const int batch = config.train.batch;
  const int sequence = config.train.sequence;

  DeviceOptions where = device.parsed_device();
  if (!options.given("--device")) where.device = config.run.device;
  if (!options.given("--implementation")) where.implementation = config.run.implementation;
  const auto backend = open_backend(where);
  const auto network = backend->make_network(shape, precision);
  {
    std::vector<float> parameters(network->layout().arena_size());
    initialize_parameters(network->layout(), config.model, config.train.seed, parameters);
    network->write(Arena::kParameters, parameters);
  }
  std::vector<double> ms;
  {
    const auto session = network->open({.batch = batch, .max_steps = sequence, .training = true});
    session->reset();
    ms = time_steps(config, *session, random_windows(config, vocabulary), steps, backend->info().steps_in_flight);
  }
  const double middle = median(ms);
  const double characters = static_cast<double>(batch) * sequence;
  const double flops = training_step_flops(shape, batch, sequence);
  const std::int64_t memory = peak_memory_bytes();  // before the machine's own products take theirs
  const double peak = peak_gflops(*backend, shape, batch, sequence, network->precision());

  const double fastest = *std::min_element(ms.begin(), ms.end());
  const double slowest = *std::max_element(ms.begin(), ms.end());
  const double chars_per_s = characters / middle * 1e3;
  const double gflops = flops / middle / 1e6;
  if (json) {
    nlohmann::ordered_json object{
        {"schema", kJsonSchema},      {"ms_per_step_median", middle},    {"ms_per_step_min", fastest},
        {"ms_per_step_max", slowest}, {"chars_per_second", chars_per_s}, {"gflops", gflops},
        {"peak_gflops", peak},        {"gflop_per_step", flops / 1e9},   {"peak_memory_bytes", memory}};
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
  write_stdout(format_rows({
      {"network", shape_name(shape)},
      {"parameters", format_count(static_cast<std::int64_t>(network->layout().parameter_count()))},
      {"batch x sequence", fmt::format("{} x {}", batch, sequence)},
      {"device", fmt::format("{} ({}), {} threads, {}", backend->info().backend, backend->info().name,
                             backend->info().threads, name_of(network->precision()))},
      {"ms/step", fmt::format("{:.2f} median, {:.2f} min, {:.2f} max of {}", middle, fastest, slowest, steps)},
      {"chars/s", format_count(std::llround(chars_per_s))},
      {"GFLOP/s", fmt::format("{:.1f} ({:.1f} GFLOP a step; {:.0f} % of the machine's own {:.1f})", gflops, flops / 1e9,
                              peak > 0 ? 100 * gflops / peak : 0, peak)},
      {"peak memory", format_bytes(static_cast<double>(memory))},
  }));
  return ExitCode::kOk;
}

}  // namespace charrnn
