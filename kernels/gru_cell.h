// Element math of one GRU step, forward and backward, in PyTorch's and cuDNN's form: the reset gate acts after the
// product, n = tanh(W_n x + b_n + r * (R_n h + c_n)), h = (1 - z) * n + z * h_prev. Source: Cho et al. 2014, in the
// version 1 of arXiv:1406.1078 that cuDNN took up. Gate order in memory: r z n.
#ifndef CHARRNN_KERNELS_GRU_CELL_H  // math.h says why
#define CHARRNN_KERNELS_GRU_CELL_H

#include "kernels/math.h"

namespace CHARRNN_MATH_NAMESPACE {

enum GruGate { kGruR, kGruZ, kGruN };

template <class Real>
struct GruStep {
  Real r, z, n, h;
};

/// From the gates, which are sigmoid() of their pre-activations; nx = W_n x + b_n and nh = R_n h + c_n.
template <class Real>
CHARRNN_HD GruStep<Real> gru_output(Real r, Real z, Real nx, Real nh, Real h_prev) {
  const Real n = tanh_of(nx + r * nh);
  return {r, z, n, n + z * (h_prev - n)};
}

/// @param ar,az  both pre-activations summed; nx and nh apart
template <class Real>
CHARRNN_HD GruStep<Real> gru_cell(Real ar, Real az, Real nx, Real nh, Real h_prev) {
  return gru_output(sigmoid(ar), sigmoid(az), nx, nh, h_prev);
}

template <class Real>
struct GruGrad {
  Real dr, dz, dnx, dnh, dh_prev;  // dh_prev: only the direct path z * h_prev; the products add the rest
};

template <class Real>
CHARRNN_HD GruGrad<Real> gru_cell_backward(Real r, Real z, Real n, Real nh, Real h_prev, Real dh) {
  const Real dnx = dh * (Real(1) - z) * (Real(1) - n * n);
  return {dnx * nh * r * (Real(1) - r), dh * (h_prev - n) * z * (Real(1) - z), dnx, dnx * r, dh * z};
}

}  // namespace CHARRNN_MATH_NAMESPACE

#endif
