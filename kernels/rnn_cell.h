// Element math of the vanilla RNN: h = tanh(W x + b + R h + c), or relu in place of tanh. Source: Elman 1990.
#ifndef CHARRNN_KERNELS_RNN_CELL_H  // math.h says why
#define CHARRNN_KERNELS_RNN_CELL_H

#include "kernels/math.h"

namespace CHARRNN_MATH_NAMESPACE {

template <bool kRelu, class Real>
CHARRNN_HD Real rnn_cell(Real a) {
  if constexpr (kRelu) {
    return at_least(a, Real(0));  // NaN stays NaN
  } else {
    return tanh_of(a);
  }
}

/// With respect to the pre-activation, from the step's own h.
template <bool kRelu, class Real>
CHARRNN_HD Real rnn_cell_backward(Real h, Real dh) {
  if constexpr (kRelu) {
    return select(h > Real(0), dh, Real(0));
  } else {
    return dh * (Real(1) - h * h);
  }
}

}  // namespace CHARRNN_MATH_NAMESPACE

#endif
