// One step of one lane of each cell, forward and backward, in double precision and with plain loops. Written from the
// textbook formulas as PyTorch's documentation of nn.LSTM, nn.GRU and nn.RNN states them, and on purpose not from
// kernels/: a formula that is wrong there must not be wrong here too. D input, H hidden; weights row-major.
#pragma once

#include <vector>

namespace charrnn::reference {

/// Parameters of one layer in the canonical layout. G is 4 (i f g o), 3 (r z n) or 1.
struct CellWeights {
  int inputs = 0;                     // D
  int hidden = 0;                     // H
  const double* weight_ih = nullptr;  // [G*H, D]
  const double* weight_hh = nullptr;  // [G*H, H]
  const double* bias_ih = nullptr;    // [G*H]
  const double* bias_hh = nullptr;    // [G*H]
};

/// Gradients of the same arrays. A backward step adds to them.
struct CellGradients {
  double* weight_ih = nullptr;
  double* weight_hh = nullptr;
  double* bias_ih = nullptr;
  double* bias_hh = nullptr;
};

/// What a forward step read and made; all that its backward step needs.
struct CellStep {
  std::vector<double> x;            // [D]
  std::vector<double> h_prev;       // [H]
  std::vector<double> c_prev;       // [H], LSTM only
  std::vector<double> gates;        // [G*H] after their nonlinearity
  std::vector<double> recurrent_n;  // [H] W_hn h_prev + b_hn, GRU only: what the reset gate multiplies
  std::vector<double> c;            // [H], LSTM only
  std::vector<double> h;            // [H]
};

/// Derivatives of the loss by what the step read.
struct CellDerivatives {
  std::vector<double> dx;       // [D]
  std::vector<double> dh_prev;  // [H]
  std::vector<double> dc_prev;  // [H], LSTM only
};

/// i, f, o = sigmoid(.), g = tanh(.); c = f c_prev + i g; h = o tanh(c).
CellStep lstm_forward(const CellWeights& w, std::vector<double> x, std::vector<double> h_prev,
                      std::vector<double> c_prev);
/// @param dh,dc  derivatives by this step's h and c from everything after it
CellDerivatives lstm_backward(const CellWeights& w, const CellStep& step, const std::vector<double>& dh,
                              const std::vector<double>& dc, const CellGradients& gradients);

/// r, z = sigmoid(.); n = tanh(W_in x + b_in + r (W_hn h_prev + b_hn)); h = (1 - z) n + z h_prev.
CellStep gru_forward(const CellWeights& w, std::vector<double> x, std::vector<double> h_prev);
CellDerivatives gru_backward(const CellWeights& w, const CellStep& step, const std::vector<double>& dh,
                             const CellGradients& gradients);

/// h = tanh(.), or max(0, .), whose derivative at 0 is taken as 0.
CellStep rnn_forward(const CellWeights& w, bool relu, std::vector<double> x, std::vector<double> h_prev);
CellDerivatives rnn_backward(const CellWeights& w, bool relu, const CellStep& step, const std::vector<double>& dh,
                             const CellGradients& gradients);

// What the cells share.

double sigmoid(double a);
/// W[row] v + b[row], W of v.size() columns.
double row_product(const double* weight, const double* bias, int row, const std::vector<double>& v);
/// Backward of row_product: dW[row] += da v, db[row] += da, dv += da W[row].
void row_backward(double da, const double* weight, int row, const std::vector<double>& v, double* dweight,
                  double* dbias, std::vector<double>& dv);

}  // namespace charrnn::reference
