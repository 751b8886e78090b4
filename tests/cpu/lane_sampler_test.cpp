// LaneSampler against the double-precision reference, and against itself with other numbers of threads.
#include "cpu/lane_sampler.h"

#include <hwy/targets.h>

#include <bit>
#include <cmath>
#include <limits>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "charrnn/error.h"
#include "cpu/element.h"
#include "kernels/philox.h"
#include "model/initialize.h"
#include "reference/reference.h"
#include "support/approx.h"
#include "support/catch.h"

using namespace charrnn;
using namespace charrnn::cpu;
using tests::Tolerance;

namespace {

constexpr Cell kCells[] = {Cell::kLstm, Cell::kGru, Cell::kRnnTanh, Cell::kRnnRelu};
constexpr std::uint64_t kStream = 77;

std::vector<double> to_double(const std::vector<float>& x) { return {x.begin(), x.end()}; }

/// Weights large enough for every nonlinearity to matter, and a state.
struct Lane {
  ParameterLayout layout;
  Precision precision;
  std::vector<float> parameters, h, c;
  TokenId last = 1;           // the character that is read next
  std::int64_t position = 0;  // characters drawn

  Lane(const NetworkShape& shape, Precision p) : layout(shape), precision(p) {
    Rng rng(7);
    parameters.assign(layout.arena_size(), 0.0F);
    for (const auto& tensor : layout.tensors()) {
      const double scale = tensor.cols == 0 ? 0.3 : 1.0 / std::sqrt(static_cast<double>(tensor.cols));
      for (std::size_t i = 0; i < tensor.count(); ++i) {
        parameters[tensor.offset + i] = static_cast<float>(scale * rng.normal());
      }
    }
    h.resize(static_cast<std::size_t>(shape.layers * shape.hidden));
    for (float& x : h) x = static_cast<float>(0.5 * rng.normal());
    if (has_cell_state(shape.cell)) c = h;
    if (precision == Precision::kBf16) {
      for (float& x : h) x = to_float(from_float<Bf16>(x));
    }
    last = 1 % shape.vocabulary;
  }

  std::vector<TokenId> draw(LaneSampler& sampler, int steps, DrawSettings settings = {}) {
    settings.seed = 5;
    settings.first_draw = position;
    std::vector<TokenId> drawn(static_cast<std::size_t>(steps));
    sampler.run({.first = last, .stream = kStream, .draws = &settings, .h = h, .c = c, .drawn = drawn});
    position += steps;
    if (steps > 0) last = drawn.back();
    return drawn;
  }

  /// What the products read: in bf16 the matrices that they multiply by are rounded, layer 0's table is not.
  std::vector<double> parameters_read() const {
    std::vector<float> p = parameters;
    if (precision == Precision::kBf16) {
      const auto round = [&](const ParameterTensor& tensor) {
        for (std::size_t i = 0; i < tensor.count(); ++i) {
          p[tensor.offset + i] = to_float(from_float<Bf16>(p[tensor.offset + i]));
        }
      };
      for (int l = 0; l < layout.shape().layers; ++l) {
        round(layout.weight_hh(l));
        if (l > 0) round(layout.weight_ih(l));
      }
      round(layout.head_weight());
    }
    return to_double(p);
  }

  /// The reference's step from this lane's state and character.
  reference::Result reference_step() const {
    const std::vector<double> p = parameters_read();
    const std::vector<TokenId> ids{last};
    return reference::forward(layout, p, {.steps = 1, .batch = 1, .ids = ids}, {to_double(h), to_double(c)});
  }

  Tolerance tolerance() const {
    return Tolerance::network(layout.shape(), 1, 1, precision == Precision::kBf16 ? 0x1p-7 : 0x1p-23);
  }
};

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  if (a.size() != b.size()) return false;
  for (std::size_t i = 0; i < a.size(); ++i) {
    if (std::bit_cast<std::uint32_t>(a[i]) != std::bit_cast<std::uint32_t>(b[i])) return false;
  }
  return true;
}

std::vector<float> logits_of(const LaneSampler& sampler) { return {sampler.logits().begin(), sampler.logits().end()}; }

/// Three steps, each held to the reference's from the same state.
void check_steps(const NetworkShape& shape, Precision precision, ThreadPool& pool, bool portable) {
  INFO("cell " << static_cast<int>(shape.cell) << ", L " << shape.layers << ", H " << shape.hidden << ", V "
               << shape.vocabulary << (precision == Precision::kBf16 ? ", bf16" : ", fp32"));
  Lane lane(shape, precision);
  LaneSampler sampler(lane.layout, precision, pool, {.threads = pool.size(), .portable = portable});
  sampler.pack(lane.parameters.data());
  for (int step = 0; step < 3; ++step) {
    const reference::Result expected = lane.reference_step();
    lane.draw(sampler, 1);
    CHECK_ALL_CLOSE(logits_of(sampler), expected.logits, lane.tolerance());
    CHECK_ALL_CLOSE(lane.h, expected.state.h, lane.tolerance());
    CHECK_ALL_CLOSE(lane.c, expected.state.c, lane.tolerance());
  }
}

}  // namespace

