// The plain recurrent cell: h = f(W_ih x + b_ih + W_hh h_prev + b_hh), f = tanh or relu.
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <utility>

#include "reference/cells.h"

namespace charrnn::reference {

CellStep rnn_forward(const CellWeights& w, bool relu, std::vector<double> x, std::vector<double> h_prev) {
  CellStep s;
  s.x = std::move(x);
  s.h_prev = std::move(h_prev);
  s.h.resize(static_cast<std::size_t>(w.hidden));
  for (int j = 0; j < w.hidden; ++j) {
    const double a = row_product(w.weight_ih, w.bias_ih, j, s.x) + row_product(w.weight_hh, w.bias_hh, j, s.h_prev);
    s.h[j] = relu ? std::max(0.0, a) : std::tanh(a);
  }
  s.gates = s.h;
  return s;
}

CellDerivatives rnn_backward(const CellWeights& w, bool relu, const CellStep& step, const std::vector<double>& dh,
                             const CellGradients& gradients) {
  CellDerivatives d{std::vector<double>(step.x.size()), std::vector<double>(step.h_prev.size()), {}};
  for (int j = 0; j < w.hidden; ++j) {
    const double h = step.h[j];
    const double slope = relu ? (h > 0 ? 1.0 : 0.0) : 1 - h * h;
    const double da = dh[j] * slope;
    row_backward(da, w.weight_ih, j, step.x, gradients.weight_ih, gradients.bias_ih, d.dx);
    row_backward(da, w.weight_hh, j, step.h_prev, gradients.weight_hh, gradients.bias_hh, d.dh_prev);
  }
  return d;
}

}  // namespace charrnn::reference
