// Rows of activations in vectors, on every target of Highway that this machine has, held to loops in double precision.
#include "cpu/row_ops.h"

#define HWY_DISABLED_TARGETS HWY_SSSE3  // as src/cpu/row_ops.cpp
#include <hwy/targets.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <type_traits>
#include <vector>

#include "cpu/vector_functions.h"
#include "kernels/gru_cell.h"
#include "kernels/lstm_cell.h"
#include "kernels/philox.h"
#include "kernels/rnn_cell.h"
#include "support/catch.h"

using namespace charrnn;
using namespace charrnn::cpu;

namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr double kEps = std::numeric_limits<float>::epsilon();
constexpr Cell kCells[] = {Cell::kLstm, Cell::kGru, Cell::kRnnTanh, Cell::kRnnRelu};
// 1 unit; less than a vector; a vector and a bit; several and a tail; more than a chunk of dropout's numbers.
constexpr int kHidden[] = {1, 5, 17, 100, 303};

/// Calls f for each target. What fails names it.
template <class F>
void on_every_target(const F& f) {
  struct Reset {
    ~Reset() { hwy::SetSupportedTargetsForTest(0); }
  } reset;
  for (const std::int64_t target : hwy::SupportedAndGeneratedTargets()) {
    hwy::SetSupportedTargetsForTest(target);
    INFO(hwy::TargetName(target));
    f();
  }
}

std::uint32_t bits_of(float x) { return std::bit_cast<std::uint32_t>(x); }
std::uint32_t bits_of(Bf16 x) { return x.bits; }

/// An array that is written, between elements that nobody may touch.
template <class E>
class Output {
 public:
  explicit Output(std::size_t n) : all_(n + 2 * kGuard, guard()) {}
  explicit Output(const std::vector<E>& x) : Output(x.size()) { std::copy(x.begin(), x.end(), all_.begin() + kGuard); }
  E* data() { return all_.data() + kGuard; }
  std::size_t size() const { return all_.size() - 2 * kGuard; }
  E operator[](std::size_t i) const { return all_[i + kGuard]; }
  bool guards_stand() const {
    const auto stands = [](E x) { return bits_of(x) == bits_of(guard()); };
    return std::all_of(all_.begin(), all_.begin() + kGuard, stands) &&
           std::all_of(all_.end() - kGuard, all_.end(), stands);
  }
  bool untouched() const {
    return std::all_of(all_.begin(), all_.end(), [](E x) { return bits_of(x) == bits_of(guard()); });
  }

 private:
  static constexpr std::ptrdiff_t kGuard = 33;  // more than a vector's lanes, and not aligned
  static E guard() { return from_float<E>(-12345.0F); }
  std::vector<E> all_;
};

template <class E = float>
std::vector<E> some(std::size_t n, unsigned seed, float range) {
  std::mt19937 random(seed);
  std::vector<E> x;
  for (std::size_t i = 0; i < n; ++i) {
    x.push_back(from_float<E>(range * (2 * static_cast<float>(random() >> 8) * 0x1p-24F - 1)));
  }
  return x;
}

/// Within `units` of float's epsilon, relative or (below 1) absolute, and the rounding to E.
template <class E>
bool close(E x, double expected, double units) {
  const double rounding = std::is_same_v<E, Bf16> ? 0x1p-8 : 0.0;  // half a unit of 8 bits
  const double bound = units * kEps * std::max(1.0, std::abs(expected));
  return std::abs(static_cast<double>(to_float(x)) - expected) <= bound + rounding * std::abs(expected);
}

/// What is wrong with an array, or "".
template <class E>
std::string compare(const char* name, const Output<E>& x, const std::vector<double>& expected, double units) {
  if (!x.guards_stand()) return std::string(name) + ": written outside";
  for (std::size_t i = 0; i < x.size(); ++i) {
    if (!close(x[i], expected[i], units)) {
      return std::string(name) + "[" + std::to_string(i) + "] is " + std::to_string(to_float(x[i])) + ", expected " +
             std::to_string(expected[i]);
    }
  }
  return "";
}

std::size_t columns(Cell cell) { return cell == Cell::kLstm || cell == Cell::kGru ? 4 : 1; }
std::size_t recurrent_rows(Cell cell) { return cell == Cell::kGru ? 3 : columns(cell); }
double logistic(double x) { return 1 / (1 + std::exp(-x)); }

constexpr int kVocabulary = 7;

