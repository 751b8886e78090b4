#include "kernels/column_sums.h"

#include "kernels/launch.h"
#include "kernels/threads.h"

namespace charrnn::cuda {

namespace {

constexpr unsigned kBlock = 128;

/// Block (x, y): columns x * kBlock on, rows of chunk y.
template <class Real>
__global__ void partial_sums_kernel(ColumnSums s) {
  const int column = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (column >= s.columns) return;
  const std::int64_t rows_a_chunk = (s.rows + gridDim.y - 1) / gridDim.y;
  const std::int64_t begin = blockIdx.y * rows_a_chunk;
  const std::int64_t end = begin + rows_a_chunk < s.rows ? begin + rows_a_chunk : s.rows;
  const Real* const from = static_cast<const Real*>(s.from);
  float sum = 0.0F;
  for (std::int64_t row = begin; row < end; ++row) sum += to_float(from[row * s.stride + column]);
  s.partial[std::int64_t{blockIdx.y} * s.columns + column] = sum;
}

__global__ void final_sums_kernel(ColumnSums s, int chunks) {
  const int column = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (column >= s.columns) return;
  double sum = 0;
  for (int chunk = 0; chunk < chunks; ++chunk) sum += s.partial[std::int64_t{chunk} * s.columns + column];
  for (const SumTarget& target : s.targets) {
    const int at = column - target.column;
    if (at >= 0 && at < target.count) target.to[at] = static_cast<float>(sum);
  }
}

}  // namespace

void column_sums(const ColumnSums& s, cudaStream_t stream) {
  const auto chunks = static_cast<unsigned>(sum_chunks(s.rows));
  const unsigned blocks = (static_cast<unsigned>(s.columns) + kBlock - 1) / kBlock;
  with_element(s.element, [&](auto real) {
    launch("partial_sums", partial_sums_kernel<decltype(real)>, {dim3(blocks, chunks), dim3(kBlock), 0}, stream, s);
  });
  launch("final_sums", final_sums_kernel, {dim3(blocks), dim3(kBlock), 0}, stream, s, static_cast<int>(chunks));
}

}  // namespace charrnn::cuda
