#include "backend/draw.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <string>

#include "charrnn/error.h"

namespace charrnn {

TokenId draw_character(std::span<const float> logits, const DrawSettings& settings, double random,
                       DrawScratch& scratch) {
  const auto vocabulary = static_cast<TokenId>(logits.size());
  const auto logit = [logits](TokenId id) { return logits[static_cast<std::size_t>(id)]; };
  TokenId best = 0;  // the largest logit, the lowest id of equal ones
  for (TokenId id = 0; id < vocabulary; ++id) {
    if (!std::isfinite(logit(id))) {
      throw RunError("the network's score of character " + std::to_string(id) +
                     " is not finite, so nothing can be drawn; train again with a lower learning rate");
    }
    if (logit(id) > logit(best)) best = id;
  }
  if (settings.greedy || settings.top_k == 1) return best;

  // Ids that may be drawn, ascending, so that `random` means the same whatever top_k is implemented by.
  const std::span<TokenId> all(scratch.ids.data(), logits.size());
  std::iota(all.begin(), all.end(), 0);
  std::span<TokenId> ids = all;
  if (settings.top_k > 0 && settings.top_k < vocabulary) {
    const auto likelier = [logit](TokenId a, TokenId b) { return logit(a) != logit(b) ? logit(a) > logit(b) : a < b; };
    std::nth_element(all.begin(), all.begin() + settings.top_k, all.end(), likelier);
    ids = all.first(static_cast<std::size_t>(settings.top_k));
    std::sort(ids.begin(), ids.end());
  }

  // The largest logit is subtracted first: no overflow, and a temperature near 0 leaves the largest its weight of 1.
  const std::span<double> cumulative(scratch.cumulative.data(), ids.size());
  double sum = 0;
  for (std::size_t i = 0; i < ids.size(); ++i) {
    sum += std::exp((static_cast<double>(logit(ids[i])) - static_cast<double>(logit(best))) / settings.temperature);
    cumulative[i] = sum;
  }
  const auto chosen = std::upper_bound(cumulative.begin(), cumulative.end(), random * sum);
  if (chosen == cumulative.end()) return best;  // random * sum rounded up to sum
  return ids[static_cast<std::size_t>(chosen - cumulative.begin())];
}

}  // namespace charrnn