template <class E>
struct Step {
  Step(Cell c, int b, int h)
      : cell(c),
        B(static_cast<std::size_t>(b)),
        H(static_cast<std::size_t>(h)),
        W(columns(c) * H),
        R(recurrent_rows(c) * H),
        recurrent(some(B * R, 1, 3)),
        product(some(B * W, 2, 3)),
        table(some(kVocabulary * W, 3, 3)),
        bias(some(W, 4, 2)),
        h_prev(some<E>(B * H, 5, 1)),
        c_prev(some(B * H, 6, 2)) {
    for (std::size_t r = 0; r < B; ++r) ids.push_back(static_cast<TokenId>((3 * r + 1) % kVocabulary));
    if (cell == Cell::kGru) {  // column nh of the product is not there
      for (std::size_t i = 0; i < product.size(); ++i) {
        if (i / H % 4 == 3) product[i] = kNan;
      }
    }
  }

  CellForward<E> forward(bool first_layer) const {
    CellForward<E> s;
    s.cell = cell;
    s.rows = static_cast<int>(B);
    s.hidden = static_cast<int>(H);
    s.recurrent = recurrent.data();
    s.input = first_layer ? table.data() : product.data();
    s.ids = first_layer ? ids.data() : nullptr;
    s.bias = first_layer ? nullptr : bias.data();
    s.h_prev = h_prev.data();
    s.c_prev = c_prev.data();
    return s;
  }

  Cell cell;
  std::size_t B, H, W, R;
  std::vector<float> recurrent, product, table, bias;
  std::vector<E> h_prev;
  std::vector<float> c_prev;
  std::vector<TokenId> ids;
};

struct Expected {
  std::vector<double> gates, h, c;
};

template <class E>
Expected expected_forward(const Step<E>& s, bool first_layer) {
  Expected y{std::vector<double>(s.B * s.W), std::vector<double>(s.B * s.H), std::vector<double>(s.B * s.H)};
  const std::size_t H = s.H;
  for (std::size_t b = 0; b < s.B; ++b) {
    for (std::size_t u = 0; u < H; ++u) {
      const auto input = [&](std::size_t g) {
        if (first_layer) return static_cast<double>(s.table[static_cast<std::size_t>(s.ids[b]) * s.W + g * H + u]);
        return static_cast<double>(s.product[b * s.W + g * H + u]) + static_cast<double>(s.bias[g * H + u]);
      };
      const auto recurrent = [&](std::size_t g) { return static_cast<double>(s.recurrent[b * s.R + g * H + u]); };
      const auto gate = [&](std::size_t g) -> double& { return y.gates[b * s.W + g * H + u]; };
      double &h = y.h[b * H + u], &c = y.c[b * H + u];
      if (s.cell == Cell::kLstm) {  // i f g o
        for (std::size_t g = 0; g < 4; ++g) {
          const double a = input(g) + recurrent(g);
          gate(g) = g == 2 ? std::tanh(a) : logistic(a);
        }
        c = gate(1) * static_cast<double>(s.c_prev[b * H + u]) + gate(0) * gate(2);
        h = gate(3) * std::tanh(c);
      } else if (s.cell == Cell::kGru) {  // columns n r z nh; rows of the recurrence r z n
        const double nh = (first_layer ? input(3) : static_cast<double>(s.bias[3 * H + u])) + recurrent(2);
        const double r = logistic(input(1) + recurrent(0)), z = logistic(input(2) + recurrent(1));
        const double n = std::tanh(input(0) + r * nh);
        gate(0) = n, gate(1) = r, gate(2) = z, gate(3) = nh;
        h = (1 - z) * n + z * static_cast<double>(to_float(s.h_prev[b * H + u]));
      } else {
        const double a = input(0) + recurrent(0);
        h = s.cell == Cell::kRnnRelu ? std::max(0.0, a) : std::tanh(a);
      }
    }
  }
  return y;
}

// Pre-activations up to 8 are two sums, so they miss by 8 of float's epsilons at most. No derivative is above 1, but n
// of a GRU takes r nh with |nh| up to 5, and r misses by a quarter of those 8 and its own 3; gates add their own 4.
constexpr double kForwardUnits = 8 + 5 * (8 / 4 + 3) + 4;

template <class E>
void check_forward(Cell cell, int rows, int hidden, bool first_layer, bool keep_gates) {
  INFO("cell " << static_cast<int>(cell) << ", H " << hidden << ", first layer " << first_layer);
  const Step<E> s(cell, rows, hidden);
  const Expected e = expected_forward(s, first_layer);
  Output<E> gates(s.B * s.W), h(s.B * s.H);
  Output<float> c(s.B * s.H);
  CellForward<E> step = s.forward(first_layer);
  step.gates = keep_gates ? gates.data() : nullptr;
  step.h = h.data();
  step.c = c.data();
  cell_forward(step);
  CHECK(compare("h", h, e.h, kForwardUnits) == "");
  if (cell == Cell::kLstm) {
    CHECK(compare("c", c, e.c, kForwardUnits) == "");
  } else {
    CHECK(c.untouched());
  }
  if (keep_gates && columns(cell) == 4) {
    CHECK(compare("gates", gates, e.gates, kForwardUnits) == "");
  } else {
    CHECK(gates.untouched());
  }
}

