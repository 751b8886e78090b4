#include "data/loader.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <limits>
#include <numeric>

#include "charrnn/error.h"
#include "data/text_files.h"
#include "support/catch.h"

namespace charrnn {
namespace {

using Catch::Matchers::Contains;
using test::Draw;
using test::random_text;

constexpr std::int64_t kNoLimit = std::numeric_limits<std::int64_t>::max();

CorpusConfig split(double train, double validation, double test, SplitBy by = SplitBy::kTail) {
  CorpusConfig c;
  c.split = {train, validation, test};
  c.split_by = by;
  return c;
}

bool same(const HostWindow& a, const HostWindow& b) {
  return a.steps == b.steps && a.batch == b.batch && a.ids == b.ids && a.targets == b.targets &&
         a.weights == b.weights && a.reset == b.reset && a.weight == b.weight;
}

/// Column b of a [T,B] array as characters.
std::string lane(const Vocabulary& v, const std::vector<TokenId>& ids, int steps, int batch, int b) {
  std::string text;
  for (int t = 0; t < steps; ++t)
    text.push_back(static_cast<char>(v.byte(ids[static_cast<std::size_t>(t * batch + b)])));
  return text;
}

TEST_CASE("hello in one window: each target is the character after its input", "[data][loader]") {
  const std::string text = "hello";
  const Vocabulary v = Vocabulary::of(text);
  const StreamPlan plan = plan_streams(split(1, 0, 0), 5, 1, 4, kNoLimit);
  HostWindow w;
  for (std::int64_t step = 1; step <= 3; ++step) {  // an epoch a step
    fill_training_window(text, v, plan.training, step, w);
    CHECK(lane(v, w.ids, 4, 1, 0) == "hell");
    CHECK(lane(v, w.targets, 4, 1, 0) == "ello");
    CHECK(w.reset == std::vector<std::uint8_t>{1});
    CHECK(w.weights.empty());
    CHECK(w.view().loss_scale == 0.25F);
    CHECK(w.view().steps == 4);
    CHECK(w.view().ids.data() == w.ids.data());
  }
}

TEST_CASE("lanes are contiguous through an epoch, and an epoch starts from zero state", "[data][loader]") {
  const auto by = GENERATE(SplitBy::kTail, SplitBy::kStream);
  Draw draw(7);
  for (int round = 0; round < 60; ++round) {
    const int n = draw.between(20, 900), batch = draw.between(1, 7), sequence = draw.between(1, 11);
    INFO("round " << round << ": " << n << " characters, " << batch << "x" << sequence);
    const std::string text = random_text(static_cast<std::size_t>(n), static_cast<std::uint64_t>(round));
    const Vocabulary v = Vocabulary::of(text);
    const TrainingStreams s = plan_streams(split(0.9, 0.1, 0, by), n, batch, sequence, kNoLimit).training;
    std::vector<std::string> read(static_cast<std::size_t>(s.batch)), wanted(read);
    HostWindow w;
    for (std::int64_t step = 1; step <= 2 * s.windows_per_epoch + 1; ++step) {
      fill_training_window(text, v, s, step, w);
      REQUIRE(w.steps == s.sequence);
      REQUIRE(w.batch == s.batch);
      REQUIRE(w.weight == s.sequence * s.batch);
      const bool first = (step - 1) % s.windows_per_epoch == 0;
      REQUIRE(w.reset == std::vector<std::uint8_t>(first ? static_cast<std::size_t>(s.batch) : 0, 1));
      for (int b = 0; b < s.batch; ++b) {
        std::string& so_far = read[static_cast<std::size_t>(b)];
        if (first) so_far.clear();
        so_far += lane(v, w.ids, w.steps, w.batch, b);
        const auto begin = static_cast<std::size_t>(b * s.stride);
        REQUIRE(so_far == text.substr(begin, so_far.size()));
        REQUIRE(lane(v, w.targets, w.steps, w.batch, b) ==
                text.substr(begin + so_far.size() - static_cast<std::size_t>(w.steps) + 1,
                            static_cast<std::size_t>(w.steps)));
      }
    }
  }
}

TEST_CASE("evaluation predicts each character of its lanes once and pads with weight 0", "[data][loader]") {
  Draw draw(11);
  for (int round = 0; round < 300; ++round) {
    const int n = draw.between(2, 400), lanes_wanted = draw.between(1, 6), steps = draw.between(1, 17);
    const std::string text = random_text(static_cast<std::size_t>(n), static_cast<std::uint64_t>(round));
    const Vocabulary v = Vocabulary::of(text);
    std::vector<LaneRange> lanes;
    for (int b = 0; b < lanes_wanted; ++b) {  // any lanes, of any lengths, some empty
      const int start = draw.between(0, n - 2);
      lanes.push_back({start, draw.between(b == 0 ? 1 : 0, n - 1 - start)});
    }
    std::vector<std::string> inputs(lanes.size()), targets(lanes.size());
    double weight = 0;
    HostWindow w;
    const std::int64_t windows = evaluation_windows(lanes, steps);
    for (std::int64_t i = 0; i < windows; ++i) {
      fill_evaluation_window(text, v, lanes, steps, i, w);
      REQUIRE(w.batch == lanes_wanted);
      REQUIRE(w.steps >= 1);
      REQUIRE((w.steps == steps || (i == windows - 1 && w.steps < steps)));
      REQUIRE(w.reset.size() == (i == 0 ? lanes.size() : 0));
      REQUIRE(std::all_of(w.ids.begin(), w.ids.end(), [&](TokenId id) { return id >= 0 && id < v.size(); }));
      double sum = 0;
      for (int t = 0; t < w.steps; ++t) {
        for (std::size_t b = 0; b < lanes.size(); ++b) {
          const std::size_t at = static_cast<std::size_t>(t) * lanes.size() + b;
          const float here = w.weights.empty() ? 1.0F : w.weights[at];
          sum += here;
          if (here == 0.0F) continue;
          inputs[b].push_back(static_cast<char>(v.byte(w.ids[at])));
          targets[b].push_back(static_cast<char>(v.byte(w.targets[at])));
        }
      }
      REQUIRE(sum == w.weight);
      weight += sum;
    }
    std::int64_t wanted = 0;
    for (std::size_t b = 0; b < lanes.size(); ++b) {
      const auto start = static_cast<std::size_t>(lanes[b].start), count = static_cast<std::size_t>(lanes[b].count);
      REQUIRE(inputs[b] == text.substr(start, count));
      REQUIRE(targets[b] == text.substr(start + 1, count));
      wanted += lanes[b].count;
    }
    REQUIRE(weight == static_cast<double>(wanted));
    CHECK_THROWS_AS(fill_evaluation_window(text, v, lanes, steps, windows, w), ShapeError);
    CHECK_THROWS_AS(fill_evaluation_window(text, v, lanes, steps, -1, w), ShapeError);
  }
  CHECK(evaluation_windows({}, 5) == 0);
}

TEST_CASE("a character that was not there when the text was indexed is named, not passed on", "[data][loader]") {
  const Vocabulary v = Vocabulary::of("ab");
  const std::string text = "abababXbab";
  const TrainingStreams s = plan_streams(split(1, 0, 0), 10, 1, 3, kNoLimit).training;
  HostWindow w;
  fill_training_window(text, v, s, 1, w);
  CHECK_THROWS_AS(fill_training_window(text, v, s, 2, w), DataError);
  CHECK_THROWS_WITH(fill_training_window(text, v, s, 2, w), Contains("'X' at offset 6"));
  CHECK_THROWS_AS(fill_evaluation_window(text, v, {{0, 9}}, 20, 0, w), DataError);
}

TEST_CASE("the loader hands out the windows in order, from any step", "[data][loader]") {
  const std::string text = random_text(1000, 3);
  const Vocabulary v = Vocabulary::of(text);
  const TrainingStreams s = plan_streams(split(0.9, 0.1, 0), 1000, 4, 7, kNoLimit).training;
  const std::int64_t first = GENERATE(as<std::int64_t>(), 1, 2, 31, 32, 33, 1'000'000'000'000);
  const int ahead = GENERATE(1, 4);
  Loader loader(text, v, s, first, ahead);
  HostWindow wanted;
  for (std::int64_t step = first; step < first + 80; ++step) {
    fill_training_window(text, v, s, step, wanted);
    REQUIRE(same(loader.next(), wanted));
  }
}

TEST_CASE("a loader that nobody reads from stops at once", "[data][loader]") {
  const std::string text = random_text(1000, 3);
  const Vocabulary v = Vocabulary::of(text);
  const TrainingStreams s = plan_streams(split(1, 0, 0), 1000, 4, 7, kNoLimit).training;
  for (int i = 0; i < 100; ++i) {
    Loader loader(text, v, s, 1 + i, 1 + i % 3);
    for (int k = 0; k < i % 5; ++k) loader.next();
  }
  CHECK_THROWS_AS(Loader(text, v, s, 0), ShapeError);
  CHECK_THROWS_AS(Loader(text, v, TrainingStreams{}, 1), ShapeError);
}

TEST_CASE("what the loader's thread throws comes out of next, after the windows before it", "[data][loader]") {
  const Vocabulary v = Vocabulary::of("ab");
  std::string text(1000, 'a');
  text[500] = 'X';
  const TrainingStreams s = plan_streams(split(1, 0, 0), 1000, 1, 10, kNoLimit).training;
  Loader loader(text, v, s, 46);  // window 49 predicts character 500
  for (int i = 0; i < 4; ++i) CHECK(loader.next().steps == 10);
  CHECK_THROWS_AS(loader.next(), DataError);
  CHECK_THROWS_AS(loader.next(), DataError);
}

TEST_CASE("windows beyond 4 GiB read where they should", "[data][loader]") {
  const std::int64_t n = std::int64_t{5} << 30;
  const test::TempFolder folder;
  const std::filesystem::path path = folder.file("sparse.txt", "");
  const int fd = ::open(path.c_str(), O_RDWR | O_CLOEXEC);
  REQUIRE(fd >= 0);
  if (::ftruncate(fd, n) != 0) {
    ::close(fd);
    WARN("this filesystem has no files of 5 GiB: not tested");
    return;
  }
  const int batch = 5, sequence = 64;
  const StreamPlan plan = plan_streams(split(0.9, 0.05, 0.05), n, batch, sequence, kNoLimit);
  const StreamPlan whole = plan_streams(split(1, 0, 0), n, batch, sequence, kNoLimit);
  const TrainingStreams& s = whole.training;
  REQUIRE(s.offset(4, 0) < std::int64_t{1} << 32);
  REQUIRE(s.offset(4, 1) > std::int64_t{1} << 32);
  // What stands in a few places: each has bytes of its own, all else is 0.
  const std::int64_t last = s.windows_per_epoch - 1;
  const std::vector<std::int64_t> places{0,
                                         s.offset(3, last),
                                         s.offset(4, 0),
                                         s.offset(4, last / 2),
                                         s.offset(4, last),
                                         plan.test.back().start + plan.test.back().count - 64};
  for (std::size_t i = 0; i < places.size(); ++i) {
    const std::string piece = random_text(65, i + 1);
    REQUIRE(::pwrite(fd, piece.data(), piece.size(), places[i]) == 65);
  }
  const auto bytes = static_cast<std::size_t>(n);
  void* const mapped = ::mmap(nullptr, bytes, PROT_READ, MAP_SHARED, fd, 0);
  ::close(fd);
  REQUIRE(mapped != MAP_FAILED);
  const std::string_view text(static_cast<const char*>(mapped), bytes);
  std::vector<std::uint8_t> all(256);
  std::iota(all.begin(), all.end(), std::uint8_t{0});
  const Vocabulary v(all);
  const auto expected = [&](std::size_t place) { return random_text(65, place + 1); };

  HostWindow w;
  fill_training_window(text, v, s, s.windows_per_epoch, w);  // the last of an epoch
  CHECK(lane(v, w.ids, sequence, batch, 3) == expected(1).substr(0, 64));
  CHECK(lane(v, w.ids, sequence, batch, 4) == expected(4).substr(0, 64));
  CHECK(lane(v, w.targets, sequence, batch, 4) == expected(4).substr(1));
  fill_training_window(text, v, s, 1 + s.windows_per_epoch, w);  // the first of the next
  CHECK(lane(v, w.ids, sequence, batch, 0) == expected(0).substr(0, 64));
  CHECK(lane(v, w.ids, sequence, batch, 4) == expected(2).substr(0, 64));  // across the 4 GiB line
  CHECK(lane(v, w.ids, sequence, batch, 1) == std::string(64, '\0'));
  CHECK(w.reset.size() == 5);
  fill_training_window(text, v, s, 1 + last / 2, w);
  CHECK(lane(v, w.targets, sequence, batch, 4) == expected(3).substr(1));
  const std::vector<LaneRange> end{plan.test.back()};
  fill_evaluation_window(text, v, end, 64, evaluation_windows(end, 64) - 1, w);
  CHECK(lane(v, w.targets, w.steps, 1, 0) == expected(5).substr(static_cast<std::size_t>(65 - w.steps)));
  ::munmap(mapped, bytes);
}

}  // namespace
}  // namespace charrnn
