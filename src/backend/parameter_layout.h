// The one canonical layout of the parameters: a flat fp32 arena whose tensors are named, ordered and laid out as in
// PyTorch's state_dict of a module with `rnn = nn.LSTM/GRU/RNN` and `head = nn.Linear`. Gradients and moments use the
// same offsets. A backend that wants another packing converts on its own side.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "charrnn/network_shape.h"

namespace charrnn {

struct ParameterTensor {
  std::string name;  // rnn.weight_ih_l0, rnn.weight_hh_l0, rnn.bias_ih_l0, rnn.bias_hh_l0, ..., head.weight, head.bias
  std::size_t rows = 0;  // row-major [rows, cols]
  std::size_t cols = 0;  // 0 for a vector of `rows`
  std::size_t offset = 0;
  std::size_t count() const { return rows * (cols == 0 ? 1 : cols); }
};

class ParameterLayout {
 public:
  explicit ParameterLayout(const NetworkShape& shape);

  const NetworkShape& shape() const { return shape_; }
  const std::vector<ParameterTensor>& tensors() const { return tensors_; }
  std::size_t arena_size() const { return arena_size_; }  // floats, with the padding between tensors
  std::size_t parameter_count() const { return parameter_count_; }

  // G = gate_count(cell). Layer 0 reads V columns, the others H.
  const ParameterTensor& weight_ih(int layer) const {
    return tensors_[static_cast<std::size_t>(4 * layer)];
  }  // [G*H, D]
  const ParameterTensor& weight_hh(int layer) const {
    return tensors_[static_cast<std::size_t>(4 * layer + 1)];
  }  // [G*H, H]
  const ParameterTensor& bias_ih(int layer) const {
    return tensors_[static_cast<std::size_t>(4 * layer + 2)];
  }  // [G*H]
  const ParameterTensor& bias_hh(int layer) const {
    return tensors_[static_cast<std::size_t>(4 * layer + 3)];
  }                                                                                     // [G*H]
  const ParameterTensor& head_weight() const { return tensors_[tensors_.size() - 2]; }  // [V, H]
  const ParameterTensor& head_bias() const { return tensors_[tensors_.size() - 1]; }    // [V]

 private:
  NetworkShape shape_;
  std::vector<ParameterTensor> tensors_;
  std::size_t arena_size_ = 0;
  std::size_t parameter_count_ = 0;
};

}  // namespace charrnn
