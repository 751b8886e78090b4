// The inner loops of LaneSampler: a matrix times a vector, a tile of rows at a time, and the cell's math on the units
// of a tile. Compiled for several instruction sets in one binary and chosen when the program runs.
//
// A tile is up to four vectors of 16 rows of a matrix. Its weights stand in the order in which they are read: for each
// column k the 16 rows of each vector; in bf16 for each pair of columns, of each row both.
#pragma once

#include "charrnn/config.h"
#include "charrnn/network_shape.h"

namespace charrnn::cpu {

inline constexpr int kLaneRows = 16;    // rows side by side in a vector
inline constexpr int kLaneVectors = 4;  // most vectors in a tile
inline constexpr int kLaneColumns = 8;  // k is a multiple of this; what is beyond the matrix is zero

/// sums [vectors,16] += weights times x.
struct TileProduct {
  const void* weights = nullptr;  // fp32 [k,vectors,16], bf16 [k/2,vectors,16,2]; at a multiple of 64 bytes
  const void* x = nullptr;        // [k] fp32 or bf16
  int k = 0;
  int vectors = 0;
  float* sums = nullptr;
};

/// One step of `vectors` times 16 units. A row of gates in C columns as kernels/gate_map.h has them.
struct TileCell {
  int vectors = 0;
  const float* sums = nullptr;   // [C,vectors,16] of the products
  const float* start = nullptr;  // [C,vectors,16] what the pre-activations are besides: biases, layer 0's input
  const void* h_prev = nullptr;  // [vectors,16] fp32 or bf16; GRU
  void* h = nullptr;             // [vectors,16] fp32 or bf16, overwritten
  float* c = nullptr;            // [vectors,16] in and out; LSTM
};

struct LaneKernels {
  const char* instructions = "";  // for which they are
  void (*product)(const TileProduct&) = nullptr;
  void (*cell)(const TileCell&) = nullptr;
};

/// The best that this processor runs. @param portable  without those that are written for one instruction set alone
LaneKernels lane_kernels(Cell cell, Precision precision, bool portable = false);

}  // namespace charrnn::cpu
