// The arithmetic of the cuDNN stand-in: recurrent networks over windows of T steps, in double precision, from the
// formulas in cuDNN's documentation of cudnnRNNMode_t. No CUDA in here, and nothing of src/reference, which checks it.
//
// T steps, B lanes, D inputs, H hidden, L layers, G gates. Row (t, b) of an array [T*B, .] is t * B + b. Lane b ends
// after lengths[b] steps; rows past that are skipped.
#pragma once

#include <cstddef>
#include <vector>

namespace host_cuda::rnn {

enum class Cell { kRelu, kTanh, kLstm, kGru };

struct Sizes {
  Cell cell = Cell::kLstm;
  std::size_t layers = 0, inputs = 0, hidden = 0;
  std::size_t steps = 0, batch = 0;
  std::vector<std::size_t> lengths{};  // [B]

  std::size_t gates() const { return cell == Cell::kLstm ? 4 : cell == Cell::kGru ? 3 : 1; }  // i f g o, r z n
  std::size_t rows() const { return steps * batch; }
  std::size_t inputs_of(std::size_t layer) const { return layer == 0 ? inputs : hidden; }
  // What a row keeps for the way back: the gates, then c of LSTM or what the reset gate of GRU multiplies, then h.
  std::size_t kept() const { return (gates() + 2) * hidden; }
  // And what that makes of it: derivatives of the gates' sums on the input side, then of n's recurrent side (GRU).
  std::size_t derived() const { return (gates() + 1) * hidden; }
};

/// Also a layer's gradients. A bias that the network has not got is zero.
struct Layer {
  std::vector<double> weight_x;  // [G*H, D]
  std::vector<double> weight_h;  // [G*H, H]
  std::vector<double> bias_x;    // [G*H]
  std::vector<double> bias_h;    // [G*H]
};

struct State {
  std::vector<double> h, c;  // [L,B,H]; c for LSTM only
};

/// @param x     [T*B, D]
/// @param kept  [L, T*B, kept()], written
/// @returns the state after each lane's last step
State forward(const Sizes& sizes, const std::vector<Layer>& layers, const std::vector<double>& x, const State& start,
              double* kept);

struct Derivatives {
  std::vector<double> dx;  // [T*B, D]
  State dstart;
};
/// @param dy       [T*B, H]
/// @param derived  [L, T*B, derived()], written
Derivatives backward_data(const Sizes& sizes, const std::vector<Layer>& layers, const State& start, const double* kept,
                          const std::vector<double>& dy, const State& dend, double* derived);

/// One layer's, from what the other two left behind.
Layer backward_weights(const Sizes& sizes, std::size_t layer, const std::vector<double>& x, const State& start,
                       const double* kept, const double* derived);

}  // namespace host_cuda::rnn
