#include "cpu/slice.h"

#include <algorithm>
#include <type_traits>

#include "kernels/philox.h"

namespace charrnn::cpu {

namespace {

std::size_t size_of(std::int64_t a, std::int64_t b, std::int64_t c = 1) { return static_cast<std::size_t>(a * b * c); }

/// Of an array that cells without it do not have.
template <class Array>
auto* in(Array& array, std::int64_t offset) {
  return array.size() == 0 ? nullptr : array.data() + offset;
}

std::int64_t recurrent_width(const GateMap& gates) { return gates.hidden.front().rows; }

/// Steps whose input is multiplied at once: many rows for the product, few enough that they are still in a cache when
/// the recurrence reads them.
std::int64_t steps_ahead(std::int64_t steps, std::int64_t lanes, std::int64_t width) {
  constexpr std::int64_t kFloats = 1 << 20;
  return std::clamp<std::int64_t>(kFloats / (lanes * width), 1, steps);
}

constexpr bool keeps_gates(Cell cell) { return cell == Cell::kLstm || cell == Cell::kGru; }

}  // namespace

template <class E>
Slice<E>::Slice(CpuNetwork& network, const SessionShape& shape, Range lanes)
    : network_(network),
      shape_(shape),
      first_(static_cast<int>(lanes.begin)),
      lanes_(static_cast<int>(lanes.size())),
      H_(network.shape().hidden),
      V_(network.shape().vocabulary),
      W_(network.gates().width),
      recurrent_width_(recurrent_width(network.gates())),
      input_steps_(steps_ahead(shape.max_steps, lanes.size(), W_)) {
  const NetworkShape& n = network.shape();
  const std::int64_t T = shape.max_steps, b = lanes_;
  for (int l = 0; l < n.layers; ++l) {
    Layer& layer = layers_.emplace_back();
    layer.h = HostArray<E>(size_of(T + 1, b, H_));
    if (has_cell_state(n.cell)) layer.c = HostBuffer(size_of(T + 1, b, H_));
    if (!shape.training) continue;
    layer.gates = HostArray<E>(size_of(T, b, W_));
    layer.dropped = HostArray<E>(size_of(T, b, H_));
    layer.bias_sums = HostBuffer(size_of(W_, 1));
  }
  recurrent_ = HostBuffer(size_of(b, recurrent_width_));
  input_ = HostBuffer(size_of(input_steps_, b, W_));
  logits_ = HostBuffer(size_of(T, b, V_));
  if (!shape.training) return;
  if constexpr (!std::is_same_v<E, float>) logit_gradients_ = HostArray<E>(size_of(T, b, V_));
  dy_ = HostArray<E>(size_of(T, b, H_));
  dy_below_ = HostArray<E>(size_of(T, b, H_));
  if (recurrent_width_ != W_) without_gaps_ = HostArray<E>(size_of(b, recurrent_width_));
  dh_ = HostBuffer(size_of(b, H_));
  dc_ = HostBuffer(size_of(b, H_));
  sums_ = HostBuffer(size_of(std::max(V_, W_), 1));
  head_bias_sums_ = HostBuffer(size_of(V_, 1));
}

template <class E>
std::size_t Slice<E>::memory_bytes(const NetworkShape& n, const SessionShape& s, std::int64_t b) {
  const GateMap gates = gate_map(n.cell, n.hidden);
  const std::int64_t T = s.max_steps, H = n.hidden, V = n.vocabulary, W = gates.width;
  std::int64_t elements = n.layers * (T + 1) * b * H;
  std::int64_t floats = b * recurrent_width(gates) + steps_ahead(T, b, W) * b * W + T * b * V;
  if (has_cell_state(n.cell)) floats += n.layers * (T + 1) * b * H;
  if (s.training) {
    elements += n.layers * T * b * (W + H) + 2 * T * b * H;
    if (recurrent_width(gates) != W) elements += b * recurrent_width(gates);
    if constexpr (!std::is_same_v<E, float>) elements += T * b * V;
    floats += n.layers * W + 2 * b * H + std::max(V, W) + V;
  }
  return static_cast<std::size_t>(elements) * sizeof(E) + static_cast<std::size_t>(floats) * sizeof(float);
}

template <class E>
const E* Slice<E>::output(int layer) const {
  return dropping_ ? at(layer).dropped.data() : at(layer).h.data() + std::int64_t{lanes_} * H_;
}

template <class E>
HostArray<E>& Slice<E>::gradients_of_logits() {
  if constexpr (std::is_same_v<E, float>) {
    return logits_;
  } else {
    return logit_gradients_;
  }
}

template <class E>
void Slice<E>::zero_state() {
  const std::int64_t state = lanes_ * H_;
  for (Layer& layer : layers_) {
    std::fill_n(layer.h.data(), state, E{});
    if (layer.c.size() != 0) std::fill_n(layer.c.data(), state, 0.0F);
  }
}

template <class E>
void Slice<E>::get_state(std::span<float> h, std::span<float> c) const {
  const std::int64_t state = lanes_ * H_;
  for (std::size_t l = 0; l < layers_.size(); ++l) {
    const std::int64_t to = (static_cast<std::int64_t>(l) * shape_.batch + first_) * H_;
    const Layer& layer = layers_[l];
    std::transform(layer.h.data(), layer.h.data() + state, h.data() + to, [](E x) { return to_float(x); });
    if (layer.c.size() != 0) std::copy_n(layer.c.data(), state, c.data() + to);
  }
}

template <class E>
void Slice<E>::set_state(std::span<const float> h, std::span<const float> c) {
  const std::int64_t state = lanes_ * H_;
  for (std::size_t l = 0; l < layers_.size(); ++l) {
    const std::int64_t from = (static_cast<std::int64_t>(l) * shape_.batch + first_) * H_;
    Layer& layer = layers_[l];
    std::transform(h.data() + from, h.data() + from + state, layer.h.data(), [](float x) { return from_float<E>(x); });
    if (layer.c.size() != 0) std::copy_n(c.data() + from, state, layer.c.data());
  }
}

template <class E>
void Slice<E>::start(std::span<const std::uint8_t> reset) {
  if (reset.empty()) return;
  for (int lane = 0; lane < lanes_; ++lane) {
    if (reset[static_cast<std::size_t>(first_ + lane)] == 0) continue;
    for (Layer& layer : layers_) {
      std::fill_n(layer.h.data() + lane * H_, H_, E{});
      if (layer.c.size() != 0) std::fill_n(layer.c.data() + lane * H_, H_, 0.0F);
    }
  }
}

template <class E>
void Slice<E>::finish(int steps) {
  const std::int64_t state = lanes_ * H_;
  for (Layer& layer : layers_) {
    std::copy_n(layer.h.data() + steps * state, state, layer.h.data());
    if (layer.c.size() != 0) std::copy_n(layer.c.data() + steps * state, state, layer.c.data());
  }
}

/// Dense vectors take the plain product: it serves single steps of the library, not training.
template <class E>
void Slice<E>::dense_input(std::int64_t step, std::span<const float> dense) {
  const float* const w = network_.arena(Arena::kParameters) + network_.layout().weight_ih(0).offset;
  for (std::int64_t lane = 0; lane < lanes_; ++lane) {
    const float* const x = dense.data() + (step * shape_.batch + first_ + lane) * V_;
    for (const GateBlock& block : network_.gates().input) {
      float* const to = input_.data() + lane * W_ + block.gate_column;
      for (std::int64_t r = 0; r < block.rows; ++r) {
        float sum = 0;
        for (std::int64_t v = 0; v < V_; ++v) sum += w[(block.weight_row + r) * V_ + v] * x[v];
        to[r] = sum;
      }
    }
  }
}

template <class E>
void Slice<E>::upper_input(int layer, std::int64_t first_step, std::int64_t steps) {
  const E* const x = output(layer - 1) + first_step * lanes_ * H_;
  PackedLayer& packed = network_.packed(layer);
  for (std::size_t i = 0; i < packed.input_forward.size(); ++i) {
    const GateBlock& block = network_.gates().input[i];
    const ProductShape product{.m = steps * lanes_, .n = block.rows, .k = H_, .a_row = H_, .c_row = W_};
    products_.multiply(product, x, *packed.input_forward[i], input_.data() + block.gate_column);
  }
}

template <class E>
void Slice<E>::layer_forward(int l, int steps, const LayerInput& input, const DropoutKey& dropout) {
  const std::int64_t b = lanes_;
  Layer& layer = at(l);
  PackedLayer& packed = network_.packed(l);
  const bool gather = l == 0 && input.dense.empty();
  const ProductShape shape{.m = b, .n = recurrent_width_, .k = H_, .a_row = H_, .c_row = recurrent_width_};
  Product& product = products_.get<E, float>(shape);
  CellForward<E> cell{.cell = network_.shape().cell, .rows = lanes_, .hidden = static_cast<int>(H_)};
  cell.recurrent = recurrent_.data();
  cell.bias = gather ? nullptr : packed.bias.data();
  cell.dropout = {.seed = dropout.seed,
                  .step = dropout.step,
                  .layer = static_cast<std::uint32_t>(l),
                  .first_lane = static_cast<std::uint32_t>(dropout.first_lane + first_),
                  .bound = dropout_bound(dropout.probability),
                  .scale = dropout_scale_};
  for (std::int64_t t = 0; t < steps; ++t) {
    const E* const h_prev = layer.h.data() + t * b * H_;
    product.run(h_prev, *packed.hidden_forward, recurrent_.data());
    if (gather) {
      cell.input = network_.table();
      cell.ids = input.ids.data() + t * shape_.batch + first_;
    } else if (l == 0) {
      dense_input(t, input.dense);
      cell.input = input_.data();
    } else {
      const std::int64_t ahead = t % input_steps_;
      if (ahead == 0) upper_input(l, t, std::min(input_steps_, steps - t));
      cell.input = input_.data() + ahead * b * W_;
    }
    if (shape_.training && keeps_gates(cell.cell)) cell.gates = layer.gates.data() + t * b * W_;
    cell.h_prev = h_prev;
    cell.c_prev = in(layer.c, t * b * H_);
    cell.h = layer.h.data() + (t + 1) * b * H_;
    cell.c = in(layer.c, (t + 1) * b * H_);
    if (dropping_) cell.dropped = layer.dropped.data() + t * b * H_;
    cell.dropout.t = static_cast<std::uint32_t>(t);
    cell_forward(cell);
  }
}

template <class E>
void Slice<E>::forward(int steps, const LayerInput& input, const DropoutKey& dropout) {
  dropping_ = dropout.probability > 0;
  dropout_scale_ = 1.0F / (1.0F - dropout.probability);
  for (int l = 0; l < network_.shape().layers; ++l) layer_forward(l, steps, input, dropout);
}

template <class E>
void Slice<E>::head(int steps) {
  const float* const bias = network_.arena(Arena::kParameters) + network_.layout().head_bias().offset;
  const ProductShape product{
      .m = std::int64_t{steps} * lanes_, .n = V_, .k = H_, .a_row = H_, .c_row = V_, .into = Into::kAddBias};
  products_.multiply(product, output(network_.shape().layers - 1), network_.head_forward(), logits_.data(), bias);
}

template <class E>
void Slice<E>::copy_logits(int steps, std::span<float> logits) const {
  const std::int64_t b = lanes_;
  for (std::int64_t t = 0; t < steps; ++t) {
    std::copy_n(logits_.data() + t * b * V_, b * V_, logits.data() + (t * shape_.batch + first_) * V_);
  }
}

template <class E>
WindowLoss Slice<E>::loss(const Window& window, bool want_gradient) {
  WindowLoss sum;
  E* const gradients = gradients_of_logits().data();
  for (std::int64_t t = 0; t < window.steps; ++t) {
    for (std::int64_t lane = 0; lane < lanes_; ++lane) {
      const auto at = static_cast<std::size_t>(t * window.batch + first_ + lane);
      const std::int64_t row = (t * lanes_ + lane) * V_;
      E* const gradient = want_gradient ? gradients + row : nullptr;
      const float weight = window.weights.empty() ? 1.0F : window.weights[at];
      if (weight == 0.0F) {
        if (want_gradient) std::fill_n(gradient, V_, E{});
        continue;
      }
      const XentRow x = softmax_xent_row(logits_.data() + row, gradient, static_cast<int>(V_), window.targets[at],
                                         weight * window.loss_scale);
      sum.nats += static_cast<double>(weight) * x.nats;
      sum.weight += static_cast<double>(weight);
      if (x.correct) sum.correct += static_cast<double>(weight);
    }
  }
  return sum;
}

template <class E>
void Slice<E>::layer_backward(int l, int steps) {
  const std::int64_t b = lanes_;
  Layer& layer = at(l);
  const GateBlock& hidden = network_.gates().hidden.front();
  CellBackward<E> cell{.cell = network_.shape().cell, .rows = lanes_, .hidden = static_cast<int>(H_)};
  // oneDNN's fast products want rows without gaps: a GRU's, which share a row of gates with nx, are copied together.
  const bool gaps = hidden.rows != W_;
  const ProductShape shape{.m = b,
                           .n = H_,
                           .k = hidden.rows,
                           .a_row = hidden.rows,
                           .c_row = H_,
                           .into = cell.cell == Cell::kGru
                                       ? Into::kAccumulate
                                       : Into::kOverwrite};  // beside the path that passes no product
  Product& product = products_.get<E, float>(shape);
  cell.dropout_scale = dropout_scale_;
  cell.dh = dh_.data();
  cell.dc = dc_.data();
  cell.sums = sums_.data();
  std::fill_n(layer.bias_sums.data(), W_, 0.0F);
  for (std::int64_t t = steps - 1; t >= 0; --t) {
    cell.last = t == steps - 1;
    cell.gates = layer.gates.data() + t * b * W_;
    cell.h_prev = layer.h.data() + t * b * H_;
    cell.h = layer.h.data() + (t + 1) * b * H_;
    cell.c_prev = in(layer.c, t * b * H_);
    cell.c = in(layer.c, (t + 1) * b * H_);
    cell.dy = dy_.data() + t * b * H_;
    cell.dropped = dropping_ ? layer.dropped.data() + t * b * H_ : nullptr;
    cell_backward(cell);
    add_rows(layer.bias_sums.data(), sums_.data(), 1, W_);
    if (t == 0) break;
    const E* from = cell.gates + hidden.gate_column;
    if (gaps) {
      for (std::int64_t lane = 0; lane < b; ++lane) {
        std::copy_n(from + lane * W_, hidden.rows, without_gaps_.data() + lane * hidden.rows);
      }
      from = without_gaps_.data();
    }
    product.run(from, *network_.packed(l).hidden_backward, dh_.data());
  }
}

template <class E>
void Slice<E>::backward(int steps) {
  const std::int64_t b = lanes_, rows = steps * b;
  const E* const dlogits = logit_gradients();
  products_.multiply({.m = rows, .n = H_, .k = V_, .a_row = V_, .c_row = H_}, dlogits, network_.head_backward(),
                     dy_.data());
  // The rows of one step are summed first, and then the steps: chains of b and T additions, not one of T b.
  std::fill_n(head_bias_sums_.data(), V_, 0.0F);
  for (std::int64_t t = 0; t < steps; ++t) {
    std::fill_n(sums_.data(), V_, 0.0F);
    add_rows(sums_.data(), dlogits + t * b * V_, b, V_);
    add_rows(head_bias_sums_.data(), sums_.data(), 1, V_);
  }
  for (int l = network_.shape().layers - 1; l >= 0; --l) {
    layer_backward(l, steps);
    if (l == 0) break;
    PackedLayer& packed = network_.packed(l);
    for (std::size_t i = 0; i < packed.input_backward.size(); ++i) {
      const GateBlock& block = network_.gates().input[i];
      const ProductShape product{.m = rows,
                                 .n = H_,
                                 .k = block.rows,
                                 .a_row = W_,
                                 .c_row = H_,
                                 .into = i == 0 ? Into::kOverwrite : Into::kAccumulate};
      products_.multiply(product, gate_gradients(l) + block.gate_column, *packed.input_backward[i], dy_below_.data());
    }
    std::swap(dy_, dy_below_);
  }
}

template class Slice<float>;
template class Slice<Bf16>;

}  // namespace charrnn::cpu