template <class E>
void check_backward(Cell cell, int rows, int hidden, bool last, bool with_dropout) {
  INFO("cell " << static_cast<int>(cell) << ", H " << hidden << ", last " << last << ", dropout " << with_dropout);
  const auto B = static_cast<std::size_t>(rows), H = static_cast<std::size_t>(hidden), W = columns(cell) * H;
  const auto h_prev = some<E>(B * H, 2, 1), dy = some<E>(B * H, 6, 1);
  auto h = some<E>(B * H, 3, 1), dropped = some<E>(B * H, 9, 1);
  const auto c_prev = some(B * H, 4, 2), c = some(B * H, 5, 2), dh = some(B * H, 7, 1), dc = some(B * H, 8, 1);
  auto in = some<E>(B * W, 1, 1);
  h[0] = E{};  // where relu's derivative is taken as 0
  for (std::size_t i = 0; i < dropped.size(); ++i) {
    if (i % 3 == 1) dropped[i] = from_float<E>(-0.0F);
    if (i % 3 == 2) dropped[i] = from_float<E>(0.0F);  // kept, and zero
  }
  constexpr float kScale = 1.25F;

  std::vector<double> gates(B * W), sums(W), dh_out(B * H), dc_out(B * H);
  for (std::size_t k = 0; k < B * H; ++k) {
    const std::size_t b = k / H, u = k % H;
    const auto value = [](auto x) { return static_cast<double>(to_float(x)); };
    const auto gate = [&](std::size_t g) { return value(in[b * W + g * H + u]); };
    const auto put = [&](std::size_t g, double d) {
      gates[b * W + g * H + u] = d;
      sums[g * H + u] += d;
    };
    double d = value(dy[k]);
    if (with_dropout) d = k % 3 == 1 ? 0 : d * static_cast<double>(kScale);
    if (!last) d += value(dh[k]);
    if (cell == Cell::kLstm) {
      const auto x = lstm_cell_backward<double>(gate(0), gate(1), gate(2), gate(3), value(c_prev[k]), value(c[k]), d,
                                                last ? 0 : value(dc[k]));
      put(0, x.di), put(1, x.df), put(2, x.dg), put(3, x.d_o);
      dc_out[k] = x.dc_prev;
    } else if (cell == Cell::kGru) {
      const auto x = gru_cell_backward<double>(gate(1), gate(2), gate(0), gate(3), value(h_prev[k]), d);
      put(0, x.dnx), put(1, x.dr), put(2, x.dz), put(3, x.dnh);
      dh_out[k] = x.dh_prev;
    } else if (cell == Cell::kRnnTanh) {
      put(0, rnn_cell_backward<false>(value(h[k]), d));
    } else {
      put(0, value(h[k]) > 0 ? d : 0);
    }
  }

  Output<E> in_place(in);
  Output<float> dh_in_place(dh), dc_in_place(dc), sum(W);
  CellBackward<E> step;
  step.cell = cell;
  step.rows = rows;
  step.hidden = hidden;
  step.last = last;
  step.gates = in_place.data();
  step.h_prev = h_prev.data();
  step.h = h.data();
  step.c_prev = c_prev.data();
  step.c = c.data();
  step.dy = dy.data();
  step.dropped = with_dropout ? dropped.data() : nullptr;
  step.dropout_scale = kScale;
  step.dh = dh_in_place.data();
  step.dc = dc_in_place.data();
  step.sums = sum.data();
  cell_backward(step);
  // Products of up to 8 factors and a sum, all below 4.5 in size, each rounded by half an epsilon; tanh_c misses by 4.
  constexpr double kUnits = 4.5 * (4 + 4);
  CHECK(compare("gates", in_place, gates, kUnits) == "");
  // Of B such, and B roundings of a sum that is as large as B of them.
  CHECK(compare("sums", sum, sums, kUnits * rows + 4.5 * rows * rows) == "");
  if (cell == Cell::kLstm) CHECK(compare("dc", dc_in_place, dc_out, kUnits) == "");
  if (cell == Cell::kGru) CHECK(compare("dh", dh_in_place, dh_out, kUnits) == "");
  const auto same_as = [](const Output<float>& x, const std::vector<float>& y) {
    for (std::size_t i = 0; i < y.size(); ++i) {
      if (bits_of(x[i]) != bits_of(y[i])) return false;
    }
    return x.guards_stand();
  };
  if (cell != Cell::kLstm) CHECK(same_as(dc_in_place, dc));
  if (cell != Cell::kGru) CHECK(same_as(dh_in_place, dh));
}

