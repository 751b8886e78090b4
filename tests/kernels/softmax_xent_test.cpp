// Softmax, cross-entropy and its gradient, held to double precision.
#include "kernels/softmax_xent.h"

#include <cmath>
#include <limits>

#include "kernel_test.h"

using namespace charrnn::cuda;
using namespace kernel_test;

namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

struct Rows {
  int rows, vocabulary, stride;
  std::size_t all() const { return static_cast<std::size_t>(rows * stride); }
  std::size_t at(std::size_t row, std::size_t v) const { return row * static_cast<std::size_t>(stride) + v; }
};
constexpr Rows kRows[] = {{1, 1, 8}, {3, 2, 8}, {9, 33, 40}, {77, 11, 16}, {5, 256, 256}};

struct Inputs {
  Inputs(const Rows& s, double size)
      : logits(some(Element::kF32, s.all(), 1, size)),
        bias(some(Element::kF32, static_cast<std::size_t>(s.vocabulary), 2, size / 4)),
        weights(fractions(Element::kF32, static_cast<std::size_t>(s.rows), 3)) {
    for (int r = 0; r < s.rows; ++r) targets.push_back(static_cast<DeviceId>((7 * r + 1) % s.vocabulary));
    for (std::size_t r = 2; r < targets.size(); r += 4) {
      weights[r] = 0;
      targets[r] = kNoId;
    }
    for (std::size_t r = 0; r < targets.size(); ++r) {  // columns past the vocabulary are not read
      for (auto v = static_cast<std::size_t>(s.vocabulary); v < static_cast<std::size_t>(s.stride); ++v) {
        logits[s.at(r, v)] = std::nan("");
      }
    }
  }
  Numbers logits, bias, weights;
  std::vector<DeviceId> targets;
};

constexpr double kLossScale = 0.125, kUpdateScale = 1024;

/// nats, weights, corrects of the rows; dlogits.
Outcome expected_of(const Rows& s, const Inputs& x) {
  Outcome y{{}, {}, {}, Numbers(s.all(), kUntouched)};
  for (std::size_t r = 0; r < x.targets.size(); ++r) {
    const auto V = static_cast<std::size_t>(s.vocabulary);
    Numbers scores;
    for (std::size_t v = 0; v < V; ++v) scores.push_back(x.logits[s.at(r, v)] + x.bias[v]);
    const auto largest = static_cast<std::size_t>(std::max_element(scores.begin(), scores.end()) - scores.begin());
    double sum = 0;
    for (const double score : scores) sum += std::exp(score - scores[largest]);
    const double weight = x.weights[r];
    const std::size_t target = weight == 0 ? V : x.targets[r];
    y[0].push_back(weight == 0 ? 0 : weight * (std::log(sum) + scores[largest] - scores[target]));
    y[1].push_back(weight);
    y[2].push_back(target == largest ? weight : 0);
    for (std::size_t v = 0; v < V; ++v) {
      const double probability = std::exp(scores[v] - scores[largest]) / sum;
      y[3][s.at(r, v)] = weight * kLossScale * kUpdateScale * (probability - (v == target ? 1 : 0));
    }
  }
  return y;
}

Outcome run(const Rows& s, const Inputs& x, Element element, bool gradient = true) {
  return in_any_order([&](cudaStream_t stream) {
    const Floats logits(x.logits), bias(x.bias), weights(x.weights), loss_scale(Numbers{kLossScale});
    const Device<DeviceId> targets(x.targets);
    const Device<DeviceUpdateState> state(std::vector<DeviceUpdateState>{{.loss_scale = kUpdateScale}});
    const Array dlogits(element, Numbers(s.all(), kUntouched));
    const Device<RowLoss> losses(x.targets.size());
    softmax_xent({.element = element,
                  .rows = s.rows,
                  .vocabulary = s.vocabulary,
                  .stride = s.stride,
                  .logits = logits,
                  .bias = bias,
                  .targets = targets,
                  .weights = weights,
                  .loss_scale = loss_scale,
                  .update_state = state,
                  .dlogits = gradient ? dlogits.at() : nullptr,
                  .losses = losses},
                 stream);
    host_cuda_test::succeed(cudaStreamSynchronize(stream));
    Outcome y{{}, {}, {}, dlogits.read()};
    for (const RowLoss& row : losses.read(x.targets.size())) {
      y[0].push_back(row.nats);
      y[1].push_back(row.weight);
      y[2].push_back(row.correct);
    }
    return y;
  });
}

