#include <cmath>
#include <limits>
#include <vector>

#include "charrnn/error.h"
#include "charrnn/sampler.h"
#include "model/initialize.h"
#include "support/catch.h"

namespace charrnn {
namespace {

const std::vector<float> kLogits{0.5F, -1.0F, 2.0F, 0.0F, 1.5F, -3.0F, 1.0F};  // V = 7, all different

std::vector<int> histogram(const std::vector<float>& logits, const SampleSettings& settings, int draws) {
  Rng random(11, kSampleStream);
  std::vector<int> counts(logits.size());
  for (int i = 0; i < draws; ++i) {
    ++counts[static_cast<std::size_t>(
        draw(logits.data(), static_cast<int>(logits.size()), settings, random.uniform()))];
  }
  return counts;
}

std::vector<double> softmax(const std::vector<float>& logits, double temperature) {
  std::vector<double> p;
  double sum = 0;
  for (const float logit : logits) sum += p.emplace_back(std::exp(logit / temperature));
  for (double& value : p) value /= sum;
  return p;
}

}  // namespace

TEST_CASE("draws follow the softmax of the logits over the temperature", "[sampler]") {
  const double temperature = GENERATE(0.5, 1.0, 2.5);
  SampleSettings settings;
  settings.temperature = temperature;
  constexpr int kDraws = 20000;
  const std::vector<int> counts = histogram(kLogits, settings, kDraws);
  const std::vector<double> p = softmax(kLogits, temperature);
  double chi_square = 0;
  int degrees = -1;
  for (std::size_t i = 0; i < p.size(); ++i) {
    const double expected = p[i] * kDraws;
    if (expected < 5) continue;  // the statistic needs a few in each class
    chi_square += (counts[i] - expected) * (counts[i] - expected) / expected;
    ++degrees;
  }
  // Mean k, variance 2k: five deviations above the mean. The seed is fixed, so this passes always or never.
  CHECK(chi_square < degrees + 5 * std::sqrt(2.0 * degrees));
}

TEST_CASE("a temperature that goes to 0 gives the greedy draw", "[sampler]") {
  SampleSettings cold;
  cold.temperature = 1e-6;
  SampleSettings greedy;
  greedy.greedy = true;
  for (const double random : {0.0, 0.25, 0.5, 0.999999}) {
    CHECK(draw(kLogits.data(), 7, cold, random) == 2);
    CHECK(draw(kLogits.data(), 7, greedy, random) == 2);
  }
  cold.temperature = std::numeric_limits<double>::denorm_min();
  CHECK(draw(kLogits.data(), 7, cold, 0.999999) == 2);
}

TEST_CASE("top-k draws among the k likeliest in their proportions", "[sampler]") {
  SampleSettings settings;
  settings.top_k = 3;  // ids 2, 4 and 6
  const std::vector<int> counts = histogram(kLogits, settings, 10000);
  CHECK(counts[0] + counts[1] + counts[3] + counts[5] == 0);
  const double e = std::exp(0.5);  // neighbours among the three differ by 0.5
  CHECK(counts[2] / static_cast<double>(counts[4]) == Approx(e).margin(0.1));
  CHECK(counts[4] / static_cast<double>(counts[6]) == Approx(e).margin(0.15));
}

TEST_CASE("top-k of 1 is greedy, and of V or more is all", "[sampler]") {
  SampleSettings all;
  SampleSettings one;
  one.top_k = 1;
  SampleSettings many;
  many.top_k = GENERATE(7, 8, 1000);
  for (double random = 0; random < 1; random += 0.01) {
    CHECK(draw(kLogits.data(), 7, one, random) == 2);
    CHECK(draw(kLogits.data(), 7, many, random) == draw(kLogits.data(), 7, all, random));
  }
}

TEST_CASE("of equal logits the lower id is the likelier", "[sampler]") {
  const std::vector<float> equal(6, 0.25F);
  SampleSettings settings;
  settings.greedy = true;
  CHECK(draw(equal.data(), 6, settings, 0.9) == 0);
  settings.greedy = false;
  settings.top_k = 2;
  const std::vector<int> counts = histogram(equal, settings, 1000);
  CHECK(counts[0] + counts[1] == 1000);
  CHECK(counts[0] > 400);
  CHECK(counts[1] > 400);
}

TEST_CASE("every random number from 0 to below 1 gives an id, in ascending order", "[sampler]") {
  const SampleSettings settings;
  TokenId last = 0;
  for (double random = 0; random < 1; random += 1.0 / 4096) {
    const TokenId id = draw(kLogits.data(), 7, settings, random);
    CHECK(id >= last);
    last = id;
  }
  CHECK(draw(kLogits.data(), 7, settings, std::nextafter(1.0, 0.0)) == 6);
  CHECK(draw(kLogits.data(), 1, settings, 0.7) == 0);
}

TEST_CASE("huge logits do not overflow", "[sampler]") {
  const std::vector<float> huge{3e38F, -3e38F, 3e38F};
  const std::vector<int> counts = histogram(huge, {}, 1000);
  CHECK(counts[1] == 0);
  CHECK(counts[0] > 400);
  CHECK(counts[2] > 400);
}

TEST_CASE("logits that are not finite are refused", "[sampler]") {
  const float bad = GENERATE(std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity());
  const std::vector<float> logits{0, bad, 1};
  CHECK_THROWS_AS(draw(logits.data(), 3, {}, 0.5), RunError);
}

}  // namespace charrnn
