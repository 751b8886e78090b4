#include "backend/window_check.h"

#include <string>

namespace charrnn {

void check_window(const Window& w, const SessionShape& shape, int vocabulary, bool with_loss) {
  const auto count = static_cast<std::size_t>(w.steps) * static_cast<std::size_t>(w.batch);
  const auto fits = [](std::size_t size, std::size_t expected) { return size == 0 || size == expected; };
  if (w.batch != shape.batch || w.steps < 1 || w.steps > shape.max_steps || w.ids.size() != count) {
    throw ShapeError("Session: the window is " + std::to_string(w.steps) + " x " + std::to_string(w.batch) + " with " +
                     std::to_string(w.ids.size()) + " ids, the session takes up to " + std::to_string(shape.max_steps) +
                     " x " + std::to_string(shape.batch));
  }
  if ((with_loss || !w.targets.empty()) && w.targets.size() != count) {
    throw ShapeError("Session: " + std::to_string(w.targets.size()) + " targets, expected " + std::to_string(count));
  }
  if (!fits(w.weights.size(), count) || !fits(w.reset.size(), static_cast<std::size_t>(w.batch))) {
    throw ShapeError("Session: " + std::to_string(w.weights.size()) + " weights and " + std::to_string(w.reset.size()) +
                     " resets, expected " + std::to_string(count) + " and " + std::to_string(w.batch) + ", or none");
  }
  for (const TokenId id : w.ids) {
    if (id < 0 || id >= vocabulary) {
      throw ShapeError("Session: id " + std::to_string(id) + " is outside [0, " + std::to_string(vocabulary) + ")");
    }
  }
  for (std::size_t i = 0; i < w.targets.size(); ++i) {
    const bool read = w.weights.empty() || w.weights[i] != 0.0F;
    if (read && (w.targets[i] < 0 || w.targets[i] >= vocabulary)) {
      throw ShapeError("Session: target " + std::to_string(w.targets[i]) + " is outside [0, " +
                       std::to_string(vocabulary) + ")");
    }
  }
}

void check_state(const NetworkShape& network, int batch, std::size_t h, std::size_t c) {
  const std::size_t expected = static_cast<std::size_t>(network.layers) * static_cast<std::size_t>(batch) *
                               static_cast<std::size_t>(network.hidden);
  if (h != expected || c != (has_cell_state(network.cell) ? expected : 0)) {
    throw ShapeError("Session: h and c must be [L,B,H], c empty for a cell without it");
  }
}

}  // namespace charrnn
