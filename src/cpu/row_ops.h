// Element-wise work on rows of activations: the math of kernels/*.h in loops that the compiler vectorises, compiled for
// several instruction sets and chosen when the program starts.
#pragma once

#include <cstdint>

#include "charrnn/config.h"
#include "charrnn/network_shape.h"
#include "kernels/gate_map.h"
#include "kernels/optimizer.h"

namespace charrnn::cpu {

struct StepRows {
  int rows = 0, hidden = 0;       // b, H
  float* gates = nullptr;         // [b, W] pre-activations in, activations out (GRU: n r z nh)
  const float* h_prev = nullptr;  // [b,H]
  const float* c_prev = nullptr;  // [b,H] LSTM
  float* h = nullptr;             // [b,H] overwritten
  float* c = nullptr;             // [b,H] overwritten, LSTM
};
void step_forward(Cell cell, const StepRows& s);

struct StepGradRows {
  int rows = 0, hidden = 0;
  float* gates = nullptr;         // [b,W] activations in, gradients of the pre-activations out
  const float* h_prev = nullptr;  // [b,H] GRU
  const float* h = nullptr;       // [b,H] RNN
  const float* c_prev = nullptr;  // [b,H] LSTM
  const float* c = nullptr;       // [b,H] LSTM
  const float* dh = nullptr;      // [b,H]
  float* dh_prev = nullptr;       // [b,H] += the direct path of the GRU; null at the window's start
  float* dc = nullptr;            // [b,H] in: from the next step, out: for the previous one; LSTM
};
void step_backward(Cell cell, const StepGradRows& s);

/// y[j] += x[j], over `rows` rows of x with stride n.
void add_rows(float* y, const float* x, std::int64_t rows, std::int64_t n);

/// y = x, dropped out: the masks of dropout_numbers(). May work in place.
struct DropoutRow {
  std::uint64_t seed = 0, step = 0;
  std::uint32_t layer = 0, t = 0, lane = 0;
  std::uint32_t bound = 0;
  float scale = 1.0F;  // 1 / (1 - probability)
};
void dropout_row(float* y, const float* x, int n, const DropoutRow& d);

struct XentRow {
  double nats = 0;
  bool correct = false;
};
/// Softmax cross-entropy of one row of logits [V]; with `weight` != 0 the row becomes weight * (softmax - 1[target]).
XentRow softmax_xent_row(float* logits, int vocabulary, TokenId target, float weight, bool want_gradient);

/// Sum of squares of n floats, in double, in a fixed order.
double sum_of_squares(const float* x, std::int64_t n);

struct UpdateRow {
  std::int64_t n = 0;
  float* p = nullptr;
  const float* g = nullptr;
  float* moment1 = nullptr;  // the rules' only moment; adam: the mean
  float* moment2 = nullptr;  // adam: the mean square
  float clip_value = 0;      // clamp to +- this; infinity: not
  float clip_scale = 1;      // times this
  OptimizerFactors<float> factors{};
};
void update_row(OptimizerKind kind, const UpdateRow& u);

}  // namespace charrnn::cpu
