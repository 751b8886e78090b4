// The sizes of a character RNN. T steps, B batch (lanes), H hidden, V vocabulary, L layers.
#pragma once

#include <cstdint>

namespace charrnn {

using TokenId = std::int32_t;  // index of a character in the vocabulary, [0, V)

enum class Cell { kLstm, kGru, kRnnTanh, kRnnRelu };  // gru is PyTorch's and cuDNN's: reset after the product

struct NetworkShape {
  Cell cell = Cell::kLstm;
  int layers = 1;      // L
  int hidden = 1;      // H
  int vocabulary = 1;  // V: both the length of the 1-of-k input and of the logits

  bool operator==(const NetworkShape&) const = default;
};

/// Rows of a weight matrix in units of H: 4 for LSTM (i f g o), 3 for GRU (r z n), 1 for RNN.
constexpr int gate_count(Cell cell) { return cell == Cell::kLstm ? 4 : cell == Cell::kGru ? 3 : 1; }

constexpr bool has_cell_state(Cell cell) { return cell == Cell::kLstm; }

/// Largest sizes that the engine accepts, so that every product of them that is formed fits 64 bits and every
/// row index 32 bits.
inline constexpr int kMaxHidden = 1 << 16;
inline constexpr int kMaxLayers = 64;
inline constexpr int kMaxBatch = 1 << 20;
inline constexpr int kMaxSteps = 1 << 20;

}  // namespace charrnn