TEST_CASE("logits and states of every cell and size are the reference's", "[lane][threads]") {
  constexpr struct { int hidden, vocabulary; } kSizes[] = {{1, 3}, {5, 11}, {17, 23}, {64, 67}, {100, 131}};
  for (const Cell cell : kCells) {
    for (const int layers : {1, 2, 3}) {
      for (const auto& size : kSizes) {
        ThreadPool pool(1 + (layers + size.hidden) % 3);
        const NetworkShape shape{cell, layers, size.hidden, size.vocabulary};
        check_steps(shape, Precision::kFp32, pool, false);
        check_steps(shape, Precision::kBf16, pool, false);
        check_steps(shape, Precision::kBf16, pool, true);
      }
    }
  }
}

TEST_CASE("every instruction set gives the reference's logits and states", "[lane]") {
  ThreadPool pool(1);
  for (const std::int64_t target : hwy::SupportedAndGeneratedTargets()) {
    hwy::SetSupportedTargetsForTest(target);
    for (const Cell cell : kCells) {
      check_steps({cell, 2, 37, 11}, Precision::kFp32, pool, true);
      check_steps({cell, 2, 37, 11}, Precision::kBf16, pool, true);
    }
  }
  hwy::SetSupportedTargetsForTest(0);
}

TEST_CASE("characters are those that draw_character() makes of the logits, alone or in one run", "[lane]") {
  const Precision precision = GENERATE(Precision::kFp32, Precision::kBf16);
  const DrawSettings settings = GENERATE(DrawSettings{}, DrawSettings{.temperature = 0.6},
                                         DrawSettings{.temperature = 1.5, .top_k = 4}, DrawSettings{.greedy = true});
  const NetworkShape shape{GENERATE(Cell::kLstm, Cell::kGru), 2, 37, 29};
  constexpr int kSteps = 40;
  ThreadPool pool(2);
  Lane one(shape, precision), run(shape, precision);
  LaneSampler sampler(one.layout, precision, pool, {.threads = 2});
  sampler.pack(one.parameters.data());
  DrawScratch scratch(shape.vocabulary);
  std::vector<TokenId> singly;
  for (int n = 0; n < kSteps; ++n) {
    const TokenId id = one.draw(sampler, 1, settings).front();
    CHECK(id == draw_character(sampler.logits(), settings, stream_uniform(5, kStream, static_cast<std::uint64_t>(n)),
                               scratch));
    singly.push_back(id);
  }
  std::vector<TokenId> together = run.draw(sampler, 17, settings);
  const std::vector<TokenId> rest = run.draw(sampler, kSteps - 17, settings);
  together.insert(together.end(), rest.begin(), rest.end());
  CHECK(together == singly);
  CHECK(same_bits(run.h, one.h));
  CHECK(same_bits(run.c, one.c));
}

TEST_CASE("any number of threads gives the same characters and the same bits", "[lane][threads]") {
  constexpr int kSteps = 30;
  ThreadPool pool(5);
  for (const Cell cell : kCells) {
    for (const Precision precision : {Precision::kFp32, Precision::kBf16}) {
      for (const int layers : {1, 3}) {
        const NetworkShape shape{cell, layers, 100, 131};
        Lane alone(shape, precision);
        LaneSampler single(alone.layout, precision, pool, {.threads = 1});
        single.pack(alone.parameters.data());
        const std::vector<TokenId> expected = alone.draw(single, kSteps);
        for (const auto& [threads, workers] : {std::pair{2, 2}, {2, 1}, {3, 3}, {5, 5}, {5, 2}}) {
          Lane lane(shape, precision);
          LaneSampler sampler(lane.layout, precision, pool, {.threads = threads, .workers = workers});
          CHECK(sampler.threads() == threads);
          sampler.pack(lane.parameters.data());
          CHECK(lane.draw(sampler, kSteps) == expected);
          CHECK(same_bits(lane.h, alone.h));
          CHECK(same_bits(lane.c, alone.c));
        }
      }
    }
  }
}

TEST_CASE("logits that are not finite raise on every thread, and leave the sampler usable", "[lane][threads]") {
  const int threads = GENERATE(1, 2, 3);
  const float bad = GENERATE(std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity());
  ThreadPool pool(3);
  Lane lane({Cell::kLstm, 2, 37, 29}, Precision::kFp32), untouched = lane;
  LaneSampler sampler(lane.layout, Precision::kFp32, pool, {.threads = threads});
  std::vector<float> broken = lane.parameters;
  broken[lane.layout.head_bias().offset + 17] = bad;
  sampler.pack(broken.data());
  CHECK_THROWS_AS(lane.draw(sampler, 9), RunError);
  CHECK_THROWS_WITH(lane.draw(sampler, 9), Catch::Contains("score of character 17 is not finite"));
  CHECK(same_bits(lane.h, untouched.h));
  CHECK(same_bits(lane.c, untouched.c));
  sampler.pack(lane.parameters.data());
  LaneSampler fresh(lane.layout, Precision::kFp32, pool, {.threads = threads});
  fresh.pack(lane.parameters.data());
  CHECK(lane.draw(sampler, 9) == untouched.draw(fresh, 9));
  CHECK(same_bits(lane.h, untouched.h));
}

