// LSTM: Hochreiter and Schmidhuber 1997, with the forget gate of Gers et al. 2000.
#include <cmath>
#include <cstddef>
#include <utility>

#include "reference/cells.h"

namespace charrnn::reference {

namespace {
enum LstmGate { kI, kF, kG, kO };
}

CellStep lstm_forward(const CellWeights& w, std::vector<double> x, std::vector<double> h_prev,
                      std::vector<double> c_prev) {
  const int hidden = w.hidden;
  CellStep s;
  s.x = std::move(x);
  s.h_prev = std::move(h_prev);
  s.c_prev = std::move(c_prev);
  s.gates.resize(static_cast<std::size_t>(4 * hidden));
  s.c.resize(static_cast<std::size_t>(hidden));
  s.h.resize(static_cast<std::size_t>(hidden));
  for (int row = 0; row < 4 * hidden; ++row) {
    const double a = row_product(w.weight_ih, w.bias_ih, row, s.x) + row_product(w.weight_hh, w.bias_hh, row, s.h_prev);
    s.gates[row] = row / hidden == kG ? std::tanh(a) : sigmoid(a);
  }
  for (int j = 0; j < hidden; ++j) {
    const double i = s.gates[kI * hidden + j], f = s.gates[kF * hidden + j];
    const double g = s.gates[kG * hidden + j], o = s.gates[kO * hidden + j];
    s.c[j] = f * s.c_prev[j] + i * g;
    s.h[j] = o * std::tanh(s.c[j]);
  }
  return s;
}

CellDerivatives lstm_backward(const CellWeights& w, const CellStep& step, const std::vector<double>& dh,
                              const std::vector<double>& dc, const CellGradients& gradients) {
  const int hidden = w.hidden;
  CellDerivatives d{std::vector<double>(step.x.size()), std::vector<double>(step.h_prev.size()),
                    std::vector<double>(step.c_prev.size())};
  std::vector<double> da(static_cast<std::size_t>(4 * hidden));
  for (int j = 0; j < hidden; ++j) {
    const double i = step.gates[kI * hidden + j], f = step.gates[kF * hidden + j];
    const double g = step.gates[kG * hidden + j], o = step.gates[kO * hidden + j];
    const double tanh_c = std::tanh(step.c[j]);
    // c reaches the loss through this step's h and through what comes later.
    const double dc_all = dc[j] + dh[j] * o * (1 - tanh_c * tanh_c);
    da[kI * hidden + j] = dc_all * g * i * (1 - i);
    da[kF * hidden + j] = dc_all * step.c_prev[j] * f * (1 - f);
    da[kG * hidden + j] = dc_all * i * (1 - g * g);
    da[kO * hidden + j] = dh[j] * tanh_c * o * (1 - o);
    d.dc_prev[j] = dc_all * f;
  }
  for (int row = 0; row < 4 * hidden; ++row) {
    row_backward(da[row], w.weight_ih, row, step.x, gradients.weight_ih, gradients.bias_ih, d.dx);
    row_backward(da[row], w.weight_hh, row, step.h_prev, gradients.weight_hh, gradients.bias_hh, d.dh_prev);
  }
  return d;
}

}  // namespace charrnn::reference
