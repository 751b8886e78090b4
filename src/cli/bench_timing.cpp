#include "cli/bench_timing.h"

#include <sys/resource.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <limits>
#include <numeric>
#include <string>

#include "charrnn/error.h"
#include "charrnn/vocabulary.h"
#include "cli/console.h"
#include "data/loader.h"
#include "data/streams.h"
#include "model/evaluator.h"
#include "model/initialize.h"

namespace charrnn {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int kWarmUp = 3;   // steps: packing, page faults, clocks
constexpr int kWindows = 8;  // of an epoch

double ms_between(Clock::time_point from, Clock::time_point to) {
  return std::chrono::duration<double, std::milli>(to - from).count();
}

Vocabulary first_bytes(int characters) {
  std::vector<std::uint8_t> bytes(static_cast<std::size_t>(characters));
  std::iota(bytes.begin(), bytes.end(), std::uint8_t{0});
  return Vocabulary(std::move(bytes));
}

std::string random_bytes(std::int64_t count, int characters, std::uint64_t seed) {
  Rng rng(seed, kBenchStream);
  std::string text(static_cast<std::size_t>(count), '\0');
  for (char& c : text) c = static_cast<char>(rng.uniform() * characters);
  return text;
}

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
  random.vocabulary = first_bytes(characters);
  random.ids_of_bytes.fill(-1);
  std::iota(random.ids_of_bytes.begin(), random.ids_of_bytes.begin() + characters, 0);
  random.text = random_bytes(random.streams.batch * random.streams.stride + 1, characters, config.train.seed);
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

/// Milliseconds of each call of `work`, after one to warm up.
template <class Work>
std::vector<double> time_repeats(int repeats, const Work& work) {
  std::vector<double> ms;
  ProgressBar bar("timing");
  for (int done = 0; done <= repeats; ++done) {
    const Clock::time_point begun = Clock::now();
    work();
    if (done > 0) ms.push_back(ms_between(begun, Clock::now()));
    bar.update((done + 1.0) / (repeats + 1.0));
  }
  return ms;
}

}  // namespace

StepTimes time_steps(const Config& config, Backend& backend, Network& network, std::int64_t steps, StepRange profile) {
  const auto session =
      network.open({.batch = config.train.batch, .max_steps = config.train.sequence, .training = true});
  session->reset();
  RandomText random = random_text(config, network.layout().shape().vocabulary);
  offer(*session, random);

  const std::int64_t all = kWarmUp + steps, in_flight = std::max(1, backend.info().steps_in_flight);
  // A profiler records whole steps: none is in flight when its window opens or closes.
  const std::int64_t opens = profile.first == 0 ? all : kWarmUp + profile.first - 1;
  const std::int64_t closes = profile.first == 0 ? all : kWarmUp + profile.last;
  std::int64_t submitted = 0;
  StepTimes times;
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
        session->submit_text_step(index, dropout, settings);
      } else {
        session->submit_step(random.windows[static_cast<std::size_t>(index)].view(), dropout, settings);
      }
    }
    const StepResult result = session->next_result();
    const Clock::time_point now = Clock::now();
    if (result.skipped) throw RunError("a step of the benchmark gave NaN or infinity; a lower learning rate would not");
    if (done >= kWarmUp) {
      times.wall.push_back(ms_between(last, now));
      if (result.device_ms > 0) times.device.push_back(result.device_ms);
    }
    bar.update(static_cast<double>(done + 1) / static_cast<double>(all));
    last = Clock::now();  // the bar's time is nobody's
  }
  if (profile.first != 0 && closes == all) backend.profile(false);
  return times;
}

std::vector<double> time_samples(Network& network, SampleSettings settings, int repeats) {
  const Vocabulary vocabulary = first_bytes(network.layout().shape().vocabulary);
  settings.prime = std::string(1, static_cast<char>(vocabulary.byte(0)));  // else the first character takes no network
  return time_repeats(repeats, [&] { sample_texts(network, vocabulary, settings); });
}

std::vector<double> time_evaluations(Network& network, const EvaluationTask& task) {
  const int characters = network.layout().shape().vocabulary;
  const Vocabulary vocabulary = first_bytes(characters);
  const std::string text = random_bytes(task.characters + 1, characters, task.seed);
  const std::vector<LaneRange> lanes = cut_lanes(0, task.characters + 1, task.streams);
  return time_repeats(task.repeats,
                      [&] { evaluate_text(network, vocabulary, text, lanes, evaluation_steps(lanes.size())); });
}

Spread spread_of(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const std::size_t half = values.size() / 2;
  const double middle = values.size() % 2 == 1 ? values[half] : (values[half - 1] + values[half]) / 2;
  return {middle, values.front(), values.back()};
}

double peak_gflops(Backend& backend, const Network& network, int batch, int steps) {
  const NetworkShape& shape = network.layout().shape();
  const Precision precision = network.precision();
  const int H = shape.hidden;
  const int GH = gate_count(shape.cell) * H;
  const int TB = static_cast<int>(std::min<std::int64_t>(std::int64_t{steps} * batch, std::numeric_limits<int>::max()));
  double best = backend.product_gflops(2048, 2048, 2048, precision);
  if (backend.info().accelerator) best = std::max(best, backend.product_gflops(8192, 8192, 8192, precision));
  best = std::max(best, backend.product_gflops(batch, GH, H, precision));
  best = std::max(best, backend.product_gflops(TB, GH, H, precision));
  best = std::max(best, backend.product_gflops(GH, H, TB, precision));
  return best;
}

std::int64_t peak_memory_bytes(const Backend& backend) {
  if (backend.info().accelerator) return static_cast<std::int64_t>(backend.use().peak_bytes);
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return std::int64_t{usage.ru_maxrss} * 1024;
}

}  // namespace charrnn
