// The loss of a network on a text.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "backend/backend.h"
#include "charrnn/vocabulary.h"
#include "data/corpus.h"
#include "data/streams.h"

namespace charrnn {

struct EvaluationResult {
  double nats_per_char = 0;
  double bits_per_char = 0;
  double perplexity = 0;        // exp(nats_per_char)
  double accuracy = 0;          // share of the characters whose logit was the largest
  std::int64_t characters = 0;  // predicted
  bool complete = true;         // false: cancelled; the numbers are of what was done until then
};

/// Cuts text [begin, end) into lanes that predict each of its characters but the first exactly once. Lanes differ by at
/// most one character; there are no more of them than characters to predict.
/// @throws DataError when the region has fewer than two characters
std::vector<LaneRange> cut_lanes(std::int64_t begin, std::int64_t end, int streams);

/// Steps of a window that keep evaluation's memory small and its products large, for so many lanes.
int evaluation_steps(std::size_t lanes);

/// Each lane from zero state, in windows of `steps`; dropout off.
/// @param what   what the text is called in messages
/// @throws DataError with the offset of the first character that is outside the vocabulary, before anything is computed
EvaluationResult evaluate_text(Network& network, const Vocabulary& vocabulary, std::string_view text,
                               const std::vector<LaneRange>& lanes, int steps, const Progress& progress = {},
                               const std::function<bool()>& cancelled = {}, const std::string& what = "the text");

}  // namespace charrnn
