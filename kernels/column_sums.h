// Sums of columns: gradients of biases.
#pragma once

#include <cuda_runtime_api.h>

#include "kernels/element.h"

namespace charrnn::cuda {

/// Columns [column, column + count) go to to[0, count).
struct SumTarget {
  float* to = nullptr;
  int column = 0, count = 0;
};
inline constexpr int kMostSumTargets = 3;

struct ColumnSums {
  Element element = Element::kF32;
  const void* from = nullptr;  // [rows, stride], columns below `columns`
  std::int64_t rows = 0;
  int columns = 0, stride = 0;
  float* partial = nullptr;  // [sum_chunks(rows), columns]
  SumTarget targets[kMostSumTargets]{};
};

/// Rows are summed in so many chunks, whatever the device: the same bits every time.
constexpr int sum_chunks(std::int64_t rows) {
  constexpr std::int64_t kRowsAChunk = 64, kMostChunks = 256;
  const std::int64_t chunks = (rows + kRowsAChunk - 1) / kRowsAChunk;
  return static_cast<int>(chunks < kMostChunks ? chunks : kMostChunks);
}

/// Targets are overwritten.
void column_sums(const ColumnSums& s, cudaStream_t stream);

}  // namespace charrnn::cuda