/// Largest relative error of f over a fine grid of [from, to], in units of float's epsilon.
double worst_error(vector_functions::Function f, double (*exact)(double), double from, double to) {
  constexpr int kPoints = 100001;
  std::vector<float> x, y(kPoints);
  for (int i = 0; i < kPoints; ++i) x.push_back(static_cast<float>(from + (to - from) * i / (kPoints - 1)));
  vector_functions::apply(f, x.data(), y.data(), kPoints);
  double worst = 0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    const double e = exact(static_cast<double>(x[i]));
    if (e != 0) worst = std::max(worst, std::abs(static_cast<double>(y[i]) - e) / std::abs(e));
  }
  return worst / kEps;
}

float value_at(vector_functions::Function f, float x) {
  float y = -12345;
  vector_functions::apply(f, &x, &y, 1);
  return y;
}

double exact_exp(double x) { return std::exp(x); }
double exact_tanh(double x) { return std::tanh(x); }

}  // namespace

TEST_CASE("vectors of exp, sigmoid and tanh keep the bounds of scalars", "[row_ops]") {
  using vector_functions::Function;
  on_every_target([] {  // the bounds of tests/backend/math_test.cpp
    CHECK(worst_error(Function::kExp, exact_exp, -86, 87) < 2);
    CHECK(worst_error(Function::kExp, exact_exp, -1, 1) < 2);
    CHECK(worst_error(Function::kSigmoid, logistic, -80, 40) < 3);
    CHECK(worst_error(Function::kSigmoid, logistic, -3, 3) < 3);
    CHECK(worst_error(Function::kTanh, exact_tanh, -10, 10) < 4);
    CHECK(worst_error(Function::kTanh, exact_tanh, -1, 1) < 4);
    CHECK(worst_error(Function::kTanh, exact_tanh, -1e-3, 1e-3) < 4);
    CHECK(worst_error(Function::kTanh, exact_tanh, -1e-30, 1e-30) < 4);
  });
}

TEST_CASE("vectors of exp, sigmoid and tanh saturate, and NaN stays NaN", "[row_ops]") {
  using vector_functions::Function;
  on_every_target([] {
    for (const float x : {20.0F, 88.0F, 1e30F, kInfinity}) {
      CHECK(value_at(Function::kSigmoid, x) == 1.0F);
      CHECK(value_at(Function::kTanh, x) == 1.0F);
      CHECK(value_at(Function::kTanh, -x) == -1.0F);
    }
    for (const float x : {88.0F, 1e30F, kInfinity}) {
      CHECK(value_at(Function::kSigmoid, -x) < 1e-37F);
      CHECK(value_at(Function::kSigmoid, -x) >= 0.0F);
      CHECK(value_at(Function::kExp, x) > 1.6e38F);
      CHECK(value_at(Function::kExp, x) < kInfinity);
      CHECK(value_at(Function::kExp, -x) < 2e-38F);
      CHECK(value_at(Function::kExp, -x) > 0.0F);
    }
    CHECK(bits_of(value_at(Function::kTanh, 0.0F)) == bits_of(0.0F));
    CHECK(bits_of(value_at(Function::kTanh, -0.0F)) == bits_of(-0.0F));
    CHECK(value_at(Function::kExp, 0.0F) == 1.0F);
    CHECK(value_at(Function::kSigmoid, 0.0F) == 0.5F);
    const float odd_nan = std::bit_cast<float>(0xFFC54321U);  // bits that are taken for an exponent on the way
    for (const float x : {kNan, odd_nan}) {
      CHECK(std::isnan(value_at(Function::kExp, x)));
      CHECK(std::isnan(value_at(Function::kSigmoid, x)));
      CHECK(std::isnan(value_at(Function::kTanh, x)));
    }
  });
}

TEST_CASE("a step forward equals its formula, for rows of any length", "[row_ops]") {
  on_every_target([] {
    for (const Cell cell : kCells) {
      for (const int hidden : kHidden) {
        for (const bool first_layer : {false, true}) {
          check_forward<float>(cell, 3, hidden, first_layer, true);
          check_forward<Bf16>(cell, 3, hidden, first_layer, true);
        }
        check_forward<float>(cell, 2, hidden, true, false);
        check_forward<Bf16>(cell, 2, hidden, true, false);
      }
    }
  });
}