/// Of the columns that are written.
Numbers written(const Rows& s, const Numbers& dlogits) {
  Numbers values;
  for (std::size_t i = 0; i < dlogits.size(); ++i) {
    if (i % static_cast<std::size_t>(s.stride) < static_cast<std::size_t>(s.vocabulary)) values.push_back(dlogits[i]);
  }
  return values;
}

}  // namespace

// Roundings: the sum of V numbers by a warp is V / 32 + 5 additions deep; a logit of up to 5 is rounded with its bias,
// its difference to the largest of up to 10 once more, which e^x passes on as it is; then a few of e^x and log.
TEST_CASE("the loss of a row and the gradient of its logits equal their formulas, in every element type") {
  for (const Rows& s : kRows) {
    const Inputs x(s, 4);
    const Outcome expected = expected_of(s, x);
    for (const Element element : kElements) {
      const Outcome y = run(s, x, element);
      const Tolerance sums = stored(Element::kF32, s.vocabulary / 32.0 + 5 + 20);
      CHECK_ALL_CLOSE(y[0], expected[0], sums);
      CHECK(y[1] == expected[1]);
      CHECK(y[2] == expected[2]);
      CHECK_ALL_CLOSE(written(s, y[3]), written(s, expected[3]), stored(element, s.vocabulary / 32.0 + 5 + 20));
      for (std::size_t i = 0; i < y[3].size(); ++i) {
        if (i % static_cast<std::size_t>(s.stride) >= static_cast<std::size_t>(s.vocabulary)) {
          CHECK(y[3][i] == kUntouched);
        }
      }
    }
  }
}

TEST_CASE("a row of weight 0 has no loss and no gradient, whatever its logits") {
  const Rows s{3, 33, 40};
  Inputs x(s, 4);
  x.logits[s.at(2, 5)] = kInfinity;
  const Outcome y = run(s, x, Element::kF32);
  CHECK((y[0][2] == 0 && y[1][2] == 0 && y[2][2] == 0));
  for (std::size_t v = 0; v < 33; ++v) CHECK(y[3][s.at(2, v)] == 0);
}

TEST_CASE("without a place for the gradient a row has the same loss") {
  const Rows s = kRows[2];
  const Inputs x(s, 4);
  const Outcome with = run(s, x, Element::kF16), without = run(s, x, Element::kF16, false);
  CHECK(without[0] == with[0]);
  CHECK(without[2] == with[2]);
  CHECK(without[3] == Numbers(s.all(), kUntouched));
}

TEST_CASE("of equal logits the lowest character is the likeliest") {
  const Rows s{4, 70, 72};
  Inputs x(s, 1);
  x.bias.assign(x.bias.size(), 0);
  x.weights.assign(x.weights.size(), 1);
  const std::size_t tied[4][2] = {{3, 35}, {40, 41}, {2, 66}, {0, 64}};  // of one lane of the warp, and of two
  for (std::size_t r = 0; r < 4; ++r) {
    for (const std::size_t v : tied[r]) x.logits[s.at(r, v)] = 3;
    x.targets[r] = static_cast<DeviceId>(tied[r][r % 2]);
  }
  CHECK(run(s, x, Element::kF32)[2] == Numbers{1, 0, 1, 0});
}

TEST_CASE("large logits neither overflow nor lose their loss") {
  const Rows s{4, 33, 40};
  Inputs x(s, 1);
  x.bias.assign(x.bias.size(), 0);
  for (double& logit : x.logits) logit = std::round(logit * 100) * 100;  // +-10000 in hundreds: sums are exact
  const Outcome expected = expected_of(s, x), y = run(s, x, Element::kF32);
  CHECK_ALL_CLOSE(y[0], expected[0], stored(Element::kF32, 32));
  CHECK_ALL_CLOSE(written(s, y[3]), written(s, expected[3]), stored(Element::kF32, 32));
}

