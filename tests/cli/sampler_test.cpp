#include "charrnn/sampler.h"

#include "charrnn/error.h"
#include "cli/matchers.h"
#include "cli/small_network.h"
#include "support/catch.h"

namespace charrnn {
namespace {

using testing::contains;
using testing::small_text;
using testing::SmallNetwork;

std::vector<std::string> sample(SmallNetwork& small, const SampleSettings& settings) {
  return sample_texts(*small.network, small.vocabulary, settings);
}

}  // namespace

TEST_CASE("a text has the prime and as many characters as asked for", "[sampler]") {
  SmallNetwork small;
  SampleSettings settings;
  settings.length = 50;
  settings.prime = "abc";
  const auto texts = sample(small, settings);
  REQUIRE(texts.size() == 1);
  CHECK(texts[0].size() == 53);
  CHECK(texts[0].starts_with("abc"));
}

TEST_CASE("the seed decides the text", "[sampler]") {
  SmallNetwork small;
  SampleSettings settings;
  settings.length = 60;
  settings.seed = 42;
  const auto once = sample(small, settings);
  CHECK(sample(small, settings) == once);
  settings.seed = 43;
  CHECK(sample(small, settings) != once);
}

TEST_CASE("text i is the same whatever the count", "[sampler]") {
  const Cell cell = GENERATE(Cell::kLstm, Cell::kGru, Cell::kRnnTanh);
  SmallNetwork small(cell);
  SampleSettings settings;
  settings.length = 40;
  settings.prime = GENERATE(std::string(), std::string("ab c"));
  settings.count = 5;
  const auto five = sample(small, settings);
  settings.count = 2;
  const auto two = sample(small, settings);
  settings.count = 1;
  const auto one = sample(small, settings);
  CHECK(one[0] == five[0]);
  CHECK(two[0] == five[0]);
  CHECK(two[1] == five[1]);
  CHECK(five[1] != five[0]);
  CHECK(five[2] != five[1]);
}

TEST_CASE("the prime is fed whole, also when it is longer than a window", "[sampler]") {
  SmallNetwork small;
  SampleSettings settings;
  settings.greedy = true;
  settings.length = 1;
  settings.prime = small_text(GENERATE(1, 2, 64, 65, 66, 200));
  const auto texts = sample(small, settings);

  const auto session = small.network->open({.batch = 1, .max_steps = 1, .training = false});
  std::vector<float> logits(11);
  for (const TokenId id : small.vocabulary.encode(settings.prime, "the prime")) {
    session->forward({.steps = 1, .batch = 1, .ids = {&id, 1}, .targets = {}, .weights = {}, .reset = {}}, logits);
  }
  const TokenId expected = draw(logits.data(), 11, settings, 0);
  CHECK(texts[0].back() == static_cast<char>(small.vocabulary.byte(expected)));
}

TEST_CASE("characters are emitted as they come, and are the text", "[sampler]") {
  SmallNetwork small;
  SampleSettings settings;
  settings.length = 20;
  settings.count = 3;
  settings.prime = GENERATE(std::string(), std::string("hi"));
  std::vector<std::string> emitted(3);
  const auto texts = sample_texts(*small.network, small.vocabulary, settings, [&](int text, std::string_view bytes) {
    emitted[static_cast<std::size_t>(text)] += bytes;
  });
  CHECK(emitted == texts);
}

TEST_CASE("a text ends with its stop text, and the others go on", "[sampler]") {
  SmallNetwork small;
  SampleSettings settings;
  settings.length = 300;
  settings.count = 4;
  settings.prime = "a";
  const auto whole = sample(small, settings);
  settings.stop = "e";
  const auto stopped = sample(small, settings);
  for (std::size_t i = 0; i < whole.size(); ++i) {
    const std::size_t at = whole[i].find('e');
    CHECK(stopped[i] == whole[i].substr(0, at == std::string::npos ? at : at + 1));
  }
}

TEST_CASE("without a prime the first character is drawn uniformly", "[sampler]") {
  SmallNetwork small;
  SampleSettings settings;
  settings.length = 1;
  settings.count = 2200;
  std::vector<int> counts(256);
  for (const std::string& text : sample(small, settings)) ++counts[static_cast<unsigned char>(text.at(0))];
  for (const std::uint8_t byte : small.vocabulary.bytes()) {
    CHECK(counts[byte] > 130);  // 200 expected, deviation 13.5
    CHECK(counts[byte] < 270);
  }
}

TEST_CASE("a prime outside the vocabulary is refused with its offset", "[sampler]") {
  SmallNetwork small;
  SampleSettings settings;
  settings.prime = "abZ";
  CHECK_THROWS_AS(sample(small, settings), DataError);
  try {
    sample(small, settings);
  } catch (const DataError& error) {
    CHECK_THAT(error.what(), contains("offset 2"));
    CHECK_THAT(error.what(), contains("Z"));
  }
}

TEST_CASE("settings out of range are refused", "[sampler]") {
  SmallNetwork small;
  SampleSettings settings;
  SECTION("temperature 0") { settings.temperature = 0; }
  SECTION("temperature NaN") { settings.temperature = std::numeric_limits<double>::quiet_NaN(); }
  SECTION("temperature infinite") { settings.temperature = std::numeric_limits<double>::infinity(); }
  SECTION("no text") { settings.count = 0; }
  SECTION("negative length") { settings.length = -1; }
  SECTION("negative top-k") { settings.top_k = -1; }
  CHECK_THROWS_AS(sample(small, settings), ConfigError);
}

TEST_CASE("sampling ends soon when it is cancelled", "[sampler]") {
  SmallNetwork small;
  SampleSettings settings;
  settings.length = 1000;
  int asked = 0;
  const auto texts = sample_texts(*small.network, small.vocabulary, settings, {}, [&asked] { return ++asked > 10; });
  CHECK(texts[0].size() == 10);
}

}  // namespace charrnn