TEST_CASE("a unit's result does not depend on where in a row it stands", "[row_ops]") {
  on_every_target([] {
    constexpr int kUnits = 37;
    for (const Cell cell : kCells) {
      const Step<float> s(cell, 1, kUnits);
      Output<float> h(s.H), c(s.H);
      CellForward<float> whole = s.forward(true);
      whole.h = h.data();
      whole.c = c.data();
      cell_forward(whole);
      for (std::size_t u = 0; u < s.H; ++u) {
        const auto column_of = [&](const float* row, std::size_t n) {
          std::vector<float> column;
          for (std::size_t g = 0; g < n; ++g) column.push_back(row[g * s.H + u]);
          return column;
        };
        const auto recurrent = column_of(s.recurrent.data(), s.R / s.H);
        const auto input = column_of(s.table.data() + static_cast<std::size_t>(s.ids[0]) * s.W, s.W / s.H);
        const TokenId id = 0;
        float h_alone = 0, c_alone = 0;
        CellForward<float> alone = whole;
        alone.hidden = 1;
        alone.recurrent = recurrent.data();
        alone.input = input.data();
        alone.ids = &id;
        alone.h_prev = &s.h_prev[u];
        alone.c_prev = &s.c_prev[u];
        alone.h = &h_alone;
        alone.c = &c_alone;
        cell_forward(alone);
        REQUIRE(bits_of(h_alone) == bits_of(h[u]));
        if (cell == Cell::kLstm) REQUIRE(bits_of(c_alone) == bits_of(c[u]));
      }
    }
  });
}

TEST_CASE("a NaN goes through a step, and to its own unit alone", "[row_ops]") {
  on_every_target([] {
    for (const Cell cell : kCells) {
      Step<float> s(cell, 1, 21);
      s.recurrent[18] = kNan;  // of the first gate
      Output<float> h(s.H), c(s.H);
      CellForward<float> step = s.forward(true);
      step.h = h.data();
      step.c = c.data();
      cell_forward(step);
      for (std::size_t u = 0; u < s.H; ++u) CHECK(std::isnan(h[u]) == (u == 18));
    }
  });
}

TEST_CASE("bfloat16 is stored as element.h rounds", "[row_ops]") {
  on_every_target([] {
    std::mt19937 random(11);
    std::vector<float> x = {0.0F,
                            -0.0F,
                            kInfinity,
                            kNan,
                            std::bit_cast<float>(0x7F800001U),  // its upper half alone would be infinity
                            std::bit_cast<float>(0x7FFFFFFFU),
                            std::bit_cast<float>(0x7F7FFFFFU),  // rounds to infinity
                            std::bit_cast<float>(0x00000001U),
                            std::bit_cast<float>(0x00008000U),  // ties, of denormals too
                            std::bit_cast<float>(0x00018000U),
                            std::bit_cast<float>(0x3F808000U),
                            std::bit_cast<float>(0x3F818000U),
                            std::bit_cast<float>(0x3F808001U)};
    while (x.size() < 3000) x.push_back(std::bit_cast<float>(static_cast<std::uint32_t>(random()) & 0x7FFFFFFFU));
    // relu of a positive number, and of that plus -0, is the number itself. (A NaN's sign and payload may change.)
    const std::vector<float> zero(x.size(), -0.0F);
    const TokenId id = 0;
    Output<Bf16> h(x.size());
    CellForward<Bf16> step;
    step.cell = Cell::kRnnRelu;
    step.rows = 1;
    step.hidden = static_cast<int>(x.size());
    step.recurrent = x.data();
    step.input = zero.data();
    step.ids = &id;
    step.h = h.data();
    cell_forward(step);
    CHECK(h.guards_stand());
    for (std::size_t i = 0; i < x.size(); ++i) {
      INFO(i << ": " << std::hex << bits_of(x[i]) << " became " << h[i].bits);
      if (std::isnan(x[i])) {
        REQUIRE(std::isnan(to_float(h[i])));
      } else {
        REQUIRE(h[i].bits == from_float<Bf16>(x[i]).bits);
      }
    }
  });
}

namespace {

template <class E>
void check_dropout(int hidden, float probability) {
  INFO("H " << hidden << ", probability " << probability);
  constexpr int kRows = 3;
  const auto H = static_cast<std::size_t>(hidden);
  auto x = some(kRows * H, 1, 1);  // half of them are below 0, and relu makes 0 of those
  for (std::size_t i = 0; i < x.size(); i += 5) x[i] = -0.0F;
  const std::vector<float> minus_zero(H, -0.0F);
  const std::vector<TokenId> ids(kRows, 0);
  Output<E> h(x.size()), dropped(x.size());
  CellForward<E> s;
  s.cell = Cell::kRnnRelu;
  s.rows = kRows;
  s.hidden = hidden;
  s.recurrent = x.data();
  s.input = minus_zero.data();
  s.ids = ids.data();
  s.h = h.data();
  s.dropped = dropped.data();
  s.dropout = {.seed = 0x123456789ABCDEFU,
               .step = 0xFEDCBA9876543U,
               .layer = 2,
               .t = 41,
               .first_lane = 13,
               .bound = dropout_bound(probability),
               .scale = 1 / (1 - probability)};
  cell_forward(s);
  CHECK(h.guards_stand());
  CHECK(dropped.guards_stand());
  for (std::size_t b = 0; b < kRows; ++b) {
    for (std::size_t u = 0; u < H; ++u) {
      const PhiloxBlock block =
          dropout_numbers(s.dropout.seed, s.dropout.step, s.dropout.layer, s.dropout.t,
                          s.dropout.first_lane + static_cast<std::uint32_t>(b), static_cast<std::uint32_t>(u / 4));
      const std::uint32_t number = (&block.x0)[u % 4];
      const E y = h[b * H + u];
      E expected = from_float<E>(to_float(y) * s.dropout.scale);
      if (to_float(expected) == 0) expected = E{};  // +0
      if (number < s.dropout.bound) expected = from_float<E>(-0.0F);
      INFO("row " << b << ", unit " << u);
      REQUIRE(bits_of(dropped[b * H + u]) == bits_of(expected));
    }
  }
}

}  // namespace

