// Drawing on the device, held to the host's draw().
#include "kernels/draw.h"

#include <cmath>
#include <limits>

#include "charrnn/sampler.h"
#include "kernel_test.h"
#include "kernels/philox.h"
#include "model/initialize.h"

using namespace charrnn::cuda;
using namespace kernel_test;

namespace {

/// stream_uniform() of kernels/philox.h, apart from it.
double number(std::uint64_t seed, std::uint64_t stream, std::uint64_t n) {
  const auto low = [](std::uint64_t x) { return static_cast<std::uint32_t>(x); };
  const auto high = [](std::uint64_t x) { return static_cast<std::uint32_t>(x >> 32U); };
  const auto x = philox_of({low(n / 2), high(n / 2), low(stream), high(stream)}, {low(seed), high(seed)});
  const std::uint64_t bits = std::uint64_t{x[n % 2 * 2]} << 32U | x[n % 2 * 2 + 1];
  return std::ldexp(static_cast<double>(bits >> 11U), -53);
}

charrnn::SampleSettings settings_of(double temperature, int top_k, bool greedy) {
  charrnn::SampleSettings settings;
  settings.temperature = temperature;
  settings.top_k = top_k;
  settings.greedy = greedy;
  return settings;
}

struct Lanes {
  int lanes, vocabulary, stride;
  std::size_t all() const { return static_cast<std::size_t>(lanes * stride); }
};

/// Scores in halves, so that some are equal; columns past the vocabulary are not numbers.
struct Scores {
  Scores(const Lanes& s, double size)
      : logits(noise(s.all(), 1)), bias(noise(static_cast<std::size_t>(s.vocabulary), 2)) {
    for (double& x : logits) x = std::round(x * size * 2) / 2;
    for (double& x : bias) x = std::round(x * 2) / 2;
    for (std::size_t i = 0; i < logits.size(); ++i) {
      if (i % static_cast<std::size_t>(s.stride) >= bias.size()) logits[i] = std::nan("");
    }
  }
  std::vector<float> of_lane(const Lanes& s, int lane) const {
    std::vector<float> sums;
    for (std::size_t v = 0; v < bias.size(); ++v) {
      sums.push_back(static_cast<float>(logits[static_cast<std::size_t>(lane * s.stride) + v] + bias[v]));
    }
    return sums;
  }
  Numbers logits, bias;
};

struct Drawn {
  Numbers drawn, ids;
  DrawRule rule;
  int failed;
};

/// `count` draws one after another, into rows rule.row on of three rows more.
Drawn drawn(const Lanes& s, const Scores& scores, const DrawRule& rule, int count) {
  Drawn y{};
  const auto rows = static_cast<std::size_t>(rule.row + count + 1), lanes = static_cast<std::size_t>(s.lanes);
  in_any_order([&](cudaStream_t stream) {
    const Floats logits(scores.logits), bias(scores.bias);
    const Device<DrawRule> on_rule(std::vector<DrawRule>{rule});
    const Device<int> failed(std::vector<int>{0});
    const Device<DeviceId> to(std::vector<DeviceId>(rows * lanes, 0xFFFF)), ids(lanes);
    for (int i = 0; i < count; ++i) {
      draw({.lanes = s.lanes,
            .vocabulary = s.vocabulary,
            .stride = s.stride,
            .logits = logits,
            .bias = bias,
            .rule = on_rule,
            .failed = failed,
            .drawn = to,
            .ids = ids},
           stream);
    }
    host_cuda_test::succeed(cudaStreamSynchronize(stream));
    y = {as_numbers(to.read(rows * lanes)), as_numbers(ids.read(lanes)), on_rule.read(1).front(),
         failed.read(1).front()};
    return Outcome{y.drawn, y.ids, {static_cast<double>(y.failed)}};
  });
  return y;
}

constexpr Lanes kLanes[] = {{1, 1, 8}, {3, 2, 8}, {5, 33, 40}, {2, 256, 256}, {2, kMostDrawn, kMostDrawn}};

}  // namespace

