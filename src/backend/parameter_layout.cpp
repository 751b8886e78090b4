#include "backend/parameter_layout.h"

namespace charrnn {

namespace {
constexpr std::size_t kAlignFloats = 64;  // tensors start on 256 bytes: whole cache lines, and what vector loads like
}

ParameterLayout::ParameterLayout(const NetworkShape& shape) : shape_(shape) {
  const auto add = [this](std::string name, std::size_t rows, std::size_t cols) {
    ParameterTensor t{std::move(name), rows, cols, arena_size_};
    parameter_count_ += t.count();
    arena_size_ += (t.count() + kAlignFloats - 1) / kAlignFloats * kAlignFloats;
    tensors_.push_back(std::move(t));
  };
  const auto hidden = static_cast<std::size_t>(shape.hidden);
  const auto vocabulary = static_cast<std::size_t>(shape.vocabulary);
  const std::size_t gate_rows = static_cast<std::size_t>(gate_count(shape.cell)) * hidden;
  for (int l = 0; l < shape.layers; ++l) {
    const std::string suffix = "_l" + std::to_string(l);
    add("rnn.weight_ih" + suffix, gate_rows, l == 0 ? vocabulary : hidden);
    add("rnn.weight_hh" + suffix, gate_rows, hidden);
    add("rnn.bias_ih" + suffix, gate_rows, 0);
    add("rnn.bias_hh" + suffix, gate_rows, 0);
  }
  add("head.weight", vocabulary, hidden);
  add("head.bias", vocabulary, 0);
}

}  // namespace charrnn