TEST_CASE("dropout takes its masks bit for bit, and a dropped unit is -0 and no other is", "[row_ops]") {
  on_every_target([] {
    for (const int hidden : {1, 5, 17, 64, 100, 256, 300, 515}) {
      for (const float probability : {0.3F, 0.9F}) {
        check_dropout<float>(hidden, probability);
        check_dropout<Bf16>(hidden, probability);
      }
    }
  });
}

TEST_CASE("dropout leaves h, gates and c of every cell as they are without", "[row_ops]") {
  on_every_target([] {
    for (const Cell cell : kCells) {
      const Step<float> s(cell, 3, 67);
      Output<float> h(s.B * s.H), c(s.B * s.H), h2(s.B * s.H), c2(s.B * s.H), dropped(s.B * s.H);
      CellForward<float> step = s.forward(false);
      step.h = h.data();
      step.c = c.data();
      cell_forward(step);
      step.h = h2.data();
      step.c = c2.data();
      step.dropped = dropped.data();
      step.dropout.bound = dropout_bound(0.5F);
      step.dropout.scale = 2;
      cell_forward(step);
      std::size_t zeros = 0;
      for (std::size_t i = 0; i < h.size(); ++i) {
        REQUIRE(bits_of(h[i]) == bits_of(h2[i]));
        REQUIRE(bits_of(c[i]) == bits_of(c2[i]));
        if (bits_of(dropped[i]) == bits_of(-0.0F)) {
          ++zeros;
        } else {
          REQUIRE(dropped[i] == h[i] * 2);
        }
      }
      CHECK(zeros > h.size() / 4);
      CHECK(zeros < h.size() * 3 / 4);
    }
  });
}

TEST_CASE("a step backward equals the kernels' math in double, in place, and sums its columns", "[row_ops]") {
  on_every_target([] {
    for (const Cell cell : kCells) {
      for (const int hidden : kHidden) {
        for (const bool last : {false, true}) {
          for (const bool with_dropout : {false, true}) {
            check_backward<float>(cell, 4, hidden, last, with_dropout);
            check_backward<Bf16>(cell, 4, hidden, last, with_dropout);
          }
        }
      }
    }
  });
}

TEST_CASE("nothing behind the last step is read", "[row_ops]") {
  on_every_target([] {
    for (const Cell cell : kCells) {
      constexpr std::size_t kH = 19;
      const std::vector<float> x = some(kH, 3, 1);
      Output<float> gates(some(columns(cell) * kH, 4, 1)), dh(std::vector<float>(kH, kNan)),
          dc(std::vector<float>(kH, kNan)), sums(columns(cell) * kH);
      CellBackward<float> s;
      s.cell = cell;
      s.rows = 1;
      s.hidden = kH;
      s.last = true;
      s.gates = gates.data();
      s.h_prev = s.h = s.c_prev = s.c = s.dy = x.data();
      s.dh = dh.data();
      s.dc = dc.data();
      s.sums = sums.data();
      cell_backward(s);
      for (std::size_t i = 0; i < gates.size(); ++i) CHECK(!std::isnan(gates[i]));
      for (std::size_t i = 0; i < sums.size(); ++i) CHECK(!std::isnan(sums[i]));
    }
  });
}

TEST_CASE("rows are added in their order, exactly", "[row_ops]") {
  const auto check = [](auto element, std::size_t rows, std::size_t n) {
    using E = decltype(element);
    INFO(rows << " rows of " << n);
    const auto x = some<E>(rows * n, 1, 1);
    const auto start = some(n, 2, 1);
    Output<float> y(start);
    add_rows(y.data(), x.data(), static_cast<std::int64_t>(rows), static_cast<std::int64_t>(n));
    CHECK(y.guards_stand());
    for (std::size_t j = 0; j < n; ++j) {
      float sum = start[j];
      for (std::size_t row = 0; row < rows; ++row) sum += to_float(x[row * n + j]);
      REQUIRE(bits_of(y[j]) == bits_of(sum));
    }
  };
  on_every_target([&] {
    for (const std::size_t rows : {0U, 1U, 7U, 8U, 9U, 21U}) {
      for (const std::size_t n : {1U, 5U, 17U, 100U}) {
        check(float{}, rows, n);
        check(Bf16{}, rows, n);
      }
    }
  });
}