TEST_CASE("the device draws the characters that the host draws, draw after draw") {
  philox_known_answers();
  for (const Lanes& s : kLanes) {
    const Scores scores(s, 6);
    for (const double temperature : {1.0, 0.3, 2.5, 1e-300, 1e300}) {
      for (const int top_k : {0, 1, 2, 7, s.vocabulary, s.vocabulary + 3}) {
        if (s.vocabulary > 100 && (temperature != 1.0 || (top_k != 0 && top_k != 7))) continue;  // slow
        DrawRule rule{.temperature = temperature,
                      .top_k = top_k,
                      .seed = 0x0123456789ABCDEFU,
                      .first_stream = 2,
                      .stream_step = std::uint64_t{1} << 32U,
                      .next_draw = 5,
                      .row = 1};
        constexpr int kDraws = 3;
        const Drawn y = drawn(s, scores, rule, kDraws);
        Numbers expected(y.drawn.size(), 0xFFFF), last;
        for (int n = 0; n < kDraws; ++n) {
          last.clear();
          for (int lane = 0; lane < s.lanes; ++lane) {
            const double random =
                number(rule.seed, 2 + (static_cast<std::uint64_t>(lane) << 32U), static_cast<std::uint64_t>(5 + n));
            const std::vector<float> logits = scores.of_lane(s, lane);
            last.push_back(charrnn::draw(logits.data(), s.vocabulary, settings_of(temperature, top_k, false), random));
            expected[static_cast<std::size_t>((1 + n) * s.lanes + lane)] = last.back();
          }
        }
        CHECK(y.drawn == expected);
        CHECK(y.ids == last);
        CHECK(y.rule.next_draw == 5 + kDraws);
        CHECK(y.rule.row == 1 + kDraws);
        CHECK(y.failed == 0);
      }
    }
  }
}

TEST_CASE("greedy takes the likeliest, the lowest of equal ones, whatever the temperature") {
  for (const Lanes& s : kLanes) {
    const Scores scores(s, 2);
    const Drawn y = drawn(s, scores, {.temperature = 7, .top_k = 3, .greedy = true}, 1);
    for (int lane = 0; lane < s.lanes; ++lane) {
      const std::vector<float> logits = scores.of_lane(s, lane);
      const auto best = std::max_element(logits.begin(), logits.end()) - logits.begin();
      CHECK(y.ids[static_cast<std::size_t>(lane)] == static_cast<double>(best));
      CHECK(charrnn::draw(logits.data(), s.vocabulary, settings_of(1, 0, true), 0.9) == best);
    }
  }
}

TEST_CASE("among equal scores, top-k keeps the lowest characters") {
  const Lanes s{40, 9, 16};
  Scores scores(s, 1);
  scores.logits.assign(scores.logits.size(), 0.5);
  scores.bias.assign(scores.bias.size(), 0);
  scores.bias[8] = 1;  // the likeliest
  const Drawn y = drawn(s, scores, {.temperature = 1e3, .top_k = 3, .seed = 5, .stream_step = 1}, 1);
  int counts[9]{};
  for (const double id : y.ids) ++counts[static_cast<std::size_t>(id)];
  CHECK(counts[0] + counts[1] + counts[8] == 40);
  CHECK((counts[0] > 0 && counts[1] > 0 && counts[8] > 0));
}

TEST_CASE("draws follow the distribution of the scores") {
  const Lanes s{600, 3, 8};
  Scores scores(s, 1);
  for (std::size_t i = 0; i < scores.logits.size(); ++i) scores.logits[i] = 0;
  scores.bias = {0, 1, 2};
  const Drawn y = drawn(s, scores, {.temperature = 2, .seed = 11, .stream_step = 1}, 1);
  double counts[3]{};
  for (const double id : y.ids) counts[static_cast<std::size_t>(id)] += 1;
  const double sum = 1 + std::exp(0.5) + std::exp(1);
  for (int v = 0; v < 3; ++v) {  // four standard deviations
    const double p = std::exp(v / 2.0) / sum;
    CHECK(std::abs(counts[v] - 600 * p) < 4 * std::sqrt(600 * p * (1 - p)));
  }
}

TEST_CASE("a score that is not finite is told by its character") {
  const Lanes s{3, 33, 40};
  for (const double bad :
       {std::nan(""), std::numeric_limits<double>::infinity(), -std::numeric_limits<double>::infinity()}) {
    for (const std::size_t v : {std::size_t{0}, std::size_t{32}}) {
      Scores scores(s, 3);
      scores.logits[40 + v] = bad;
      CHECK(drawn(s, scores, {}, 1).failed == static_cast<int>(v) + 1);
      CHECK(drawn(s, scores, {.greedy = true}, 1).failed == static_cast<int>(v) + 1);
    }
  }
}

TEST_CASE("the numbers of a stream are those of Rng and of Philox") {
  for (const auto& [seed, stream] : {std::pair<std::uint64_t, std::uint64_t>{1, 2}, {~0ULL, 3ULL << 32U | 2U}}) {
    charrnn::Rng rng(seed, stream);
    for (std::uint64_t n = 0; n < 9; ++n) {
      CHECK(charrnn::stream_uniform(seed, stream, n) == rng.uniform());
      CHECK(charrnn::stream_uniform(seed, stream, n) == number(seed, stream, n));
    }
  }
  CHECK(charrnn::stream_uniform(3, 4, 1ULL << 40U) == number(3, 4, 1ULL << 40U));
}
