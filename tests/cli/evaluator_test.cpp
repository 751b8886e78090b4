#include "model/evaluator.h"

#include <cmath>
#include <numbers>

#include "charrnn/error.h"
#include "cli/matchers.h"
#include "cli/small_network.h"
#include "support/catch.h"

namespace charrnn {
namespace {

using testing::contains;
using testing::small_text;
using testing::SmallNetwork;

struct Sums {
  double nats = 0;
  double correct = 0;
};

/// A lane's loss, a step and a softmax at a time.
Sums by_hand(SmallNetwork& small, std::string_view text, LaneRange lane) {
  const auto session = small.network->open({.batch = 1, .max_steps = 1, .training = false});
  const int V = small.vocabulary.size();
  std::vector<float> logits(static_cast<std::size_t>(V));
  Sums sums;
  for (std::int64_t i = lane.start; i < lane.start + lane.count; ++i) {
    const TokenId x = small.vocabulary.find(static_cast<std::uint8_t>(text[static_cast<std::size_t>(i)]));
    const TokenId y = small.vocabulary.find(static_cast<std::uint8_t>(text[static_cast<std::size_t>(i) + 1]));
    session->forward({.steps = 1, .batch = 1, .ids = {&x, 1}, .targets = {}, .weights = {}, .reset = {}}, logits);
    double sum = 0;
    for (const float logit : logits) sum += std::exp(static_cast<double>(logit));
    sums.nats += std::log(sum) - static_cast<double>(logits[static_cast<std::size_t>(y)]);
    sums.correct += std::max_element(logits.begin(), logits.end()) - logits.begin() == y ? 1 : 0;
  }
  return sums;
}

}  // namespace

TEST_CASE("lanes predict each character but the first once", "[evaluator]") {
  const std::int64_t begin = GENERATE(0, 17);
  const std::int64_t length = GENERATE(2, 3, 10, 101);
  const int streams = GENERATE(1, 2, 3, 7, 1000);
  const auto lanes = cut_lanes(begin, begin + length, streams);
  CHECK(static_cast<std::int64_t>(lanes.size()) == std::min<std::int64_t>(streams, length - 1));
  std::int64_t next = begin;
  for (const LaneRange& lane : lanes) {
    CHECK(lane.start == next);
    CHECK(lane.count >= lanes.back().count);
    CHECK(lane.count <= lanes.back().count + 1);
    next += lane.count;
  }
  CHECK(next == begin + length - 1);
}

TEST_CASE("a text without anything to predict is refused", "[evaluator]") {
  CHECK_THROWS_AS(cut_lanes(0, 1, 1), DataError);
  CHECK_THROWS_AS(cut_lanes(5, 5, 3), DataError);
}

TEST_CASE("a text's loss is the mean of its characters' nats", "[evaluator]") {
  SmallNetwork small(GENERATE(Cell::kLstm, Cell::kGru, Cell::kRnnTanh));
  const std::string text = small_text(83);
  const int streams = GENERATE(1, 4);
  const int steps = GENERATE(1, 16, 100);  // 82 predictions: windows that fit, that do not, and one that is too long
  const auto lanes = cut_lanes(0, 83, streams);
  const EvaluationResult result = evaluate_text(*small.network, small.vocabulary, text, lanes, steps);
  Sums expected;
  for (const LaneRange& lane : lanes) {
    const Sums sums = by_hand(small, text, lane);
    expected.nats += sums.nats;
    expected.correct += sums.correct;
  }
  CHECK(result.characters == 82);
  CHECK(result.complete);
  // The two ways add the same products in another order: 4 ceil(log2(13 * 82)) eps of fp32 in a logit.
  CHECK(result.nats_per_char == Approx(expected.nats / 82).epsilon(5.3e-6));
  CHECK(result.bits_per_char == Approx(result.nats_per_char / std::numbers::ln2));
  CHECK(result.perplexity == Approx(std::exp(result.nats_per_char)));
  CHECK(result.accuracy == Approx(expected.correct / 82));
}

TEST_CASE("a region is scored without what lies around it", "[evaluator]") {
  SmallNetwork small;
  const std::string text = small_text(60);
  const std::string around = "Z" + text + "Z";
  const auto inner = evaluate_text(*small.network, small.vocabulary, around, cut_lanes(1, 61, 2), 8);
  const auto alone = evaluate_text(*small.network, small.vocabulary, text, cut_lanes(0, 60, 2), 8);
  CHECK(inner.nats_per_char == alone.nats_per_char);
}

TEST_CASE("a character outside the vocabulary is refused with its offset before the work", "[evaluator]") {
  SmallNetwork small;
  std::string text = small_text(500);
  text[333] = 'Q';
  text[400] = 'R';
  bool worked = false;
  try {
    evaluate_text(
        *small.network, small.vocabulary, text, cut_lanes(0, 500, 3), 8, [&worked](double) { worked = true; }, {},
        "a.txt");
    FAIL("not refused");
  } catch (const DataError& error) {
    CHECK_THAT(error.what(), contains("a.txt") && contains("'Q'") && contains("offset 333"));
  }
  CHECK(!worked);
}

TEST_CASE("an evaluation tells its progress and can be cancelled", "[evaluator]") {
  SmallNetwork small;
  const std::string text = small_text(101);
  double last = 0;
  const auto whole =
      evaluate_text(*small.network, small.vocabulary, text, cut_lanes(0, 101, 1), 10, [&last](double fraction) {
        CHECK(fraction > last);
        last = fraction;
      });
  CHECK(last == 1);
  CHECK(whole.characters == 100);
  const auto part = evaluate_text(*small.network, small.vocabulary, text, cut_lanes(0, 101, 1), 10, {},
                                  [n = 0]() mutable { return ++n > 3; });
  CHECK(!part.complete);
  CHECK(part.characters == 30);
}

TEST_CASE("lanes outside the text are refused", "[evaluator]") {
  SmallNetwork small;
  CHECK_THROWS_AS(evaluate_text(*small.network, small.vocabulary, "abc", {{0, 3}}, 8), ShapeError);
  CHECK_THROWS_AS(evaluate_text(*small.network, small.vocabulary, "abc", {}, 8), ShapeError);
}

}  // namespace charrnn
