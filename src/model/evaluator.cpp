#include "model/evaluator.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numbers>

#include "charrnn/error.h"
#include "data/loader.h"

namespace charrnn {
namespace {

/// One pass over all that the lanes read, in the text's order, so that the offset named is the first.
void check_characters(const Vocabulary& vocabulary, std::string_view text, std::vector<LaneRange> lanes,
                      const std::string& what) {
  std::array<bool, 256> known{};
  for (const std::uint8_t byte : vocabulary.bytes()) known[byte] = true;
  std::sort(lanes.begin(), lanes.end(), [](const LaneRange& a, const LaneRange& b) { return a.start < b.start; });
  for (const LaneRange& lane : lanes) {
    const std::string_view part =
        text.substr(static_cast<std::size_t>(lane.start), static_cast<std::size_t>(lane.count) + 1);
    const auto bad =
        std::find_if(part.begin(), part.end(), [&known](char c) { return !known[static_cast<std::uint8_t>(c)]; });
    if (bad == part.end()) continue;
    const std::int64_t offset = lane.start + (bad - part.begin());
    throw DataError(what + ": the character " + printable(static_cast<std::uint8_t>(*bad)) + " at offset " +
                    std::to_string(offset) + " is not in the network's vocabulary of " +
                    std::to_string(vocabulary.size()) +
                    " characters, so it cannot be scored; remove it from the text, or train on a text that has it");
  }
}

}  // namespace

std::vector<LaneRange> cut_lanes(std::int64_t begin, std::int64_t end, int streams) {
  const std::int64_t predictions = end - begin - 1;
  if (predictions < 1) {
    throw DataError("a text of " + std::to_string(std::max<std::int64_t>(0, end - begin)) +
                    " characters has nothing to predict, expected at least 2");
  }
  const std::int64_t lanes = std::clamp<std::int64_t>(streams, 1, predictions);
  std::vector<LaneRange> ranges;
  ranges.reserve(static_cast<std::size_t>(lanes));
  std::int64_t start = begin;
  for (std::int64_t i = 0; i < lanes; ++i) {
    const std::int64_t count = predictions / lanes + (i < predictions % lanes ? 1 : 0);
    ranges.push_back({start, count});
    start += count;
  }
  return ranges;
}

int evaluation_steps(std::size_t lanes) {
  constexpr std::size_t kCharacters = 8192;  // of a window
  return static_cast<int>(std::clamp<std::size_t>(kCharacters / std::max<std::size_t>(lanes, 1), 16, 512));
}

EvaluationResult evaluate_text(Network& network, const Vocabulary& vocabulary, std::string_view text,
                               const std::vector<LaneRange>& lanes, int steps, const Progress& progress,
                               const std::function<bool()>& cancelled, const std::string& what) {
  if (lanes.empty()) throw ShapeError("an evaluation has no lanes, expected at least one");
  for (const LaneRange& lane : lanes) {
    if (lane.start < 0 || lane.count < 0 || lane.start + lane.count >= static_cast<std::int64_t>(text.size())) {
      throw ShapeError("an evaluation's lane starts at " + std::to_string(lane.start) + " and predicts " +
                       std::to_string(lane.count) + " characters of a text of " + std::to_string(text.size()));
    }
  }
  check_characters(vocabulary, text, lanes, what);

  const auto session = network.open({.batch = static_cast<int>(lanes.size()), .max_steps = steps, .training = false});
  session->reset();
  const std::int64_t windows = evaluation_windows(lanes, steps);
  WindowLoss sum;
  EvaluationResult result;
  HostWindow window;
  for (std::int64_t i = 0; i < windows; ++i) {
    if (cancelled && cancelled()) {
      result.complete = false;
      break;
    }
    fill_evaluation_window(text, vocabulary, lanes, steps, i, window);
    const WindowLoss loss = session->evaluate(window.view());
    sum.nats += loss.nats;
    sum.weight += loss.weight;
    sum.correct += loss.correct;
    if (progress) progress(static_cast<double>(i + 1) / static_cast<double>(windows));
  }
  result.nats_per_char = sum.nats / sum.weight;  // NaN when cancelled before the first window
  result.bits_per_char = result.nats_per_char / std::numbers::ln2;
  result.perplexity = std::exp(result.nats_per_char);
  result.accuracy = sum.correct / sum.weight;
  result.characters = static_cast<std::int64_t>(std::llround(sum.weight));
  return result;
}

}  // namespace charrnn
