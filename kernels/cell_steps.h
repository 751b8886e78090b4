// One step of one layer, element by element: pre-activations to gates, cell and hidden state, and back. The math is
// lstm_cell.h, gru_cell.h, rnn_cell.h; columns of a row of gates are kernels/gate_map.h.
#pragma once

#include <cuda_runtime_api.h>

#include "charrnn/network_shape.h"
#include "kernels/windows.h"

namespace charrnn::cuda {

/// H hidden, W columns of a row of gates, G H rows of W_hh. Arrays of `element` are void.
struct CellForward {
  Cell cell = Cell::kLstm;
  Element element = Element::kF32;
  int lanes = 0, hidden = 0;
  const float* recurrent = nullptr;  // [lanes, G H] h_prev W_hh^T
  const float* input = nullptr;   // layer 0: table [V,W], biases in it; above: x W_ih^T [lanes,W] (GRU: no column nh)
  const DeviceId* ids = nullptr;  // [lanes] layer 0: the row of the table; null above
  const float* bias = nullptr;    // [W] above layer 0
  void* gates = nullptr;          // [lanes,W] activations (GRU: n r z nh), or null: not kept
  const void* h_prev = nullptr;   // [lanes,H] GRU
  const float* c_prev = nullptr;  // [lanes,H] LSTM
  void* h = nullptr;              // [lanes,H] overwritten
  float* c = nullptr;             // [lanes,H] overwritten, LSTM
};
void cell_forward(const CellForward& s, cudaStream_t stream);

struct CellBackward {
  Cell cell = Cell::kLstm;
  Element element = Element::kF32;
  int lanes = 0, hidden = 0;
  bool last = false;              // the window's last step: nothing comes back from behind it
  void* gates = nullptr;          // [lanes,W] activations in, gradients of the pre-activations out (GRU: dnx dr dz dnh)
  const void* h_prev = nullptr;   // [lanes,H] GRU
  const void* h = nullptr;        // [lanes,H] RNN
  const float* c_prev = nullptr;  // [lanes,H] LSTM
  const float* c = nullptr;       // [lanes,H] LSTM
  const void* dy = nullptr;       // [lanes,H] from above
  float* dh = nullptr;  // [lanes,H] in: from the step behind, not read if `last`; out, GRU: z * dh, the way back
                        // that passes no product
  float* dc = nullptr;  // [lanes,H] in: from the step behind, not read if `last`; out: for the step before; LSTM
};
void cell_backward(const CellBackward& s, cudaStream_t stream);

/// y = x dropped out: x [steps,lanes,H] of layer `layer`, from the window's step `first` on, masks of `step` (device
/// memory). May work in place.
struct DropOut {
  Element element = Element::kF32;
  int first = 0, steps = 0, lanes = 0, hidden = 0, layer = 0;
  const void* x = nullptr;
  void* y = nullptr;
  const DropoutStep* step = nullptr;
};
void drop_out(const DropOut& d, cudaStream_t stream);

}  // namespace charrnn::cuda
