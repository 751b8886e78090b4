// The lines and JSON fields that several commands share.
#pragma once

#include <nlohmann/json.hpp>

#include "backend/backend.h"
#include "charrnn/checkpoint.h"
#include "model/loaded_model.h"

namespace charrnn {

/// "checkpoint: PATH (the run's best, step N)" on stderr.
void say_which(const ResolvedCheckpoint& source, std::int64_t step);

/// Fields checkpoint, step, device, precision, threads and, where there is a choice, implementation.
void describe(nlohmann::ordered_json& object, const LoadedModel& model);
/// Fields device, precision, threads, implementation.
void describe(nlohmann::ordered_json& object, const Backend& backend, const Network& network);

/// What the backend has to tell (Backend::take_notes), on stderr.
void say_notes(Backend& backend);

/// A shape in words: "lstm, 2 x 512, 100 characters".
std::string shape_name(const NetworkShape& shape);

}  // namespace charrnn