TEST_CASE("a logit that is not finite makes its own row's loss not finite") {
  const Rows s{3, 33, 40};
  for (const double bad : {std::nan(""), kInfinity, -kInfinity}) {
    for (const std::size_t v : {std::size_t{0}, std::size_t{32}}) {
      Inputs x(s, 4);
      x.weights = {1, 1, 1};
      x.targets = {1, static_cast<DeviceId>(v), 2};
      const Outcome good = run(s, x, Element::kF32);
      x.logits[s.at(1, v)] = bad;
      const Outcome y = run(s, x, Element::kF32);
      CHECK_FALSE(std::isfinite(y[0][1]));
      CHECK(y[2][1] == (bad > 0 ? y[2][1] : 0));  // what is likeliest beside an infinity does not matter
      CHECK((y[0][0] == good[0][0] && y[0][2] == good[0][2]));
    }
  }
}

TEST_CASE("a logit of minus infinity that is not the target's has no weight in its row") {
  const Rows s{1, 33, 40};
  Inputs x(s, 4);
  x.logits[s.at(0, 20)] = -kInfinity;
  const Outcome y = run(s, x, Element::kF32);
  Inputs lower = x;
  lower.logits[s.at(0, 20)] = -1000;
  CHECK_ALL_CLOSE(y[0], expected_of(s, lower)[0], stored(Element::kF32, 26));
  CHECK(std::abs(y[3][20]) < 1e-30);
}

// Quarters: the sums are exact.
TEST_CASE("a window's sums are those of its rows") {
  for (const int rows : {0, 1, 33, 1023, 2500}) {
    std::vector<RowLoss> losses;
    Outcome expected{Numbers(3)};
    for (int r = 0; r < rows; ++r) {
      losses.push_back({static_cast<float>(r % 17) / 4, static_cast<float>(r % 5), static_cast<float>(r % 3) / 4});
      expected[0][0] += losses.back().nats;
      expected[0][1] += losses.back().weight;
      expected[0][2] += losses.back().correct;
    }
    losses.resize(static_cast<std::size_t>(rows) + 1, {std::nanf(""), std::nanf(""), std::nanf("")});
    CHECK(in_any_order([&](cudaStream_t stream) {
            const Device<RowLoss> from(losses);
            const Device<WindowSums> to(1);
            sum_losses(from, rows, to, stream);
            host_cuda_test::succeed(cudaStreamSynchronize(stream));
            const WindowSums sums = to.read(1).front();
            return Outcome{{sums.nats, sums.weight, sums.correct}};
          }) == expected);
  }
}

TEST_CASE("a window's sums are in double, and tell of a row that is not finite") {
  std::vector<RowLoss> losses(2000, {1e-4F, 1e-4F, 0});
  losses[7].nats = 1e4F;
  const auto sums = [&] {
    return in_any_order([&](cudaStream_t stream) {
      const Device<RowLoss> from(losses);
      const Device<WindowSums> to(1);
      sum_losses(from, 2000, to, stream);
      host_cuda_test::succeed(cudaStreamSynchronize(stream));
      return Outcome{{to.read(1).front().nats}};
    })[0][0];
  };
  // 2000 roundings of a double
  CHECK(std::abs(sums() - (double{1e4F} + 1999 * double{1e-4F})) < 2000 * 0x1p-53 * 1e4);
  losses[1999].nats = std::numeric_limits<float>::infinity();
  CHECK(std::isinf(sums()));
}

TEST_CASE("logits with their bias, without the padding of rows") {
  for (const Rows& s : kRows) {
    const Inputs x(s, 4);
    const Outcome y = in_any_order([&](cudaStream_t stream) {
      const Floats logits(x.logits), bias(x.bias), to(static_cast<std::size_t>(s.rows * s.vocabulary));
      add_bias(logits, bias, s.rows, s.vocabulary, s.stride, to, stream);
      host_cuda_test::succeed(cudaStreamSynchronize(stream));
      return Outcome{to.read()};
    });
    Numbers expected;
    for (std::size_t r = 0; r < static_cast<std::size_t>(s.rows); ++r) {
      for (std::size_t v = 0; v < static_cast<std::size_t>(s.vocabulary); ++v) {
        expected.push_back(x.logits[s.at(r, v)] + x.bias[v]);
      }
    }
    CHECK(y[0] == rounded(Element::kF32, expected));
  }
}

TEST_CASE("no rows launch nothing") {
  launches_nothing([](cudaStream_t stream) {
    softmax_xent({.rows = 0, .vocabulary = 5, .stride = 8}, stream);
    add_bias(nullptr, nullptr, 0, 5, 8, nullptr, stream);
  });
}
