// Element math of one LSTM step, forward and backward. Source: Hochreiter & Schmidhuber 1997, with the forget gate of
// Gers et al. 2000. Gate order in memory: i f g o, as PyTorch and cuDNN have it.
#ifndef CHARRNN_KERNELS_LSTM_CELL_H  // math.h says why
#define CHARRNN_KERNELS_LSTM_CELL_H

#include "kernels/math.h"

namespace CHARRNN_MATH_NAMESPACE {

enum LstmGate { kLstmI, kLstmF, kLstmG, kLstmO };

template <class Real>
struct LstmStep {
  Real i, f, g, o, c, h;
};

/// All but h, which is lstm_output() of o and c.
template <class Real>
CHARRNN_HD LstmStep<Real> lstm_gates(Real ai, Real af, Real ag, Real ao, Real c_prev) {
  LstmStep<Real> y{sigmoid(ai), sigmoid(af), tanh_of(ag), sigmoid(ao), Real(0), Real(0)};
  y.c = y.f * c_prev + y.i * y.g;
  return y;
}
template <class Real>
CHARRNN_HD Real lstm_output(Real o, Real c) {
  return o * tanh_of(c);
}

/// From pre-activations ai..ao (W x + b_ih + R h + b_hh) and the previous cell.
template <class Real>
CHARRNN_HD LstmStep<Real> lstm_cell(Real ai, Real af, Real ag, Real ao, Real c_prev) {
  LstmStep<Real> y = lstm_gates(ai, af, ag, ao, c_prev);
  y.h = lstm_output(y.o, y.c);
  return y;
}

template <class Real>
struct LstmGrad {
  Real di, df, dg, d_o, dc_prev;  // with respect to the pre-activations, and to the previous cell
};

/// @param dh,dc  gradients with respect to this step's h (all paths) and c (from the next step)
template <class Real>
CHARRNN_HD LstmGrad<Real> lstm_gates_backward(Real i, Real f, Real g, Real o, Real c_prev, Real tanh_c, Real dh,
                                              Real dc) {
  const Real dc_all = dc + dh * o * (Real(1) - tanh_c * tanh_c);
  return {dc_all * g * i * (Real(1) - i), dc_all * c_prev * f * (Real(1) - f), dc_all * i * (Real(1) - g * g),
          dh * tanh_c * o * (Real(1) - o), dc_all * f};
}
template <class Real>
CHARRNN_HD LstmGrad<Real> lstm_cell_backward(Real i, Real f, Real g, Real o, Real c_prev, Real c, Real dh, Real dc) {
  return lstm_gates_backward(i, f, g, o, c_prev, tanh_of(c), dh, dc);
}

}  // namespace CHARRNN_MATH_NAMESPACE

#endif
