// Small whole runs, and what two of them have in common.
#pragma once

#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "charrnn/checkpoint.h"
#include "charrnn/error.h"
#include "model/initialize.h"
#include "support/catch.h"
#include "support/temp_folder.h"
#include "support/test_device.h"
#include "train/run.h"

namespace charrnn::tests {

namespace fs = std::filesystem;

struct Recorder : RunObserver {
  std::vector<StepRecord> steps;
  std::vector<std::string> notes, warnings, samples;
  std::vector<std::pair<std::string, std::string>> opening;
  std::vector<double> validations;
  RunSummary summary;
  std::function<void(const StepRecord&)> on_step;
  int signal_after_step = 0, signal = 0;

  void settings(const std::vector<std::pair<std::string, std::string>>& rows) override { opening = rows; }
  void note(const std::string& s) override { notes.push_back(s); }
  void warning(const std::string& s) override { warnings.push_back(s); }
  void step_done(const StepRecord& r) override {
    steps.push_back(r);
    if (on_step) on_step(r);
  }
  void sample(std::int64_t, std::string_view text) override { samples.emplace_back(text); }
  void validation_done(std::int64_t, double nats, bool) override { validations.push_back(nats); }
  void finished(const RunSummary& s) override { summary = s; }
  int stop_signal() const override {
    return !steps.empty() && signal_after_step > 0 && steps.back().step >= signal_after_step ? signal : 0;
  }
};

/// 600 characters of words in a random order: enough structure to learn from, no long period.
inline std::string some_text(std::uint64_t seed = 1, std::size_t length = 600) {
  const char* const words[] = {"the ", "cat ", "sat ", "on ", "a ", "mat.\n", "dogs ", "ran "};
  Rng rng(seed);
  std::string text;
  while (text.size() < length) text += words[rng.next_u32() % 8];
  text.resize(length);
  return text;
}

struct Settings {
  std::string cell = "lstm", optimizer = "{name: rmsprop, learning_rate: 0.01}", more;
  int batch = 4, sequence = 7;
  std::string precision{name_of(test_precision())};
};

inline TrainOptions options_in(const fs::path& folder, const Settings& s = {}) {
  const fs::path text = folder / "text.txt";
  if (!fs::exists(text)) std::ofstream(text, std::ios::binary) << some_text();
  std::ostringstream yaml;
  yaml << "corpus: {path: " << text.string() << "}\n"
       << "model: {cell: " << s.cell << ", layers: 2, hidden: 12, dropout: 0.25}\n"
       << "train: {batch: " << s.batch << ", sequence: " << s.sequence << ", epochs: 3, optimizer: " << s.optimizer
       << ", precision: " << s.precision << "}\nvalidate: {every: 5}\ncheckpoint: {every: 6, keep: 2}\n"
       << "sample: {every: 9, length: 20, prime: \"\"}\nrun: {dir: " << (folder / "run").string() << ", device: cpu}\n"
       << s.more;
  TrainOptions options;
  options.config = parse_config(yaml.str(), "test.yaml");
  options.config_name = "test.yaml";
  options.threads = 2;
  return options;
}

inline ExitCode run(TrainOptions options, Recorder& recorder, std::int64_t steps = 0) {
  options.steps = steps;
  return run_training(options, recorder);
}

inline std::vector<nlohmann::json> metrics(const fs::path& folder) {
  std::vector<nlohmann::json> lines;
  std::ifstream file(folder / "run/metrics.jsonl");
  for (std::string line; std::getline(file, line);) lines.push_back(nlohmann::json::parse(line));
  return lines;
}

inline std::string bytes_of(const fs::path& file) {
  std::ifstream in(file, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

/// Weights, moments, state and position of the newest checkpoint are equal to the bit.
inline void check_same_end(const fs::path& a, const fs::path& b) {
  const Checkpoint x = load_checkpoint(fs::canonical(a / "run/latest"), LoadState::kYes);
  const Checkpoint y = load_checkpoint(fs::canonical(b / "run/latest"), LoadState::kYes);
  CHECK(x.step == y.step);
  const auto same = [](const std::vector<float>& p, const std::vector<float>& q) {
    return p.size() == q.size() && (p.empty() || std::memcmp(p.data(), q.data(), p.size() * sizeof(float)) == 0);
  };
  CHECK(same(x.parameters, y.parameters));
  CHECK(same(x.state->moment1, y.state->moment1));
  CHECK(same(x.state->moment2, y.state->moment2));
  CHECK(same(x.state->h, y.state->h));
  CHECK(same(x.state->c, y.state->c));
  CHECK(x.state->scheduled_best == y.state->scheduled_best);
  CHECK(x.state->validations_without_best == y.state->validations_without_best);
  CHECK(x.state->plateau_scale == y.state->plateau_scale);
  CHECK(x.state->plateau_bad == y.state->plateau_bad);
  CHECK(x.state->skipped_total == y.state->skipped_total);
}

/// Each step once, in order, with the same numbers (but for the time that it took).
inline void check_same_metrics(const fs::path& a, const fs::path& b) {
  auto x = metrics(a), y = metrics(b);
  REQUIRE(x.size() == y.size());
  for (std::size_t i = 0; i < x.size(); ++i) {
    CHECK(x[i].at("step") == static_cast<std::int64_t>(i + 1));
    x[i].erase("ms_per_step");
    y[i].erase("ms_per_step");
    CHECK(x[i] == y[i]);
  }
  CHECK(bytes_of(a / "run/samples.txt") == bytes_of(b / "run/samples.txt"));
}

}  // namespace charrnn::tests
