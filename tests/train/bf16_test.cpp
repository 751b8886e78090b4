// bf16 learns what fp32 learns. Run through support/in_bf16.sh, where the processor has bf16.
#include <algorithm>
#include <cmath>
#include <fstream>
#include <numeric>

#include "support/catch.h"
#include "train/runs.h"

using namespace charrnn;
using namespace charrnn::tests;

namespace {

constexpr int kSeeds = 3, kSteps = 300, kEvery = 50;

/// Validation losses of a run of 300 steps at every 50th.
std::vector<double> curve(const std::string& cell, const std::string& precision, int seed) {
  TempFolder folder;
  std::ofstream(folder / "text.txt", std::ios::binary) << some_text(7, 100000);
  Settings settings;
  settings.cell = cell;
  settings.batch = 16;
  settings.sequence = 20;
  settings.precision = precision;
  settings.optimizer = "{name: rmsprop, learning_rate: 0.002}";  // slow enough to be learning all the way
  TrainOptions options = options_in(folder.path(), settings);
  options.config.model.hidden = 32;
  options.config.train.seed = static_cast<std::uint64_t>(seed);
  options.config.validate.every = kEvery;
  options.config.checkpoint.every = kSteps;
  options.config.sample.every = 0;
  Recorder recorder;
  run(options, recorder, kSteps);
  REQUIRE(recorder.validations.size() >= kSteps / kEvery);
  return recorder.validations;
}

struct Seeds {
  double mean = 0, squares = 0;
};

Seeds at(const std::vector<std::vector<double>>& curves, std::size_t point) {
  Seeds s;
  for (const auto& curve : curves) s.mean += curve[point] / kSeeds;
  for (const auto& curve : curves) s.squares += (curve[point] - s.mean) * (curve[point] - s.mean);
  return s;
}

}  // namespace

TEST_CASE("300 steps in bf16 follow those in fp32 within half the spread of three seeds", "[bf16]") {
  for (const std::string cell : {"lstm", "gru", "rnn"}) {
    std::vector<std::vector<double>> fp32, bf16;
    for (int seed = 1; seed <= kSeeds; ++seed) {
      fp32.push_back(curve(cell, "fp32", seed));
      bf16.push_back(curve(cell, "bf16", seed));
    }
    for (std::size_t point = 0; point < kSteps / kEvery; ++point) {
      const Seeds a = at(fp32, point), b = at(bf16, point);
      const double spread = std::sqrt((a.squares + b.squares) / (2 * kSeeds - 2));  // pooled standard deviation
      INFO(cell << ", step " << (point + 1) * kEvery << ": fp32 " << a.mean << ", bf16 " << b.mean << ", spread "
                << spread);
      CHECK(std::abs(a.mean - b.mean) <= 0.5 * spread);
    }
    CHECK(at(bf16, kSteps / kEvery - 1).mean < 0.8 * at(bf16, 0).mean);  // and that is learning
  }
}
