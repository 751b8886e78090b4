// Element-wise work on rows of activations: the math of kernels/*.h on vectors, compiled for several instruction sets
// in one binary and chosen when the program starts. E: float or Bf16, the type of activations (cpu/element.h).
#pragma once

#include <cstdint>

#include "charrnn/config.h"
#include "charrnn/network_shape.h"
#include "cpu/element.h"
#include "kernels/gate_map.h"
#include "kernels/optimizer.h"

namespace charrnn::cpu {

/// Masks of one step of one layer (kernels/philox.h, dropout_numbers): row r is lane first_lane + r.
struct DropoutStep {
  std::uint64_t seed = 0, step = 0;
  std::uint32_t layer = 0, t = 0, first_lane = 0;
  std::uint32_t bound = 0;  // a unit whose number is below is dropped
  float scale = 1.0F;       // of the others: 1 / (1 - probability)
};

/// One step of one layer, forward. b rows, H hidden, W columns of a row of gates, G H rows of W_hh.
template <class E>
struct CellForward {
  Cell cell = Cell::kLstm;
  int rows = 0, hidden = 0;
  const float* recurrent = nullptr;  // [b, G H] h_prev W_hh^T
  const float* input = nullptr;      // layer 0: table [V,W], biases in it; above: x W_ih^T [b,W] (GRU: no column nh)
  const TokenId* ids = nullptr;      // [b] layer 0: the row of the table; null above
  const float* bias = nullptr;       // [W] above layer 0; null in it
  E* gates = nullptr;                // [b,W] activations out (GRU: n r z nh), or null: not kept. RNN: not written
  const E* h_prev = nullptr;         // [b,H] GRU
  const float* c_prev = nullptr;     // [b,H] LSTM
  E* h = nullptr;                    // [b,H] overwritten
  float* c = nullptr;                // [b,H] overwritten, LSTM
  E* dropped = nullptr;              // [b,H] overwritten: h after dropout; null: no dropout. A dropped unit is -0,
                                     // any other zero is +0, so that the way back needs neither mask nor generator
  DropoutStep dropout{};
};
template <class E>
void cell_forward(const CellForward<E>& s);

/// The same step, backward.
template <class E>
struct CellBackward {
  Cell cell = Cell::kLstm;
  int rows = 0, hidden = 0;
  bool last = false;              // the window's last step: nothing comes back from behind it
  E* gates = nullptr;             // [b,W] activations in, gradients of pre-activations out (GRU: dnx dr dz dnh)
  const E* h_prev = nullptr;      // [b,H] GRU
  const E* h = nullptr;           // [b,H] RNN
  const float* c_prev = nullptr;  // [b,H] LSTM
  const float* c = nullptr;       // [b,H] LSTM
  const E* dy = nullptr;          // [b,H] from above, of what dropout left
  const E* dropped = nullptr;     // [b,H] as cell_forward() wrote it; null: no dropout
  float dropout_scale = 1.0F;
  float* dh = nullptr;    // [b,H] in: from the step behind, not read if `last`; out, GRU: z * dh, past the products
  float* dc = nullptr;    // [b,H] in: from the step behind, not read if `last`; out: for the step before; LSTM
  float* sums = nullptr;  // [W] overwritten: sums over rows of the gradients of pre-activations, before rounding to E
};
template <class E>
void cell_backward(const CellBackward<E>& s);

/// y[j] += x[j], over `rows` rows of x with stride n.
template <class E>
void add_rows(float* y, const E* x, std::int64_t rows, std::int64_t n);

struct XentRow {
  double nats = 0;
  bool correct = false;
};
/// Softmax cross-entropy of one row of logits [V]. `gradient` [V], if not null: weight * (softmax - 1[target]); it may
/// be `logits` itself. Spoils the logits.
template <class E>
XentRow softmax_xent_row(float* logits, E* gradient, int vocabulary, TokenId target, float weight);

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

/// No instructions of AVX-512 from here on, for example since the user keeps oneDNN from them. Not to be called while
/// other threads are in these functions.
void limit_vectors_to_avx2();

}  // namespace charrnn::cpu
