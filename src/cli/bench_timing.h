// What `bench` times: training steps, texts that are drawn, texts that are scored. All on random characters.
#pragma once

#include <cstdint>
#include <vector>

#include "backend/backend.h"
#include "charrnn/config.h"
#include "charrnn/sampler.h"
#include "train/run.h"

namespace charrnn {

/// Milliseconds of each training step, after the warm-up.
struct StepTimes {
  std::vector<double> wall;    // from result to result
  std::vector<double> device;  // by the device's own clock; empty where it has none
};

/// Steps of the config's batch and sequence, as many in flight as the device wants.
/// @param profile  the timed steps that a profiler records; none where its first is 0
StepTimes time_steps(const Config& config, Backend& backend, Network& network, std::int64_t steps, StepRange profile);

/// Milliseconds of each of `repeats` calls of sample_texts(), after one call to warm up. Each opens a session of its
/// own, as `sample` does.
std::vector<double> time_samples(Network& network, SampleSettings settings, int repeats);

struct EvaluationTask {
  int streams = 1;
  std::int64_t characters = 0;  // to predict
  std::uint64_t seed = 0;
  int repeats = 1;
};
/// The same of evaluate_text().
std::vector<double> time_evaluations(Network& network, const EvaluationTask& task);

struct Spread {
  double median = 0, least = 0, most = 0;
};
/// Of at least one number.
Spread spread_of(std::vector<double> values);

/// The best rate of this device's products: 2048^3 (which does not fill an accelerator: 8192^3), and the shapes of a
/// window of `steps` x `batch`.
double peak_gflops(Backend& backend, const Network& network, int batch, int steps);

/// Held at once until now: of an accelerator's memory, else of the process.
std::int64_t peak_memory_bytes(const Backend& backend);

}  // namespace charrnn
