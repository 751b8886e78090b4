// Which rows of a weight matrix make which columns of a row of gates. This is all that products need to know of a cell.
#pragma once

#include <cstdint>
#include <vector>

#include "charrnn/network_shape.h"

namespace charrnn {

/// Columns of a row of gates in units of H. LSTM: i f g o. RNN: its one pre-activation. GRU: nx r z nh, where
/// n = tanh(nx + r nh): the input's product writes (nx | r z), the hidden's (r z nh), each on neighbouring columns.
enum GruColumn { kGruColumnNx, kGruColumnR, kGruColumnZ, kGruColumnNh };

struct GateBlock {
  std::int64_t weight_row = 0;   // first row of W_ih or W_hh ...
  std::int64_t rows = 0;         // ... and how many
  std::int64_t gate_column = 0;  // first column of the row of gates that they make
};

struct GateMap {
  std::int64_t width = 0;         // W: columns of a row of gates
  std::vector<GateBlock> input;   // of W_ih and b_ih
  std::vector<GateBlock> hidden;  // of W_hh and b_hh
};

inline GateMap gate_map(Cell cell, std::int64_t hidden) {
  const std::int64_t H = hidden;
  switch (cell) {
    case Cell::kLstm: return {4 * H, {{0, 4 * H, 0}}, {{0, 4 * H, 0}}};
    case Cell::kGru:  // weights: r z n; columns: nx r z nh
      return {4 * H, {{0, 2 * H, kGruColumnR * H}, {2 * H, H, kGruColumnNx * H}}, {{0, 3 * H, kGruColumnR * H}}};
    case Cell::kRnnTanh:
    case Cell::kRnnRelu: break;
  }
  return {H, {{0, H, 0}}, {{0, H, 0}}};
}

}  // namespace charrnn