namespace {

/// @param in_place  the gradient where the logits are; float only
template <class E>
void check_softmax(const std::vector<float>& x, std::size_t target, bool in_place) {
  INFO("V " << x.size() << ", target " << target << ", in place " << in_place);
  constexpr float kWeight = 0.37F;
  double largest = -std::numeric_limits<double>::infinity(), sum = 0;
  for (const float v : x) largest = std::max(largest, static_cast<double>(v));
  for (const float v : x) sum += std::exp(static_cast<double>(v) - largest);
  const double nats = std::log(sum) + largest - static_cast<double>(x[target]);

  Output<float> logits(x);
  Output<E> apart(x.size());
  E* gradient = apart.data();
  if constexpr (std::is_same_v<E, float>) {
    if (in_place) gradient = logits.data();
  }
  const XentRow row =
      softmax_xent_row(logits.data(), gradient, static_cast<int>(x.size()), static_cast<TokenId>(target), kWeight);
  // Every exponential misses by 2 and its argument's rounding, of up to 200: at e^-88 and above that is 44 epsilons; so
  // does their sum, of which the largest summand, 1, is exact.
  const double relative = 48 * kEps;
  CHECK(std::abs(row.nats - nats) <= relative);
  CHECK(row.correct == (std::max_element(x.begin(), x.end()) - x.begin() == static_cast<std::ptrdiff_t>(target)));
  CHECK(logits.guards_stand());
  CHECK(apart.guards_stand());
  for (std::size_t v = 0; v < x.size(); ++v) {
    const double softmax = std::exp(static_cast<double>(x[v]) - largest) / sum;
    const double e = static_cast<double>(kWeight) * (softmax - (v == target ? 1 : 0));
    const double rounding = std::is_same_v<E, Bf16> ? 0x1p-8 * std::abs(e) : 0;
    const double difference = std::abs(static_cast<double>(to_float(gradient[v])) - e);
    REQUIRE(difference <= static_cast<double>(kWeight) * (softmax * relative + 2 * kEps) + rounding);
    if (v != target) REQUIRE(difference <= relative * std::abs(e) + rounding + 2e-38);
  }
  Output<float> again(x);
  E* const no_gradient = nullptr;
  const XentRow loss_alone =
      softmax_xent_row(again.data(), no_gradient, static_cast<int>(x.size()), static_cast<TokenId>(target), kWeight);
  CHECK(loss_alone.nats == row.nats);
  CHECK(again.guards_stand());
}

}  // namespace

TEST_CASE("softmax cross-entropy of a row of any length equals its formula", "[row_ops]") {
  on_every_target([] {
    for (const std::size_t V : {1U, 2U, 5U, 16U, 17U, 65U, 96U, 250U, 256U}) {
      for (const float range : {1.0F, 40.0F}) {
        auto x = some(V, static_cast<unsigned>(V), range);
        for (float& v : x) v -= 2 * range;  // all below 0, so that a zero from beyond the row would be the largest
        for (const std::size_t target : {std::size_t{0}, V / 2, V - 1}) {
          check_softmax<float>(x, target, false);
          check_softmax<float>(x, target, true);
          check_softmax<Bf16>(x, target, false);
        }
      }
    }
  });
}

TEST_CASE("of equal logits the first is the likeliest", "[row_ops]") {
  on_every_target([] {
    for (const std::size_t V : {2U, 19U, 70U}) {
      for (const std::size_t first : {std::size_t{0}, V / 3, V - 2}) {
        std::vector<float> x = some(V, 3, 1);
        x[first] = x[V - 1] = 2;
        check_softmax<float>(x, first, false);
        check_softmax<float>(x, V - 1, false);
      }
    }
  });
}

TEST_CASE("a NaN anywhere among logits makes the loss NaN", "[row_ops]") {
  on_every_target([] {
    for (const std::size_t V : {1U, 7U, 67U}) {
      for (std::size_t at = 0; at < V; ++at) {
        std::vector<float> x = some(V, 3, 1);
        x[at] = kNan;
        float* const no_gradient = nullptr;
        const XentRow row =
            softmax_xent_row(x.data(), no_gradient, static_cast<int>(V), static_cast<TokenId>(V / 2), 1);
        REQUIRE(std::isnan(row.nats));
      }
    }
  });
}

TEST_CASE("sums of squares have the same bits on every target", "[row_ops]") {
  on_every_target([] {
    for (const std::size_t n : {0U, 1U, 15U, 16U, 17U, 100U, 1003U}) {
      const auto x = some(n, 5, 3);
      double parts[16] = {};
      for (std::size_t i = 0; i < n; ++i) parts[i % 16] += static_cast<double>(x[i]) * static_cast<double>(x[i]);
      double sum = 0;
      for (const double part : parts) sum += part;
      CHECK(sum_of_squares(x.data(), static_cast<std::int64_t>(n)) == sum);
    }
    std::vector<float> x = some(37, 5, 3);
    x[35] = kNan;
    CHECK(std::isnan(sum_of_squares(x.data(), 37)));
  });
}

