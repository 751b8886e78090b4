// Element math of the vanilla RNN: h = tanh(W x + b + R h + c), or relu in place of tanh. Source: Elman 1990.
#pragma once

#include "kernels/math.h"

namespace charrnn {

template <bool kRelu, class Real>
CHARRNN_HD Real rnn_cell(Real a) {
  if constexpr (kRelu) {
    return a < Real(0) ? Real(0) : a;  // written so that NaN stays NaN
  } else {
    return tanh_of(a);
  }
}

/// With respect to the pre-activation, from the step's own h.
template <bool kRelu, class Real>
CHARRNN_HD Real rnn_cell_backward(Real h, Real dh) {
  if constexpr (kRelu) {
    return h > Real(0) ? dh : Real(0);
  } else {
    return dh * (Real(1) - h * h);
  }
}

}  // namespace charrnn
