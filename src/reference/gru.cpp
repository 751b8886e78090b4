// GRU: Cho et al. 2014 (arXiv 1406.1078, first version), as PyTorch and cuDNN compute it: the reset gate multiplies the
// recurrent product and its bias, not h before the product.
#include <cmath>
#include <cstddef>
#include <utility>

#include "reference/cells.h"

namespace charrnn::reference {

namespace {
enum GruGate { kR, kZ, kN };
}

CellStep gru_forward(const CellWeights& w, std::vector<double> x, std::vector<double> h_prev) {
  const int hidden = w.hidden;
  CellStep s;
  s.x = std::move(x);
  s.h_prev = std::move(h_prev);
  s.gates.resize(static_cast<std::size_t>(3 * hidden));
  s.recurrent_n.resize(static_cast<std::size_t>(hidden));
  s.h.resize(static_cast<std::size_t>(hidden));
  for (int row = 0; row < kN * hidden; ++row) {
    s.gates[row] =
        sigmoid(row_product(w.weight_ih, w.bias_ih, row, s.x) + row_product(w.weight_hh, w.bias_hh, row, s.h_prev));
  }
  for (int j = 0; j < hidden; ++j) {
    const int row = kN * hidden + j;
    const double r = s.gates[kR * hidden + j], z = s.gates[kZ * hidden + j];
    s.recurrent_n[j] = row_product(w.weight_hh, w.bias_hh, row, s.h_prev);
    const double n = std::tanh(row_product(w.weight_ih, w.bias_ih, row, s.x) + r * s.recurrent_n[j]);
    s.gates[row] = n;
    s.h[j] = (1 - z) * n + z * s.h_prev[j];
  }
  return s;
}

CellDerivatives gru_backward(const CellWeights& w, const CellStep& step, const std::vector<double>& dh,
                             const CellGradients& gradients) {
  const int hidden = w.hidden;
  CellDerivatives d{std::vector<double>(step.x.size()), std::vector<double>(step.h_prev.size()), {}};
  for (int j = 0; j < hidden; ++j) {
    const double r = step.gates[kR * hidden + j], z = step.gates[kZ * hidden + j], n = step.gates[kN * hidden + j];
    const double dz = dh[j] * (step.h_prev[j] - n);
    const double da_n = dh[j] * (1 - z) * (1 - n * n);
    const double dr = da_n * step.recurrent_n[j];
    const double da_z = dz * z * (1 - z);
    const double da_r = dr * r * (1 - r);
    d.dh_prev[j] += dh[j] * z;

    // The two sides of n differ: only the recurrent one passed through the reset gate.
    const struct {
      int row;
      double da_input, da_recurrent;
    } gates[] = {{kR * hidden + j, da_r, da_r}, {kZ * hidden + j, da_z, da_z}, {kN * hidden + j, da_n, da_n * r}};
    for (const auto& gate : gates) {
      row_backward(gate.da_input, w.weight_ih, gate.row, step.x, gradients.weight_ih, gradients.bias_ih, d.dx);
      row_backward(gate.da_recurrent, w.weight_hh, gate.row, step.h_prev, gradients.weight_hh, gradients.bias_hh,
                   d.dh_prev);
    }
  }
  return d;
}

}  // namespace charrnn::reference
