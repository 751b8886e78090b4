// Drawing a character from logits on the host: what the sampler and backends that draw share, so that the same logits
// and the same random number give the same character wherever it is drawn.
#pragma once

#include <span>
#include <vector>

#include "backend/backend.h"

namespace charrnn {

/// What a draw works in, so that none allocates. One for each thread.
struct DrawScratch {
  explicit DrawScratch(int vocabulary)
      : ids(static_cast<std::size_t>(vocabulary)), cumulative(static_cast<std::size_t>(vocabulary)) {}

  std::vector<TokenId> ids;        // [V]
  std::vector<double> cumulative;  // [V]
};

/// One draw from logits [V], as the settings' temperature, top_k and greedy say. `random` in [0, 1).
/// @throws RunError for a logit that is not finite
TokenId draw_character(std::span<const float> logits, const DrawSettings& settings, double random,
                       DrawScratch& scratch);

}  // namespace charrnn
