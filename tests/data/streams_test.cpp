#include "data/streams.h"

#include <algorithm>
#include <limits>
#include <sstream>

#include "charrnn/error.h"
#include "data/text_files.h"
#include "support/catch.h"

namespace charrnn {
namespace {

using Catch::Matchers::Contains;
using test::Draw;

constexpr std::int64_t kNoLimit = std::numeric_limits<std::int64_t>::max();

CorpusConfig split(double train, double validation, double test, SplitBy by = SplitBy::kTail) {
  CorpusConfig c;
  c.split = {train, validation, test};
  c.split_by = by;
  return c;
}

std::string notes(const StreamPlan& plan) {
  std::string all;
  for (const std::string& note : plan.notes) all += note + "\n";
  return all;
}

std::int64_t scored(const std::vector<LaneRange>& lanes) {
  std::int64_t sum = 0;
  for (const LaneRange& lane : lanes) sum += lane.count;
  return sum;
}

TEST_CASE("char-rnn's numbers: tiny-shakespeare by stream", "[data][streams]") {
  const StreamPlan plan = plan_streams(split(0.95, 0.05, 0, SplitBy::kStream), 1'115'394, 50, 50, kNoLimit);
  CHECK(plan.training.stride == 446 * 50);
  CHECK(plan.training.windows_per_epoch == 423);
  REQUIRE(plan.validation.size() == 50);
  for (std::size_t b = 0; b < plan.validation.size(); ++b) {
    CHECK(plan.validation[b].count == 23 * 50);
    CHECK(plan.validation[b].start == static_cast<std::int64_t>(b) * 446 * 50 + 423 * 50);
  }
  CHECK(plan.test.empty());
  CHECK(plan.train_characters == 423 * 2500);
  CHECK(plan.validation_characters == 23 * 2500);
  CHECK(plan.validation_begin == plan.validation_end);
  CHECK(plan.left_out == 1'115'393 - 446 * 2500);
  CHECK(notes(plan) ==
        "393 characters at the text's end do not fill 50 streams of 50 and are left out of all splits "
        "(0.04%).\n");
}

TEST_CASE("a share is what its decimal number says, not what the binary one falls short of", "[data][streams]") {
  CHECK(plan_streams(split(0.9, 0.05, 0.05), 1000, 1, 1, kNoLimit).train_characters == 900);
  for (std::int64_t n : {100, 1000, 100'000, 1'000'000'000}) {
    for (int hundredths = 1; hundredths <= 98; ++hundredths) {
      const StreamPlan plan =
          plan_streams(split(hundredths / 100.0, 0.01, (99 - hundredths) / 100.0), n * 2, 1, 1, kNoLimit);
      CHECK(plan.train_characters == n * 2 / 100 * hundredths);
      CHECK(plan.test_characters == n * 2 / 100 * (99 - hundredths));
      CHECK(plan.validation_characters == n * 2 / 100);
    }
  }
  CHECK(plan_streams(split(0.9, 0.1, 0), 1009, 1, 1, kNoLimit).train_characters == 908);  // 908.1
  CHECK(plan_streams(split(0.9, 0.1, 0), 1011, 1, 1, kNoLimit).train_characters == 909);  // 909.9
}

TEST_CASE("steps read the windows in turn, and begin again with each epoch", "[data][streams]") {
  const TrainingStreams streams{.batch = 2, .sequence = 5, .stride = 17, .windows_per_epoch = 3};
  const std::int64_t windows[] = {0, 1, 2, 0, 1, 2, 0};
  for (std::int64_t step = 1; step <= 7; ++step) CHECK(streams.window_of(step) == windows[step - 1]);
  CHECK(streams.window_of(3'000'000'000'002) == 1);
}

TEST_CASE("hello: five characters are one window of four", "[data][streams]") {
  const StreamPlan plan = plan_streams(split(1, 0, 0), 5, 1, 4, kNoLimit);
  CHECK(plan.training.batch == 1);
  CHECK(plan.training.sequence == 4);
  CHECK(plan.training.windows_per_epoch == 1);
  CHECK(plan.left_out == 0);
  CHECK(plan.validation.empty());
  CHECK(plan.test.empty());
  CHECK(plan.notes.empty());
}

TEST_CASE("tiny texts get a smaller batch, then shorter windows, and say so", "[data][streams]") {
  const auto by = GENERATE(SplitBy::kTail, SplitBy::kStream);
  SECTION("fewer streams") {
    const StreamPlan plan = plan_streams(split(1, 0, 0, by), 3751, 100, 100, kNoLimit);
    CHECK(plan.training.batch == 37);
    CHECK(plan.training.sequence == 100);
    CHECK(plan.training.windows_per_epoch == 1);
    CHECK(plan.left_out == 50);
    CHECK_THAT(notes(plan),
               Contains("The 3,751 characters to train on do not fill 100 streams of 100: the batch is 37."));
  }
  SECTION("one short stream") {
    const StreamPlan plan = plan_streams(split(1, 0, 0, by), 8, 50, 100, kNoLimit);
    CHECK(plan.training.batch == 1);
    CHECK(plan.training.sequence == 7);
    CHECK(plan.training.windows_per_epoch == 1);
    CHECK(plan.left_out == 0);
    CHECK(notes(plan) ==
          "The 8 characters to train on do not fill one window of 100: the sequence is 7 and the batch 1, "
          "not 50.\n");
  }
  SECTION("the smallest text") {
    const StreamPlan plan = plan_streams(split(1, 0, 0, by), 2, 1, 1, kNoLimit);
    CHECK(plan.training.windows_per_epoch == 1);
    CHECK(plan.notes.empty());
  }
}

TEST_CASE("a text or a train share with nothing to predict is refused", "[data][streams]") {
  CHECK_THROWS_AS(plan_streams(split(1, 0, 0), 1, 1, 1, kNoLimit), DataError);
  CHECK_THROWS_AS(plan_streams(split(1, 0, 0), 0, 1, 1, kNoLimit), DataError);
  CHECK_THROWS_AS(plan_streams(split(0.9, 0.05, 0.05), 2, 1, 1, kNoLimit), DataError);
  CHECK_THROWS_WITH(plan_streams(split(0.9, 0.05, 0.05), 2, 1, 1, kNoLimit),
                    Contains("train share of 90% of a text of 2 characters is 1"));
  CHECK_THROWS_AS(plan_streams(split(1, 0, 0), 9, 0, 1, kNoLimit), ShapeError);
  CHECK_THROWS_AS(plan_streams(split(1, 0, 0), 9, 1, 0, kNoLimit), ShapeError);
  CHECK_THROWS_AS(plan_streams(split(1, 0, 0), 9, 1, 1, 0), ShapeError);
}

TEST_CASE("what is left out, missing or cut short is said in full sentences", "[data][streams]") {
  const StreamPlan tail = plan_streams(split(0.9, 0.1, 0), 10'000, 10, 100, 500);
  CHECK(notes(tail) ==
        "999 characters at the lanes' ends do not fill a window of 100 and are left out of training "
        "(11.10%).\n"
        "Validation scores the first 500 of the 999 characters that it could (validate.characters).\n");
  const StreamPlan missing = plan_streams(split(0.9, 0.05, 0.05), 12, 1, 9, kNoLimit);
  CHECK(notes(missing) ==
        "The test share of 5% comes to 0 characters, too little to predict anything: there is no test.\n");
  CHECK(missing.validation.size() == 1);
  const StreamPlan one = plan_streams(split(0.9, 0.05, 0.05), 5, 1, 2, kNoLimit);
  CHECK(notes(one) ==
        "1 character at the lane's end does not fill a window of 2 and is left out of training (33.33%).\n"
        "The validation share of 5% comes to 1 character, too little to predict anything: there is no "
        "validation.\n"
        "The test share of 5% comes to 0 characters, too little to predict anything: there is no test.\n");
  const StreamPlan stream = plan_streams(split(0.5, 0.5, 0, SplitBy::kStream), 201, 10, 5, 20);
  CHECK(notes(stream) ==
        "Validation scores the first 20 of the 100 characters that it could from the starts of its lanes "
        "(validate.characters).\n");
}

TEST_CASE("a share of zero leaves the rest to the other split", "[data][streams]") {
  const StreamPlan tail = plan_streams(split(0.85, 0, 0.15), 999, 1, 1, kNoLimit);
  CHECK(tail.train_characters == 849);
  CHECK(tail.validation_characters == 0);
  CHECK(tail.test_characters == 150);
  CHECK(tail.test_begin == 849);
  CHECK(tail.test_end == 999);
  const StreamPlan stream = plan_streams(split(0.85, 0, 0.15, SplitBy::kStream), 100, 1, 10, kNoLimit);
  CHECK(stream.training.windows_per_epoch == 7);
  CHECK(scored(stream.test) == 20);
}

TEST_CASE("offsets are 64-bit", "[data][streams]") {
  const std::int64_t n = 5'368'709'120;
  const StreamPlan tail = plan_streams(split(0.9, 0.05, 0.05), n, 100, 100, 1'000'000);
  CHECK(tail.train_characters == 4'831'838'208);
  CHECK(tail.training.offset(99, tail.training.windows_per_epoch - 1) + 100 < tail.train_characters);
  CHECK(tail.training.offset(99, 0) == 99 * ((4'831'838'208 - 1) / 100));
  CHECK(tail.test_begin == n - 268'435'456);
  CHECK(tail.test.back().start > std::int64_t{1} << 32);
  CHECK(scored(tail.test) == 1'000'000);
  const StreamPlan stream = plan_streams(split(0.9, 0.05, 0.05, SplitBy::kStream), n, 1 << 20, 1 << 10, kNoLimit);
  CHECK(stream.training.windows_per_epoch == 3);  // floor(0.9 * 4)
  CHECK(stream.validation.back().start == ((std::int64_t{1} << 20) - 1) * 4 * 1024 + 3 * 1024);
}

// The rules in words, checked by counting how often each character is predicted, and by which split.
TEST_CASE("no character is predicted twice, and none is lost unsaid", "[data][streams]") {
  Draw draw(20150521);
  constexpr std::array<std::array<double, 3>, 7> kSplits{{{0.9, 0.05, 0.05},
                                                          {0.95, 0.05, 0},
                                                          {1, 0, 0},
                                                          {0.5, 0.25, 0.25},
                                                          {0.8, 0, 0.2},
                                                          {0.34, 0.33, 0.33},
                                                          {0.6, 0.1, 0.3}}};
  int planned = 0;
  for (int round = 0; round < 4000; ++round) {
    const std::int64_t n = draw.between(2, round % 2 == 0 ? 60 : 3000);
    const int batch = draw.between(1, 9), sequence = draw.between(1, 13);
    const std::int64_t limit = draw.between(0, 2) == 0 ? draw.between(1, 200) : kNoLimit;
    CorpusConfig config;
    config.split = kSplits[static_cast<std::size_t>(draw.between(0, 6))];
    config.split_by = draw.between(0, 1) == 0 ? SplitBy::kTail : SplitBy::kStream;
    const bool tail = config.split_by == SplitBy::kTail;
    INFO("round " << round << ": " << n << " characters, " << batch << "x" << sequence << ", limit " << limit
                  << ", split " << config.split[0] << " " << config.split[1] << " " << config.split[2]
                  << (tail ? " tail" : " stream"));
    StreamPlan plan;
    try {
      plan = plan_streams(config, n, batch, sequence, limit);
    } catch (const DataError&) {
      // Only where the share, a floor, is a single character or none.
      REQUIRE(tail);
      REQUIRE(config.split[0] * static_cast<double>(n) < 2);
      continue;
    }
    ++planned;
    const TrainingStreams& t = plan.training;
    REQUIRE(t.batch >= 1);
    REQUIRE(t.batch <= batch);
    REQUIRE(t.sequence >= 1);
    REQUIRE(t.sequence <= sequence);
    REQUIRE((t.sequence == sequence || t.batch == 1));
    REQUIRE(t.windows_per_epoch >= 1);

    std::string by(static_cast<std::size_t>(n), '.');  // which split predicts each character
    bool once = true;
    const auto predict = [&](std::int64_t start, std::int64_t count, char who) {
      REQUIRE(start >= 0);
      REQUIRE(start + count < n);
      for (std::int64_t i = start + 1; i <= start + count; ++i) {
        char& c = by[static_cast<std::size_t>(i)];
        once = once && c == '.';
        c = who;
      }
    };
    for (int b = 0; b < t.batch; ++b) {
      for (std::int64_t w = 0; w < t.windows_per_epoch; ++w) predict(t.offset(b, w), t.sequence, 't');
    }
    for (const LaneRange& lane : plan.validation) predict(lane.start, lane.count, 'v');
    for (const LaneRange& lane : plan.test) predict(lane.start, lane.count, 'e');
    REQUIRE(once);
    const auto count_of = [&](char who) { return static_cast<std::int64_t>(std::count(by.begin(), by.end(), who)); };
    const std::int64_t trained = count_of('t'), validated = count_of('v'), tested = count_of('e');
    REQUIRE(trained == t.windows_per_epoch * t.batch * t.sequence);
    REQUIRE(validated <= limit);
    REQUIRE(tested <= limit);
    REQUIRE((plan.left_out == 0 || plan.notes.size() >= 1));
    REQUIRE((t.batch == batch || plan.notes.size() >= 1));

    if (tail) {
      REQUIRE(plan.train_characters + plan.validation_characters + plan.test_characters == n);
      REQUIRE(trained + plan.left_out == plan.train_characters - 1);
      REQUIRE(t.offset(t.batch - 1, t.windows_per_epoch) < plan.train_characters);
      REQUIRE(plan.left_out < t.batch * (t.sequence + 1));  // a rest of a window a lane, and the rest of the division
      REQUIRE(plan.validation_begin == plan.train_characters);
      REQUIRE(plan.test_begin == plan.validation_end);
      REQUIRE(plan.test_end == n);
      const auto check_region = [&](const std::vector<LaneRange>& lanes, std::int64_t begin, std::int64_t end) {
        REQUIRE(scored(lanes) == std::min(limit, std::max<std::int64_t>(0, end - begin - 1)));
        if (lanes.empty()) return;
        REQUIRE(lanes.size() <= static_cast<std::size_t>(batch));
        REQUIRE(lanes.front().start == begin);
        for (std::size_t b = 1; b < lanes.size(); ++b) {
          REQUIRE(lanes[b].start == lanes[b - 1].start + lanes[b - 1].count);  // contiguous
          REQUIRE(lanes[b].count >= sequence);
        }
        REQUIRE(lanes.front().count - lanes.back().count <= 1);
      };
      check_region(plan.validation, plan.validation_begin, plan.validation_end);
      check_region(plan.test, plan.test_begin, plan.test_end);
    } else {
      REQUIRE(plan.train_characters == trained);
      REQUIRE(plan.train_characters + plan.validation_characters + plan.test_characters + plan.left_out == n - 1);
      REQUIRE(plan.left_out < static_cast<std::int64_t>(t.batch) * t.sequence);
      for (const auto* lanes : {&plan.validation, &plan.test}) {
        for (const LaneRange& lane : *lanes) REQUIRE(lane.count == lanes->front().count);
      }
      if (limit == kNoLimit) {
        REQUIRE(validated == plan.validation_characters);
        REQUIRE(tested == plan.test_characters);
      }
      for (std::size_t b = 0; b < plan.validation.size(); ++b) {  // validation goes on where a lane's training ends
        REQUIRE(plan.validation[b].start == t.offset(static_cast<int>(b), t.windows_per_epoch));
      }
    }
  }
  CHECK(planned > 3000);
}

}  // namespace
}  // namespace charrnn
