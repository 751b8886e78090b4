// From the canonical fp32 parameters to what kernels and products read.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "kernels/element.h"
#include "kernels/gate_map.h"

namespace charrnn::cuda {

/// to [n] of `element` = from [n].
void convert(const float* from, void* to, Element element, std::int64_t n, cudaStream_t stream);
void convert_back(const void* from, Element element, float* to, std::int64_t n, cudaStream_t stream);

/// gate_map() in a form that kernels take: up to two blocks of rows of W_ih, one of W_hh.
struct GateBlocks {
  GateBlock input[2]{};
  GateBlock hidden{};
  std::int64_t width = 0;
};
GateBlocks gate_blocks(Cell cell, std::int64_t hidden);

/// The parameters of one layer in the canonical arena.
struct LayerParameters {
  const float* weight_ih = nullptr;  // [G H, D]
  const float* bias_ih = nullptr;    // [G H]
  const float* bias_hh = nullptr;    // [G H]
};
/// table [V,W]: for each character what layer 0's pre-activations start from: its column of W_ih and both biases.
void make_table(const LayerParameters& layer, const GateBlocks& blocks, int vocabulary, float* table,
                cudaStream_t stream);
/// bias [W]: both biases, summed where they can be.
void make_bias(const LayerParameters& layer, const GateBlocks& blocks, float* bias, cudaStream_t stream);

/// Copies of runs of numbers between the canonical arena and another packing: cuDNN's.
struct Run {
  std::int64_t from = 0, to = 0, count = 0;  // elements from each base
};
/// `runs` [count] is in device memory; the longest has `longest` elements.
void pack(const Run* runs, int count, std::int64_t longest, const float* from, void* to, Element element,
          cudaStream_t stream);
void unpack(const Run* runs, int count, std::int64_t longest, const void* from, Element element, float* to,
            cudaStream_t stream);

}  // namespace charrnn::cuda