TEST_CASE("what a run that failed left behind does not reach the next", "[lane]") {
  ThreadPool pool(2);
  for (const Precision precision : {Precision::kFp32, Precision::kBf16}) {
    for (const Cell cell : kCells) {
      Lane lane({cell, 2, 21, 11}, precision), broken = lane, expected = lane;
      broken.h.assign(broken.h.size(), std::numeric_limits<float>::quiet_NaN());
      if (!broken.c.empty()) broken.c = broken.h;
      LaneSampler sampler(lane.layout, precision, pool, {.threads = 2});
      sampler.pack(lane.parameters.data());
      const std::vector<TokenId> first = expected.draw(sampler, 5);
      CHECK_THROWS_AS(broken.draw(sampler, 5), RunError);
      CHECK(lane.draw(sampler, 5) == first);
    }
  }
}

TEST_CASE("a run that failed at its second character does not reach the next", "[lane]") {
  // h grows without bound: 1e-5, then 1e26, then infinity. Zeros beside the matrix times infinity are NaN.
  ThreadPool pool(1);
  Lane lane({Cell::kRnnRelu, 2, 21, 11}, Precision::kFp32), growing = lane, expected = lane;
  growing.h.assign(growing.h.size(), 1e-5F);
  std::vector<float> parameters = growing.parameters;
  for (std::size_t i = 0; i < lane.layout.weight_hh(0).count(); ++i) {
    parameters[lane.layout.weight_hh(0).offset + i] = 1e30F;
  }
  LaneSampler sampler(lane.layout, Precision::kFp32, pool);
  sampler.pack(lane.parameters.data());
  const std::vector<TokenId> first = expected.draw(sampler, 5);
  sampler.pack(parameters.data());
  growing.draw(sampler, 1);
  growing.h.assign(growing.h.size(), 1e-5F);
  CHECK_THROWS_AS(growing.draw(sampler, 2), RunError);
  sampler.pack(lane.parameters.data());
  CHECK(lane.draw(sampler, 5) == first);
}

TEST_CASE("in bf16 weights and h are rounded to the nearest, ties to even", "[lane]") {
  ThreadPool pool(1);
  const float above = 1 + 3 * 0x1p-9F, tie = 1 + 0x1p-8F, next = 1 + 0x1p-7F;  // bf16 has 1 and `next`
  Lane lane({Cell::kRnnRelu, 1, 1, 2}, Precision::kBf16);
  lane.parameters.assign(lane.parameters.size(), 0.0F);
  lane.parameters[lane.layout.weight_hh(0).offset] = 1;
  lane.parameters[lane.layout.head_weight().offset] = above;
  lane.parameters[lane.layout.head_weight().offset + 1] = tie;
  LaneSampler sampler(lane.layout, Precision::kBf16, pool);
  sampler.pack(lane.parameters.data());
  lane.h = {1};
  lane.draw(sampler, 1);
  CHECK(logits_of(sampler) == std::vector<float>{next, 1});
  lane.h = {above};
  lane.draw(sampler, 1);
  CHECK(lane.h == std::vector<float>{next});
  lane.h = {1};
  lane.parameters[lane.layout.bias_ih(0).offset] = 3 * 0x1p-9F;  // h that the cell makes is rounded too
  sampler.pack(lane.parameters.data());
  lane.draw(sampler, 1);
  CHECK(lane.h == std::vector<float>{next});
}

TEST_CASE("spans of the wrong size and characters outside the vocabulary are refused", "[lane]") {
  ThreadPool pool(1);
  Lane lane({Cell::kLstm, 2, 5, 11}, Precision::kFp32);
  LaneSampler sampler(lane.layout, Precision::kFp32, pool);
  const DrawSettings settings;
  std::vector<TokenId> drawn(3);
  std::vector<float> none;
  CHECK_THROWS_AS(sampler.run({.draws = &settings, .h = none, .c = lane.c, .drawn = drawn}), ShapeError);
  CHECK_THROWS_AS(sampler.run({.draws = &settings, .h = lane.h, .c = none, .drawn = drawn}), ShapeError);
  for (const TokenId id : {-1, 11}) {
    CHECK_THROWS_AS(sampler.run({.first = id, .draws = &settings, .h = lane.h, .c = lane.c, .drawn = drawn}),
                    ShapeError);
  }
  const std::vector<float> before = lane.h;
  CHECK(lane.draw(sampler, 0).empty());
  CHECK(same_bits(lane.h, before));
}
