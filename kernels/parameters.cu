#include "kernels/parameters.h"

#include "kernels/launch.h"
#include "kernels/threads.h"

namespace charrnn::cuda {

namespace {

template <class To, class From>
__global__ void convert_kernel(const From* from, To* to, std::int64_t n) {
  for (std::int64_t i = thread_index(); i < n; i += thread_count()) to[i] = from_float<To>(to_float(from[i]));
}

/// Both biases of a column of gates, and the row of W_ih that makes it; -1: none does.
struct Column {
  std::int64_t weight_row = -1;
  float bias = 0.0F;
};

__device__ Column column_of(const LayerParameters& layer, const GateBlocks& blocks, std::int64_t column) {
  Column c;
  for (const GateBlock& block : blocks.input) {
    const std::int64_t at = column - block.gate_column;
    if (at < 0 || at >= block.rows) continue;
    c.weight_row = block.weight_row + at;
    c.bias += layer.bias_ih[c.weight_row];
  }
  const std::int64_t at = column - blocks.hidden.gate_column;
  if (at >= 0 && at < blocks.hidden.rows) c.bias += layer.bias_hh[blocks.hidden.weight_row + at];
  return c;
}

__global__ void make_table_kernel(LayerParameters layer, GateBlocks blocks, int vocabulary, float* table) {
  const std::int64_t n = vocabulary * blocks.width;
  for (std::int64_t i = thread_index(); i < n; i += thread_count()) {
    const std::int64_t v = i / blocks.width;
    const Column c = column_of(layer, blocks, i % blocks.width);
    table[i] = c.weight_row < 0 ? c.bias : layer.weight_ih[c.weight_row * vocabulary + v] + c.bias;
  }
}

__global__ void make_bias_kernel(LayerParameters layer, GateBlocks blocks, float* bias) {
  for (std::int64_t i = thread_index(); i < blocks.width; i += thread_count()) {
    bias[i] = column_of(layer, blocks, i).bias;
  }
}

/// blockIdx.y has a run.
template <class To, class From>
__global__ void copy_runs_kernel(const Run* runs, const From* from, To* to) {
  const Run run = runs[blockIdx.y];
  for (std::int64_t i = thread_index(); i < run.count; i += thread_count()) {
    to[run.to + i] = from_float<To>(to_float(from[run.from + i]));
  }
}

LaunchShape run_shape(int count, std::int64_t longest) {
  LaunchShape shape = cover(longest, 256, 1024);
  shape.grid.y = static_cast<unsigned>(count);
  return shape;
}

}  // namespace

GateBlocks gate_blocks(Cell cell, std::int64_t hidden) {
  const GateMap map = gate_map(cell, hidden);
  GateBlocks blocks;
  for (std::size_t i = 0; i < map.input.size(); ++i) blocks.input[i] = map.input[i];
  blocks.hidden = map.hidden.front();
  blocks.width = map.width;
  return blocks;
}

void convert(const float* from, void* to, Element element, std::int64_t n, cudaStream_t stream) {
  with_element(element, [&](auto real) {
    using Real = decltype(real);
    launch("convert", convert_kernel<Real, float>, cover(n), stream, from, static_cast<Real*>(to), n);
  });
}

void convert_back(const void* from, Element element, float* to, std::int64_t n, cudaStream_t stream) {
  with_element(element, [&](auto real) {
    using Real = decltype(real);
    launch("convert_back", convert_kernel<float, Real>, cover(n), stream, static_cast<const Real*>(from), to, n);
  });
}

void make_table(const LayerParameters& layer, const GateBlocks& blocks, int vocabulary, float* table,
                cudaStream_t stream) {
  launch("make_table", make_table_kernel, cover(vocabulary * blocks.width), stream, layer, blocks, vocabulary, table);
}

void make_bias(const LayerParameters& layer, const GateBlocks& blocks, float* bias, cudaStream_t stream) {
  launch("make_bias", make_bias_kernel, cover(blocks.width), stream, layer, blocks, bias);
}

void pack(const Run* runs, int count, std::int64_t longest, const float* from, void* to, Element element,
          cudaStream_t stream) {
  with_element(element, [&](auto real) {
    using Real = decltype(real);
    launch("pack", copy_runs_kernel<Real, float>, run_shape(count, longest), stream, runs, from,
           static_cast<Real*>(to));
  });
}

void unpack(const Run* runs, int count, std::int64_t longest, const void* from, Element element, float* to,
            cudaStream_t stream) {
  with_element(element, [&](auto real) {
    using Real = decltype(real);
    launch("unpack", copy_runs_kernel<float, Real>, run_shape(count, longest), stream, runs,
           static_cast<const Real*>(from), to);
  });
}

}  // namespace charrnn::cuda
