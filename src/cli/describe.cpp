#include "cli/describe.h"

#include <fmt/format.h>

#include "cli/console.h"

namespace charrnn {

void say_which(const ResolvedCheckpoint& source, std::int64_t step) {
  for (const std::string& note : source.notes) warn(note);
  const std::string choice = source.choice.empty() ? "" : "the run's " + source.choice + ", ";
  say(fmt::format("checkpoint: {} ({}step {})", source.folder.string(), choice, step));
}

void describe(nlohmann::ordered_json& object, const Backend& backend, const Network& network) {
  object["device"] = backend.info().backend;
  object["device_name"] = backend.info().name;
  object["precision"] = name_of(network.precision());
  object["threads"] = backend.info().threads;
  if (!backend.info().implementation.empty()) object["implementation"] = backend.info().implementation;
}

void describe(nlohmann::ordered_json& object, const LoadedModel& model) {
  object["checkpoint"] = model.source.folder.string();
  object["step"] = model.checkpoint.step;
  describe(object, *model.backend, *model.network);
}

void say_notes(Backend& backend) {
  for (const std::string& note : backend.take_notes()) say(note);
}

std::string shape_name(const NetworkShape& shape) {
  return fmt::format("{}, {} x {}, {} characters", cell_name(shape.cell), shape.layers, shape.hidden, shape.vocabulary);
}

}  // namespace charrnn