namespace {

void check_update(OptimizerKind kind, std::size_t n, float clip_value) {
  INFO("optimizer " << static_cast<int>(kind) << ", " << n << " parameters, clip " << clip_value);
  const auto p = some(n, 1, 2), m = some(n, 3, 1);
  auto g = some(n, 2, 4), v = some(n, 4, 1);
  for (float& x : v) x = std::abs(x);
  auto m_in = m;
  if (kind == OptimizerKind::kRmsprop || kind == OptimizerKind::kAdagrad) {
    for (float& x : m_in) x = std::abs(x);
  }
  const OptimizerRule rule{kind, 0.01, 1e-8, 0.95, 0.9};
  const OptimizerFactors<float> f = factors_of(rule, 3);
  const OptimizerFactors<double> exact{static_cast<double>(f.rate),
                                       static_cast<double>(f.decay),
                                       static_cast<double>(f.fresh),
                                       static_cast<double>(f.decay1),
                                       static_cast<double>(f.fresh1),
                                       static_cast<double>(f.epsilon),
                                       static_cast<double>(f.second_correction)};
  constexpr float kScale = 0.75F;
  Output<float> p_out(p), m_out(m_in), v_out(v);
  UpdateRow u;
  u.n = static_cast<std::int64_t>(n);
  u.p = p_out.data();
  u.g = g.data();
  u.moment1 = m_out.data();
  u.moment2 = kind == OptimizerKind::kAdam ? v_out.data() : nullptr;
  u.clip_value = clip_value;
  u.clip_scale = kScale;
  u.factors = f;
  update_row(kind, u);
  std::vector<double> p_expected, m_expected, v_expected;
  for (std::size_t i = 0; i < n; ++i) {
    const double limit = static_cast<double>(clip_value);
    const double clipped = std::clamp(static_cast<double>(g[i] * kScale), -limit, limit);
    auto pi = static_cast<double>(p[i]), mi = static_cast<double>(m_in[i]), vi = static_cast<double>(v[i]);
    switch (kind) {
      case OptimizerKind::kRmsprop: rmsprop(pi, clipped, mi, exact); break;
      case OptimizerKind::kAdam: adam(pi, clipped, mi, vi, exact); break;
      case OptimizerKind::kAdagrad: adagrad(pi, clipped, mi, exact); break;
      case OptimizerKind::kSgd: sgd(pi, clipped, mi, exact); break;
    }
    p_expected.push_back(pi), m_expected.push_back(mi), v_expected.push_back(vi);
  }
  // Moments: three roundings. p: one of its own, and of the step, which is a hundred times smaller, some more.
  CHECK(compare("p", p_out, p_expected, 1) == "");
  CHECK(compare("moment1", m_out, m_expected, 2) == "");
  CHECK(compare("moment2", v_out, v_expected, 2) == "");
}

}  // namespace

TEST_CASE("updates of all optimizers equal the kernels' math in double", "[row_ops]") {
  on_every_target([] {
    for (const OptimizerKind kind :
         {OptimizerKind::kRmsprop, OptimizerKind::kAdam, OptimizerKind::kAdagrad, OptimizerKind::kSgd}) {
      for (const std::size_t n : {1U, 5U, 16U, 17U, 100U}) {
        check_update(kind, n, kInfinity);
        check_update(kind, n, 0.5F);
      }
    }
  });
}

TEST_CASE("clipping lets a gradient that is NaN through", "[row_ops]") {
  on_every_target([] {
    float p[3] = {1, 1, 1}, m[3] = {};
    const float g[3] = {0, kNan, -kInfinity};
    UpdateRow u;
    u.n = 3;
    u.p = p;
    u.g = g;
    u.moment1 = m;
    u.clip_value = 5;
    u.factors = factors_of({OptimizerKind::kSgd, 0.5, 0, 0, 0}, 1);
    update_row(OptimizerKind::kSgd, u);
    CHECK(p[0] == 1);
    CHECK(std::isnan(p[1]));
    CHECK(p[2] == 3.5F);
  });
}

TEST_CASE("instructions of AVX-512 can be forgone", "[row_ops]") {
#if HWY_ARCH_X86
  const std::int64_t before = hwy::SupportedTargets();
  limit_vectors_to_avx2();
  CHECK((hwy::SupportedTargets() & (HWY_AVX2 - 1)) == 0);
  CHECK((hwy::SupportedTargets() & HWY_AVX2) == (before & HWY_AVX2));
  hwy::DisableTargets(0);
  CHECK(hwy::SupportedTargets() == before);
#endif
}
