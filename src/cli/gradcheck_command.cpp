#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "cli/commands.h"
#include "cli/console.h"
#include "cli/describe.h"
#include "devices/registry.h"
#include "model/initialize.h"
#include "reference/reference.h"

namespace charrnn {
namespace {

constexpr const char* kEpilog =
    "A small network (2 layers of 5 units, 7 characters, a window of 6 steps by 3 lanes) is run on the device in fp32; "
    "each "
    "of its gradients is compared with central differences of a naive double-precision network. Errors are relative to "
    "the "
    "largest gradient of their tensor. Exit 1 if one is above the tolerance.";

// All distinct, so that a swapped axis cannot pass.
constexpr int kLayers = 2;
constexpr int kHidden = 5;
constexpr int kVocabulary = 7;
constexpr int kSteps = 6;
constexpr int kBatch = 3;
constexpr std::uint64_t kSeed = 20150521;

struct Gradients {
  std::vector<float> analytic;
  std::vector<double> numeric;
};

Gradients both_gradients(Backend& backend, const NetworkShape& shape) {
  const auto network = backend.make_network(shape, Precision::kFp32);
  const ParameterLayout& layout = network->layout();

  ModelConfig model;
  model.cell = shape.cell;
  model.layers = shape.layers;
  model.hidden = shape.hidden;
  model.init.scale = 0.5;  // large enough that gates leave their linear range
  std::vector<float> parameters(layout.arena_size());
  initialize_parameters(layout, model, kSeed, parameters);
  network->write(Arena::kParameters, parameters);

  Rng random(kSeed, kBenchStream);
  std::vector<TokenId> ids(kSteps * kBatch);
  std::vector<TokenId> targets(kSteps * kBatch);
  for (TokenId& id : ids) id = static_cast<TokenId>(random.uniform() * kVocabulary);
  for (TokenId& id : targets) id = static_cast<TokenId>(random.uniform() * kVocabulary);

  const auto session = network->open({.batch = kBatch, .max_steps = kSteps, .training = true});
  session->reset();
  session->gradients({.steps = kSteps,
                      .batch = kBatch,
                      .ids = ids,
                      .targets = targets,
                      .weights = {},
                      .reset = {},
                      .loss_scale = 1.0F / (kSteps * kBatch)},
                     {});
  Gradients gradients;
  gradients.analytic.resize(layout.arena_size());
  network->read(Arena::kGradients, gradients.analytic);

  const std::vector<double> exact(parameters.begin(), parameters.end());
  const reference::Window window{.steps = kSteps,
                                 .batch = kBatch,
                                 .ids = ids,
                                 .inputs = {},
                                 .targets = targets,
                                 .weights = {},
                                 .reset = {},
                                 .loss_scale = 1.0 / (kSteps * kBatch)};
  gradients.numeric = reference::numeric_gradients(layout, exact, window, reference::State::zero(shape, kBatch));
  return gradients;
}

/// Prints a table; true if every tensor is within the tolerance.
bool check_cell(Backend& backend, Cell cell) {
  const NetworkShape shape{cell, kLayers, kHidden, kVocabulary};
  const Gradients gradients = both_gradients(backend, shape);
  // The longest chain of sums: G*H products backward, for each of T steps, summed over T*B positions. The differences
  // themselves are in double and good to 1e-10 of a loss near 1.
  const double chain = static_cast<double>(gate_count(cell)) * kHidden * kSteps * kBatch;
  const double tolerance = 4 * std::ceil(std::log2(chain)) * std::numeric_limits<float>::epsilon();

  std::vector<std::vector<std::string>> table{{"tensor", "largest |gradient|", "max |error|", "relative", "verdict"}};
  bool all = true;
  const ParameterLayout layout(shape);
  for (const ParameterTensor& tensor : layout.tensors()) {
    double largest = 0;
    double worst = 0;
    for (std::size_t i = tensor.offset; i < tensor.offset + tensor.count(); ++i) {
      const double error = std::abs(static_cast<double>(gradients.analytic[i]) - gradients.numeric[i]);
      largest = std::max(largest, std::abs(gradients.numeric[i]));
      if (std::isnan(error) || error > worst) worst = error;  // a NaN stays: nothing compares above it
    }
    const double relative = worst / largest;
    const bool good = relative <= tolerance;  // false for NaN, and for a tensor without any gradient
    all = all && good;
    table.push_back({tensor.name, format_scientific(largest, 2), format_scientific(worst, 2),
                     format_scientific(relative, 2), good ? "ok" : "WRONG"});
  }
  write_stdout(fmt::format("{} (tolerance {:.2e})\n{}\n", shape_name(shape), tolerance, format_table(table)));
  return all;
}

}  // namespace

ExitCode gradcheck_command(const Arguments& arguments) {
  std::string cell;
  std::string device = "auto";
  std::string implementation = "auto";
  Options options("gradcheck", "Compares a device's analytic gradients with numeric ones.", kEpilog);
  options.text("--cell", cell, "lstm, gru or rnn; without it all three", "CELL");
  add_device(options, device);
  add_implementation(options, implementation);
  if (!options.parse(arguments)) return ExitCode::kOk;

  std::vector<Cell> cells{Cell::kLstm, Cell::kGru, Cell::kRnnTanh};
  if (options.given("--cell")) {
    if (cell == "lstm") {
      cells = {Cell::kLstm};
    } else if (cell == "gru") {
      cells = {Cell::kGru};
    } else if (cell == "rnn") {
      cells = {Cell::kRnnTanh};
    } else {
      throw UsageError("--cell is '" + cell + "', expected lstm, gru or rnn");
    }
  }
  const auto backend = open_backend({.device = device, .implementation = parse_implementation(implementation)});
  say(fmt::format("device: {} ({})", backend->info().backend, backend->info().name));
  bool all = true;
  for (const Cell each : cells) all = check_cell(*backend, each) && all;
  if (!all) throw RunError("gradients of " + backend->info().backend + " are outside the tolerance (WRONG above)");
  write_stdout("all gradients agree\n");
  return ExitCode::kOk;
}

}  // namespace charrnn
