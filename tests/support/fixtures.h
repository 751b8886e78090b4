// Reads the numbers that tools/pytorch/make_fixtures.py wrote. Parameters and gradients come as whole arenas of
// ParameterLayout, padding 0, so that they compare element by element with a network's.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string>
#include <vector>

#include "backend/parameter_layout.h"
#include "charrnn/config.h"
#include "charrnn/network_shape.h"

namespace charrnn::testing {

struct FixtureWindow {
  std::vector<TokenId> ids;         // [T,B]
  std::vector<TokenId> targets;     // [T,B]
  std::vector<double> weights;      // [T,B], some 0
  std::vector<std::uint8_t> reset;  // [B]
  double weight_sum() const {
    double sum = 0;
    for (const double w : weights) sum += w;
    return sum;
  }
};

/// Ten steps of one optimizer from the fixture's parameters and state, carried; loss_scale 1 / (sum of weights).
struct FixtureTraining {
  std::string name;  // rmsprop | adam | adagrad | sgd
  OptimizerConfig optimizer;
  ClipConfig clip;
  std::vector<double> losses;          // mean nats per character, before the step's update
  std::vector<double> gradient_norms;  // before clipping
  std::vector<double> parameters;      // after the last step
};

struct Fixture {
  std::string cell_name;
  std::string torch_version;
  std::uint64_t seed = 0;
  NetworkShape shape;
  ParameterLayout layout{NetworkShape{}};
  int steps = 0;                   // T
  int batch = 0;                   // B
  std::vector<double> parameters;  // all inputs are float32 numbers
  std::vector<double> h, c;        // [L,B,H] at the start; c empty without cell state
  FixtureWindow window;
  std::vector<double> logits;  // [T,B,V]
  std::vector<double> final_h, final_c;
  double nats = 0, weight = 0, correct = 0;     // weighted sums
  std::vector<double> gradients;                // of nats / weight
  std::vector<FixtureWindow> training_windows;  // one a step
  std::vector<FixtureTraining> training;        // one an optimizer
};

inline const std::vector<std::string>& fixture_cells() {
  static const std::vector<std::string> cells{"lstm", "gru", "rnn_tanh", "rnn_relu"};
  return cells;
}

/// What a float32 engine takes.
inline std::vector<float> to_floats(const std::vector<double>& values) { return {values.begin(), values.end()}; }

namespace fixture_detail {

inline Cell cell_of(const std::string& name) {
  if (name == "lstm") return Cell::kLstm;
  if (name == "gru") return Cell::kGru;
  if (name == "rnn_tanh") return Cell::kRnnTanh;
  if (name == "rnn_relu") return Cell::kRnnRelu;
  throw std::runtime_error("fixture: unknown cell " + name);
}

inline std::vector<double> to_arena(const nlohmann::json& named, const ParameterLayout& layout) {
  std::vector<double> arena(layout.arena_size());
  if (named.size() != layout.tensors().size()) throw std::runtime_error("fixture: other tensors than the layout's");
  for (const ParameterTensor& t : layout.tensors()) {
    const auto values = named.at(t.name).get<std::vector<double>>();
    if (values.size() != t.count()) throw std::runtime_error("fixture: " + t.name + " has another size");
    for (std::size_t k = 0; k < values.size(); ++k) arena[t.offset + k] = values[k];
  }
  return arena;
}

inline FixtureWindow to_window(const nlohmann::json& j) {
  return {j.at("ids").get<std::vector<TokenId>>(), j.at("targets").get<std::vector<TokenId>>(),
          j.at("weights").get<std::vector<double>>(), j.at("reset").get<std::vector<std::uint8_t>>()};
}

inline FixtureTraining to_training(const std::string& name, const nlohmann::json& j, const ParameterLayout& layout) {
  FixtureTraining t;
  t.name = name;
  t.optimizer.name = name == "rmsprop"   ? OptimizerKind::kRmsprop
                     : name == "adam"    ? OptimizerKind::kAdam
                     : name == "adagrad" ? OptimizerKind::kAdagrad
                                         : OptimizerKind::kSgd;
  const nlohmann::json& settings = j.at("settings");
  t.optimizer.learning_rate = settings.at("learning_rate").get<double>();
  t.optimizer.decay_rate = settings.value("decay_rate", t.optimizer.decay_rate);
  t.optimizer.beta1 = settings.value("beta1", t.optimizer.beta1);
  t.optimizer.beta2 = settings.value("beta2", t.optimizer.beta2);
  t.optimizer.momentum = settings.value("momentum", t.optimizer.momentum);
  t.optimizer.epsilon = settings.value("epsilon", t.optimizer.epsilon);
  const nlohmann::json& clip = settings.at("clip");
  t.clip.kind = clip.contains("value")  ? ClipConfig::Kind::kValue
                : clip.contains("norm") ? ClipConfig::Kind::kNorm
                                        : ClipConfig::Kind::kNone;
  if (t.clip.kind != ClipConfig::Kind::kNone) t.clip.threshold = clip.begin()->get<double>();
  t.losses = j.at("losses").get<std::vector<double>>();
  t.gradient_norms = j.at("gradient_norms").get<std::vector<double>>();
  t.parameters = to_arena(j.at("parameters"), layout);
  return t;
}

}  // namespace fixture_detail

/// @param cell  one of fixture_cells(). CHARRNN_PYTORCH_FIXTURES in the environment names another folder than the
///              committed one: fresh fixtures, from another seed (tests/backend/pytorch_fixtures.sh).
inline Fixture read_fixture(const std::string& cell) {
  const char* fresh = std::getenv("CHARRNN_PYTORCH_FIXTURES");
  const std::string folder = fresh != nullptr ? std::string(fresh) : std::string(CHARRNN_FIXTURES) + "/pytorch";
  const std::string path = folder + "/" + cell + ".json";
  std::ifstream in(path);
  if (!in) throw std::runtime_error("fixture: cannot read " + path);
  const nlohmann::json j = nlohmann::json::parse(in);

  Fixture f;
  f.cell_name = j.at("cell").get<std::string>();
  f.torch_version = j.at("torch").get<std::string>();
  f.seed = j.at("seed").get<std::uint64_t>();
  f.shape = {fixture_detail::cell_of(f.cell_name), j.at("layers").get<int>(), j.at("hidden").get<int>(),
             j.at("vocabulary").get<int>()};
  f.layout = ParameterLayout(f.shape);
  f.steps = j.at("steps").get<int>();
  f.batch = j.at("batch").get<int>();
  f.parameters = fixture_detail::to_arena(j.at("parameters"), f.layout);
  f.h = j.at("state").at("h").get<std::vector<double>>();
  f.c = j.at("state").at("c").get<std::vector<double>>();
  f.window = fixture_detail::to_window(j.at("window"));
  f.logits = j.at("logits").get<std::vector<double>>();
  f.final_h = j.at("final_state").at("h").get<std::vector<double>>();
  f.final_c = j.at("final_state").at("c").get<std::vector<double>>();
  f.nats = j.at("nats").get<double>();
  f.weight = j.at("weight").get<double>();
  f.correct = j.at("correct").get<double>();
  f.gradients = fixture_detail::to_arena(j.at("gradients"), f.layout);
  for (const auto& w : j.at("training_windows")) f.training_windows.push_back(fixture_detail::to_window(w));
  for (const auto& [name, t] : j.at("training").items()) {
    f.training.push_back(fixture_detail::to_training(name, t, f.layout));
  }
  return f;
}

}  // namespace charrnn::testing
