#include "model/initialize.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "kernels/philox.h"

namespace charrnn {

std::uint32_t Rng::next_u32() {
  if (left_ == 0) {
    const PhiloxBlock x = philox({static_cast<std::uint32_t>(block_), static_cast<std::uint32_t>(block_ >> 32),
                                  static_cast<std::uint32_t>(stream_), static_cast<std::uint32_t>(stream_ >> 32)},
                                 static_cast<std::uint32_t>(seed_), static_cast<std::uint32_t>(seed_ >> 32));
    buffer_[0] = x.x0, buffer_[1] = x.x1, buffer_[2] = x.x2, buffer_[3] = x.x3;
    ++block_;
    left_ = 4;
  }
  return buffer_[4 - left_--];
}

double Rng::uniform() {
  const std::uint32_t high = next_u32();
  return uniform_of(high, next_u32());
}

double Rng::normal() {
  const double u = 1 - uniform();  // (0, 1]: its logarithm is finite
  return std::sqrt(-2 * std::log(u)) * std::cos(2 * std::numbers::pi * uniform());
}

void initialize_parameters(const ParameterLayout& layout, const ModelConfig& model, std::uint64_t seed,
                           std::span<float> arena) {
  std::fill(arena.begin(), arena.end(), 0.0F);
  Rng rng(seed, kInitStream);
  const bool uniform = model.init.kind == InitConfig::Kind::kUniform;
  for (const ParameterTensor& tensor : layout.tensors()) {
    const bool is_bias = tensor.cols == 0;
    if (is_bias && !uniform) continue;
    for (float& x : arena.subspan(tensor.offset, tensor.count())) {
      x = static_cast<float>(uniform ? model.init.scale * (2 * rng.uniform() - 1) : model.init.scale * rng.normal());
    }
  }
  if (layout.shape().cell != Cell::kLstm) return;
  const auto hidden = static_cast<std::size_t>(layout.shape().hidden);
  for (int l = 0; l < layout.shape().layers; ++l) {
    const auto forget_rows = arena.subspan(layout.bias_ih(l).offset + hidden, hidden);  // gate order i f g o
    std::fill(forget_rows.begin(), forget_rows.end(), static_cast<float>(model.forget_bias));
  }
}

}  // namespace charrnn
