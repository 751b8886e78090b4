#include "cpu/row_ops.h"

#include <algorithm>
#include <cmath>

#include "kernels/gru_cell.h"
#include "kernels/lstm_cell.h"
#include "kernels/philox.h"
#include "kernels/rnn_cell.h"

// One body, several instruction sets, picked by the loader. Sanitizers instrument the pickers before their runtime is
// up, so those builds take the plain body.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && !defined(CHARRNN_SANITIZED)
#define CHARRNN_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define CHARRNN_CLONES
#endif

namespace charrnn::cpu {

namespace {

CHARRNN_CLONES void lstm_forward(const StepRows& s) {
  const int H = s.hidden;
  for (int row = 0; row < s.rows; ++row) {
    float* const __restrict__ a = s.gates + std::int64_t{row} * 4 * H;
    const float* const __restrict__ c_prev = s.c_prev + std::int64_t{row} * H;
    float* const __restrict__ c = s.c + std::int64_t{row} * H;
    float* const __restrict__ h = s.h + std::int64_t{row} * H;
    float* const __restrict__ i = a + kLstmI * H;
    float* const __restrict__ f = a + kLstmF * H;
    float* const __restrict__ g = a + kLstmG * H;
    float* const __restrict__ o = a + kLstmO * H;
#pragma GCC ivdep
    for (int j = 0; j < H; ++j) {
      const auto y = lstm_cell(i[j], f[j], g[j], o[j], c_prev[j]);
      i[j] = y.i, f[j] = y.f, g[j] = y.g, o[j] = y.o;
      c[j] = y.c;
      h[j] = y.h;
    }
  }
}

CHARRNN_CLONES void lstm_backward(const StepGradRows& s) {
  const int H = s.hidden;
  for (int row = 0; row < s.rows; ++row) {
    float* const __restrict__ a = s.gates + std::int64_t{row} * 4 * H;
    const float* const __restrict__ c_prev = s.c_prev + std::int64_t{row} * H;
    const float* const __restrict__ c = s.c + std::int64_t{row} * H;
    const float* const __restrict__ dh = s.dh + std::int64_t{row} * H;
    float* const __restrict__ dc = s.dc + std::int64_t{row} * H;
    float* const __restrict__ i = a + kLstmI * H;
    float* const __restrict__ f = a + kLstmF * H;
    float* const __restrict__ g = a + kLstmG * H;
    float* const __restrict__ o = a + kLstmO * H;
#pragma GCC ivdep
    for (int j = 0; j < H; ++j) {
      const auto y = lstm_cell_backward(i[j], f[j], g[j], o[j], c_prev[j], c[j], dh[j], dc[j]);
      i[j] = y.di, f[j] = y.df, g[j] = y.dg, o[j] = y.d_o;
      dc[j] = y.dc_prev;
    }
  }
}

CHARRNN_CLONES void gru_forward(const StepRows& s) {
  const int H = s.hidden;
  for (int row = 0; row < s.rows; ++row) {
    float* const __restrict__ a = s.gates + std::int64_t{row} * 4 * H;
    const float* const __restrict__ h_prev = s.h_prev + std::int64_t{row} * H;
    float* const __restrict__ h = s.h + std::int64_t{row} * H;
    float* const __restrict__ n = a + kGruColumnNx * H;
    float* const __restrict__ r = a + kGruColumnR * H;
    float* const __restrict__ z = a + kGruColumnZ * H;
    const float* const __restrict__ nh = a + kGruColumnNh * H;
#pragma GCC ivdep
    for (int j = 0; j < H; ++j) {
      const auto y = gru_cell(r[j], z[j], n[j], nh[j], h_prev[j]);
      n[j] = y.n, r[j] = y.r, z[j] = y.z;
      h[j] = y.h;
    }
  }
}

CHARRNN_CLONES void gru_backward(const StepGradRows& s) {
  const int H = s.hidden;
  for (int row = 0; row < s.rows; ++row) {
    float* const __restrict__ a = s.gates + std::int64_t{row} * 4 * H;
    const float* const __restrict__ h_prev = s.h_prev + std::int64_t{row} * H;
    const float* const __restrict__ dh = s.dh + std::int64_t{row} * H;
    float* const __restrict__ n = a + kGruColumnNx * H;
    float* const __restrict__ r = a + kGruColumnR * H;
    float* const __restrict__ z = a + kGruColumnZ * H;
    float* const __restrict__ nh = a + kGruColumnNh * H;
    float* const __restrict__ dh_prev = s.dh_prev == nullptr ? nullptr : s.dh_prev + std::int64_t{row} * H;
    if (dh_prev != nullptr) {
      for (int j = 0; j < H; ++j) dh_prev[j] += dh[j] * z[j];  // before z makes room for its gradient
    }
#pragma GCC ivdep
    for (int j = 0; j < H; ++j) {
      const auto y = gru_cell_backward(r[j], z[j], n[j], nh[j], h_prev[j], dh[j]);
      n[j] = y.dnx, r[j] = y.dr, z[j] = y.dz, nh[j] = y.dnh;
    }
  }
}

template <bool kRelu>
CHARRNN_HD void rnn_forward_body(const StepRows& s) {
  const std::int64_t n = std::int64_t{s.rows} * s.hidden;
  float* const __restrict__ a = s.gates;
  float* const __restrict__ h = s.h;
  for (std::int64_t j = 0; j < n; ++j) h[j] = rnn_cell<kRelu>(a[j]);
}
CHARRNN_CLONES void rnn_forward_tanh(const StepRows& s) { rnn_forward_body<false>(s); }
CHARRNN_CLONES void rnn_forward_relu(const StepRows& s) { rnn_forward_body<true>(s); }

template <bool kRelu>
CHARRNN_HD void rnn_backward_body(const StepGradRows& s) {
  const std::int64_t n = std::int64_t{s.rows} * s.hidden;
  float* const __restrict__ a = s.gates;
  const float* const __restrict__ h = s.h;
  const float* const __restrict__ dh = s.dh;
  for (std::int64_t j = 0; j < n; ++j) a[j] = rnn_cell_backward<kRelu>(h[j], dh[j]);
}
CHARRNN_CLONES void rnn_backward_tanh(const StepGradRows& s) { rnn_backward_body<false>(s); }
CHARRNN_CLONES void rnn_backward_relu(const StepGradRows& s) { rnn_backward_body<true>(s); }

constexpr int kDropoutGroups = 64;  // numbers made at once: 256 units, 1 KiB

/// numbers[4 g + i] for groups first..first + kDropoutGroups. Arrays of one field each, so that the loop vectorises.
CHARRNN_CLONES void dropout_chunk(const DropoutRow& d, std::uint32_t first, std::uint32_t* __restrict__ numbers) {
  for (std::uint32_t g = 0; g < kDropoutGroups; ++g) {
    const PhiloxBlock x = dropout_numbers(d.seed, d.step, d.layer, d.t, d.lane, first + g);
    numbers[g] = x.x0;
    numbers[kDropoutGroups + g] = x.x1;
    numbers[2 * kDropoutGroups + g] = x.x2;
    numbers[3 * kDropoutGroups + g] = x.x3;
  }
}

CHARRNN_CLONES void apply_dropout(float* y, const float* x, int n, const std::uint32_t* __restrict__ numbers,
                                  std::uint32_t bound, float scale) {
  for (int j = 0; j < n; ++j) {
    y[j] = numbers[(j % 4) * kDropoutGroups + j / 4] < bound ? 0.0F : x[j] * scale;
  }
}

CHARRNN_CLONES void exp_row(float* x, int n, float shift) {
  for (int j = 0; j < n; ++j) x[j] = exp_of(x[j] - shift);
}

CHARRNN_CLONES void scale_row(float* x, int n, float factor) {
  for (int j = 0; j < n; ++j) x[j] *= factor;
}

/// Calls rule(p, clipped gradient, moment1, moment2) for each element.
template <class Rule>
CHARRNN_HD void update_body(const UpdateRow& u, Rule rule) {
  float* const __restrict__ p = u.p;
  const float* const __restrict__ g = u.g;
  float* const __restrict__ m = u.moment1;
  float* const __restrict__ v = u.moment2;
  for (std::int64_t j = 0; j < u.n; ++j) {
    float clipped = g[j] * u.clip_scale;
    clipped = clipped > u.clip_value ? u.clip_value : clipped;
    clipped = clipped < -u.clip_value ? -u.clip_value : clipped;
    rule(p[j], clipped, m[j], v[j]);
  }
}

CHARRNN_CLONES void update_rmsprop(const UpdateRow& u) {
  const auto f = u.factors;
  update_body(u, [f](float& p, float g, float& square, float&) { rmsprop(p, g, square, f); });
}
CHARRNN_CLONES void update_adagrad(const UpdateRow& u) {
  const auto f = u.factors;
  update_body(u, [f](float& p, float g, float& sum, float&) { adagrad(p, g, sum, f); });
}
CHARRNN_CLONES void update_sgd(const UpdateRow& u) {
  const auto f = u.factors;
  update_body(u, [f](float& p, float g, float& velocity, float&) { sgd(p, g, velocity, f); });
}
CHARRNN_CLONES void update_adam(const UpdateRow& u) {
  const auto f = u.factors;
  update_body(u, [f](float& p, float g, float& mean, float& square) { adam(p, g, mean, square, f); });
}

CHARRNN_CLONES void add_row(float* __restrict__ y, const float* __restrict__ x, std::int64_t n) {
  for (std::int64_t j = 0; j < n; ++j) y[j] += x[j];
}

constexpr int kParts = 16;  // independent partial sums: a vector's worth, always added in the same order

CHARRNN_CLONES double squares_in_parts(const float* x, std::int64_t n) {
  double parts[kParts] = {};
  std::int64_t j = 0;
  for (; j + kParts <= n; j += kParts) {
    for (int i = 0; i < kParts; ++i) parts[i] += static_cast<double>(x[j + i]) * static_cast<double>(x[j + i]);
  }
  for (int i = 0; j < n; ++j, ++i) parts[i] += static_cast<double>(x[j]) * static_cast<double>(x[j]);
  double sum = 0;
  for (const double part : parts) sum += part;
  return sum;
}

}  // namespace

void step_forward(Cell cell, const StepRows& s) {
  switch (cell) {
    case Cell::kLstm: return lstm_forward(s);
    case Cell::kGru: return gru_forward(s);
    case Cell::kRnnTanh: return rnn_forward_tanh(s);
    case Cell::kRnnRelu: return rnn_forward_relu(s);
  }
}

void step_backward(Cell cell, const StepGradRows& s) {
  switch (cell) {
    case Cell::kLstm: return lstm_backward(s);
    case Cell::kGru: return gru_backward(s);
    case Cell::kRnnTanh: return rnn_backward_tanh(s);
    case Cell::kRnnRelu: return rnn_backward_relu(s);
  }
}

void add_rows(float* y, const float* x, std::int64_t rows, std::int64_t n) {
  for (std::int64_t row = 0; row < rows; ++row) add_row(y, x + row * n, n);
}

void dropout_row(float* y, const float* x, int n, const DropoutRow& d) {
  alignas(64) std::uint32_t numbers[4 * kDropoutGroups];
  for (int first = 0; first < n; first += 4 * kDropoutGroups) {
    dropout_chunk(d, static_cast<std::uint32_t>(first / 4), numbers);
    apply_dropout(y + first, x + first, std::min(n - first, 4 * kDropoutGroups), numbers, d.bound, d.scale);
  }
}

XentRow softmax_xent_row(float* logits, int vocabulary, TokenId target, float weight, bool want_gradient) {
  float largest = logits[0];
  int argmax = 0;
  for (int v = 1; v < vocabulary; ++v) {
    if (logits[v] > largest) largest = logits[v], argmax = v;
  }
  const float target_logit = logits[target];
  exp_row(logits, vocabulary, largest);
  double sum = 0;
  for (int v = 0; v < vocabulary; ++v) sum += static_cast<double>(logits[v]);
  const XentRow result{std::log(sum) + static_cast<double>(largest) - static_cast<double>(target_logit),
                       argmax == target};
  if (want_gradient) {
    scale_row(logits, vocabulary, static_cast<float>(static_cast<double>(weight) / sum));
    logits[target] -= weight;
  }
  return result;
}

double sum_of_squares(const float* x, std::int64_t n) { return squares_in_parts(x, n); }

void update_row(OptimizerKind kind, const UpdateRow& u) {
  switch (kind) {
    case OptimizerKind::kRmsprop: return update_rmsprop(u);
    case OptimizerKind::kAdam: return update_adam(u);
    case OptimizerKind::kAdagrad: return update_adagrad(u);
    case OptimizerKind::kSgd: return update_sgd(u);
  }
}

}  // namespace charrnn::cpu
