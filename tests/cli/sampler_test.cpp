#include "charrnn/sampler.h"

#include "charrnn/error.h"
#include "cli/matchers.h"
#include "cli/small_network.h"
#include "kernels/philox.h"
#include "support/catch.h"

namespace charrnn {
namespace {

using testing::contains;
using testing::small_text;
using testing::SmallNetwork;

std::vector<std::string> sample(SmallNetwork& small, const SampleSettings& settings) {
  return sample_texts(*small.network, small.vocabulary, settings);
}

/// Draws in chunks, as a session on a GPU may: with forward() and draw(), from the numbers that DrawSettings names.
class DrawingSession final : public Session {
 public:
  DrawingSession(std::unique_ptr<Session> cpu, int batch, int vocabulary, std::vector<int>& chunks)
      : cpu_(std::move(cpu)), batch_(batch), vocabulary_(vocabulary), chunks_(chunks) {}

  void reset() override { cpu_->reset(); }
  void get_state(std::span<float> h, std::span<float> c) override { cpu_->get_state(h, c); }
  void set_state(std::span<const float> h, std::span<const float> c) override { cpu_->set_state(h, c); }
  void forward(const Window& window, std::span<float> logits) override { cpu_->forward(window, logits); }
  void forward_dense(int steps, std::span<const float> x, std::span<float> logits) override {
    cpu_->forward_dense(steps, x, logits);
  }
  WindowLoss evaluate(const Window& window) override { return cpu_->evaluate(window); }
  WindowLoss gradients(const Window& window, const DropoutKey& key) override { return cpu_->gradients(window, key); }
  void submit_step(const Window& window, const DropoutKey& key, const UpdateSettings& settings) override {
    cpu_->submit_step(window, key, settings);
  }
  StepResult next_result() override { return cpu_->next_result(); }

  bool generate(int steps, std::span<const TokenId> ids, const DrawSettings& s, std::span<TokenId> drawn) override {
    chunks_.push_back(steps);
    const auto batch = static_cast<std::size_t>(batch_), size = static_cast<std::size_t>(vocabulary_);
    REQUIRE(drawn.size() == static_cast<std::size_t>(steps) * batch);
    SampleSettings settings;
    settings.temperature = s.temperature;
    settings.top_k = s.top_k;
    settings.greedy = s.greedy;
    std::vector<TokenId> input(ids.begin(), ids.end());
    std::vector<float> logits(batch * size);
    for (int t = 0; t < steps; ++t) {
      cpu_->forward({.steps = 1, .batch = batch_, .ids = input, .targets = {}, .weights = {}, .reset = {}}, logits);
      for (std::size_t b = 0; b < batch; ++b) {
        const double random =
            stream_uniform(s.seed, s.first_stream + b * s.stream_step, static_cast<std::uint64_t>(s.first_draw + t));
        input[b] = draw(&logits[b * size], vocabulary_, settings, random);
        drawn[static_cast<std::size_t>(t) * batch + b] = input[b];
      }
    }
    return true;
  }

 private:
  std::unique_ptr<Session> cpu_;
  int batch_, vocabulary_;
  std::vector<int>& chunks_;  // the steps of each call
};

/// The small network with sessions that draw.
class DrawingNetwork final : public Network {
 public:
  explicit DrawingNetwork(Network& cpu) : cpu_(cpu) {}
  const ParameterLayout& layout() const override { return cpu_.layout(); }
  Precision precision() const override { return cpu_.precision(); }
  void read(Arena which, std::span<float> to) override { cpu_.read(which, to); }
  void write(Arena which, std::span<const float> from) override { cpu_.write(which, from); }
  UpdateState update_state() override { return cpu_.update_state(); }
  void set_update_state(const UpdateState& state) override { cpu_.set_update_state(state); }
  StepResult update(const UpdateSettings& settings) override { return cpu_.update(settings); }
  std::unique_ptr<Session> open(const SessionShape& shape) override {
    return std::make_unique<DrawingSession>(cpu_.open(shape), shape.batch, layout().shape().vocabulary, chunks);
  }

  std::vector<int> chunks;

 private:
  Network& cpu_;
};

}  // namespace

TEST_CASE("the n-th number of a stream is the n-th that Rng gives", "[sampler]") {
  for (const std::uint64_t stream : {std::uint64_t{0}, std::uint64_t{kSampleStream} + (std::uint64_t{7} << 32U)}) {
    Rng rng(0x123456789ABCDEFU, stream);
    for (std::uint64_t n = 0; n < 9; ++n) CHECK(stream_uniform(0x123456789ABCDEFU, stream, n) == rng.uniform());
  }
}

TEST_CASE("texts are the same where the backend draws, in chunks", "[sampler]") {
  SmallNetwork small;
  DrawingNetwork drawing(*small.network);
  SampleSettings settings;
  settings.seed = 11;
  settings.count = 3;
  settings.length = 150;
  settings.prime = GENERATE(std::string(), std::string("a"), std::string("ab c"));
  SECTION("all characters") {}
  SECTION("a temperature and top-k") {
    settings.temperature = 1.5;
    settings.top_k = 4;
  }
  SECTION("greedy") { settings.greedy = true; }
  SECTION("a stop text within a chunk") { settings.stop = "e"; }
  SECTION("a stop text over a chunk's edge") { settings.stop = sample(small, settings)[1].substr(62, 9); }
  const auto expected = sample(small, settings);
  std::vector<std::string> emitted(3);
  const auto texts = sample_texts(drawing, small.vocabulary, settings, [&](int text, std::string_view bytes) {
    CHECK_FALSE(bytes.empty());
    emitted[static_cast<std::size_t>(text)] += bytes;
  });
  CHECK(texts == expected);
  CHECK(emitted == expected);
  REQUIRE_FALSE(drawing.chunks.empty());
  CHECK(drawing.chunks.front() == 64);
  if (settings.stop.empty()) CHECK(drawing.chunks.back() == (settings.prime.empty() ? 21 : 22));
}

TEST_CASE("a backend that draws is asked to stop between chunks", "[sampler]") {
  SmallNetwork small;
  DrawingNetwork drawing(*small.network);
  SampleSettings settings;
  settings.length = 1000;
  settings.prime = "a";
  int asked = 0;
  const auto texts = sample_texts(drawing, small.vocabulary, settings, {}, [&asked] { return ++asked > 2; });
  CHECK(texts[0].size() == 1 + 2 * 64);
}

TEST_CASE("a backend that draws stops when all texts have ended", "[sampler]") {
  SmallNetwork small;
  DrawingNetwork drawing(*small.network);
  SampleSettings settings;
  settings.length = 100'000;
  settings.prime = "a";
  settings.stop = "e";
  settings.count = 3;
  CHECK(sample_texts(drawing, small.vocabulary, settings) == sample(small, settings));
  CHECK(drawing.chunks.size() < 10);
}

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
  CHECK(texts[0].size() == 1 + 9 * 64);  // the first character takes no network; then 64 between two questions
}

}  // namespace charrnn
