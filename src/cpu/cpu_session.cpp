#include "cpu/cpu_session.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>

#include "backend/window_check.h"
#include "kernels/philox.h"

namespace charrnn::cpu {

namespace {

std::size_t size_of(std::int64_t a, std::int64_t b, std::int64_t c = 1) { return static_cast<std::size_t>(a * b * c); }

/// Into a buffer that cells without it do not have.
float* at(HostBuffer& buffer, std::int64_t offset) { return buffer.size() == 0 ? nullptr : buffer.data() + offset; }

}  // namespace

CpuSession::CpuSession(CpuNetwork& network, const SessionShape& shape) : network_(network), shape_(shape) {
  const NetworkShape& n = network.shape();
  const std::int64_t T = shape.max_steps, H = n.hidden, V = n.vocabulary, W = network.gates().width;
  const int parts = std::min(network.pool().size(), shape.batch);
  for (int part = 0; part < parts; ++part) {
    const Range lanes = split_range(shape.batch, part, parts);
    Slice& s = slices_.emplace_back();
    s.first = static_cast<int>(lanes.begin);
    s.lanes = static_cast<int>(lanes.size());
    const std::int64_t b = s.lanes;
    for (int l = 0; l < n.layers; ++l) {
      Layer& layer = s.layers.emplace_back();
      layer.h = HostBuffer(size_of(T + 1, b, H));
      if (has_cell_state(n.cell)) layer.c = HostBuffer(size_of(T + 1, b, H));
      if (!shape.training) continue;
      layer.gates = HostBuffer(size_of(T, b, W));
      layer.dropped = HostBuffer(size_of(T, b, H));
      layer.bias_sum = HostBuffer(size_of(W, 1));
    }
    s.logits = HostBuffer(size_of(T, b, V));
    if (shape.training) {
      s.dh = HostBuffer(size_of(T, b, H));
      s.dh_below = HostBuffer(size_of(T, b, H));
      s.dc = HostBuffer(size_of(b, H));
      s.head_bias_sum = HostBuffer(size_of(V, 1));
      s.step_sum = HostBuffer(size_of(std::max(V, W), 1));
    } else {
      s.inference_gates = HostBuffer(size_of(T, b, W));
    }
  }
  if (shape.training) {
    gradient_products_.resize(static_cast<std::size_t>(network.pool().size()));
    table_gradient_ = HostBuffer(size_of(V, W));
  }
}

std::size_t CpuSession::memory_bytes(const NetworkShape& n, const SessionShape& s) {
  const std::int64_t T = s.max_steps, B = s.batch, H = n.hidden, V = n.vocabulary;
  const std::int64_t W = gate_map(n.cell, n.hidden).width;
  const std::int64_t state = (has_cell_state(n.cell) ? 2 : 1) * (T + 1) * B * H;
  std::int64_t floats = n.layers * state + T * B * V;
  if (s.training) {
    floats += n.layers * (T * B * (W + H) + W) + 2 * T * B * H + B * H + V * W;
  } else {
    floats += T * B * W;
  }
  return static_cast<std::size_t>(floats) * sizeof(float);
}

float* CpuSession::gates_of(Slice& slice, int layer) const {
  return shape_.training ? slice.layers[static_cast<std::size_t>(layer)].gates.data() : slice.inference_gates.data();
}

float* CpuSession::output_of(Slice& slice, int layer, bool dropped) const {
  Layer& l = slice.layers[static_cast<std::size_t>(layer)];
  return dropped ? l.dropped.data() : l.h.data() + std::int64_t{slice.lanes} * network_.shape().hidden;
}

void CpuSession::reset() {
  for (Slice& s : slices_) {
    const std::size_t state = size_of(s.lanes, network_.shape().hidden);
    for (Layer& layer : s.layers) {
      std::fill_n(layer.h.data(), state, 0.0F);
      if (layer.c.size() != 0) std::fill_n(layer.c.data(), state, 0.0F);
    }
  }
}

template <class Floats, class Copy>
void CpuSession::copy_state(Floats h, Floats c, const Copy& copy) {
  const std::int64_t H = network_.shape().hidden, B = shape_.batch;
  const bool cell = has_cell_state(network_.shape().cell);
  check_state(network_.shape(), shape_.batch, h.size(), c.size());
  for (Slice& s : slices_) {
    const std::int64_t count = s.lanes * H;
    for (std::size_t l = 0; l < s.layers.size(); ++l) {
      const std::int64_t at = (static_cast<std::int64_t>(l) * B + s.first) * H;
      copy(s.layers[l].h.data(), h.data() + at, count);
      if (cell) copy(s.layers[l].c.data(), c.data() + at, count);
    }
  }
}

void CpuSession::get_state(std::span<float> h, std::span<float> c) {
  copy_state(h, c, [](const float* own, float* out, std::int64_t n) { std::copy_n(own, n, out); });
}

void CpuSession::set_state(std::span<const float> h, std::span<const float> c) {
  copy_state(h, c, [](float* own, const float* in, std::int64_t n) { std::copy_n(in, n, own); });
}

void CpuSession::start_lanes(Slice& slice, std::span<const std::uint8_t> reset) {
  if (reset.empty()) return;
  const std::int64_t H = network_.shape().hidden;
  for (int lane = 0; lane < slice.lanes; ++lane) {
    if (reset[static_cast<std::size_t>(slice.first + lane)] == 0) continue;
    for (Layer& layer : slice.layers) {
      std::fill_n(layer.h.data() + lane * H, H, 0.0F);
      if (layer.c.size() != 0) std::fill_n(layer.c.data() + lane * H, H, 0.0F);
    }
  }
}

void CpuSession::finish_lanes(Slice& slice, int steps) {
  const std::int64_t state = std::int64_t{slice.lanes} * network_.shape().hidden;
  for (Layer& layer : slice.layers) {
    std::copy_n(layer.h.data() + steps * state, state, layer.h.data());
    if (layer.c.size() != 0) std::copy_n(layer.c.data() + steps * state, state, layer.c.data());
  }
}

void CpuSession::first_layer_input(Slice& slice, int steps, const Input& input, float* gates) {
  const std::int64_t W = network_.gates().width, b = slice.lanes, V = network_.shape().vocabulary;
  if (input.dense.empty()) {
    for (int t = 0; t < steps; ++t) {
      for (std::int64_t lane = 0; lane < b; ++lane) {
        const TokenId id = input.ids[static_cast<std::size_t>(t * std::int64_t{shape_.batch} + slice.first + lane)];
        std::memcpy(gates + (t * b + lane) * W, network_.table() + id * W, static_cast<std::size_t>(W) * sizeof(float));
      }
    }
    return;
  }
  // Dense vectors take the plain product: it serves single steps of the library, not training.
  const ParameterLayout& layout = network_.layout();
  const float* const p = network_.arena(Arena::kParameters);
  const float* const w = p + layout.weight_ih(0).offset;
  const float* const b_ih = p + layout.bias_ih(0).offset;
  const float* const b_hh = p + layout.bias_hh(0).offset;
  for (std::int64_t t = 0; t < steps; ++t) {
    for (std::int64_t lane = 0; lane < b; ++lane) {
      const float* const x = input.dense.data() + (t * shape_.batch + slice.first + lane) * V;
      float* const to = gates + (t * b + lane) * W;
      std::fill_n(to, W, 0.0F);
      for (const GateBlock& block : network_.gates().input) {
        for (std::int64_t r = block.weight_row; r < block.weight_row + block.rows; ++r) {
          float sum = b_ih[r];
          for (std::int64_t v = 0; v < V; ++v) sum += w[r * V + v] * x[v];
          to[block.gate_column + r - block.weight_row] = sum;
        }
      }
      for (const GateBlock& block : network_.gates().hidden) {
        add_rows(to + block.gate_column, b_hh + block.weight_row, 1, block.rows);
      }
    }
  }
}

void CpuSession::upper_layer_input(Slice& slice, int layer, int steps, const float* x, float* gates) {
  const std::int64_t W = network_.gates().width, H = network_.shape().hidden, rows = std::int64_t{steps} * slice.lanes;
  PackedLayer& packed = network_.packed(layer);
  const float* const bias = packed.bias.data();
  if (network_.shape().cell == Cell::kGru) {  // the columns of nh hold nothing of the input, only b_hh
    for (std::int64_t row = 0; row < rows; ++row) {
      std::copy_n(bias + kGruColumnNh * H, H, gates + row * W + kGruColumnNh * H);
    }
  }
  for (std::size_t i = 0; i < packed.input_forward.size(); ++i) {
    const GateBlock& block = network_.gates().input[i];
    const ProductShape product{.m = rows, .n = block.rows, .k = H, .a_row = H, .c_row = W, .into = Into::kAddBias};
    slice.products.get(product).run(x, *packed.input_forward[i], gates + block.gate_column, bias + block.gate_column);
  }
}

void CpuSession::drop_out(Slice& slice, int layer, int steps, const DropoutKey& d, const float* from, float* to) const {
  const std::int64_t H = network_.shape().hidden, b = slice.lanes;
  DropoutRow row{.seed = d.seed,
                 .step = d.step,
                 .layer = static_cast<std::uint32_t>(layer),
                 .bound = dropout_bound(d.probability),
                 .scale = 1.0F / (1.0F - d.probability)};
  for (int t = 0; t < steps; ++t) {
    row.t = static_cast<std::uint32_t>(t);
    for (std::int64_t lane = 0; lane < b; ++lane) {
      row.lane = static_cast<std::uint32_t>(d.first_lane + slice.first + lane);
      const std::int64_t at = (t * b + lane) * H;
      dropout_row(to + at, from + at, static_cast<int>(H), row);
    }
  }
}

void CpuSession::run_forward(Slice& slice, int steps, const Input& input, const DropoutKey& dropout) {
  const NetworkShape& n = network_.shape();
  const GateMap& map = network_.gates();
  const std::int64_t H = n.hidden, b = slice.lanes, W = map.width;
  const bool drop = dropout.probability > 0;
  for (int l = 0; l < n.layers; ++l) {
    Layer& layer = slice.layers[static_cast<std::size_t>(l)];
    float* const gates = gates_of(slice, l);
    if (l == 0) {
      first_layer_input(slice, steps, input, gates);
    } else {
      upper_layer_input(slice, l, steps, output_of(slice, l - 1, drop), gates);
    }
    PackedLayer& packed = network_.packed(l);
    for (std::int64_t t = 0; t < steps; ++t) {
      for (std::size_t i = 0; i < packed.hidden_forward.size(); ++i) {
        const GateBlock& block = map.hidden[i];
        const ProductShape product{.m = b, .n = block.rows, .k = H, .a_row = H, .c_row = W, .into = Into::kAccumulate};
        slice.products.get(product).run(layer.h.data() + t * b * H, *packed.hidden_forward[i],
                                        gates + t * b * W + block.gate_column);
      }
      step_forward(n.cell, {.rows = slice.lanes,
                            .hidden = n.hidden,
                            .gates = gates + t * b * W,
                            .h_prev = layer.h.data() + t * b * H,
                            .c_prev = at(layer.c, t * b * H),
                            .h = layer.h.data() + (t + 1) * b * H,
                            .c = at(layer.c, (t + 1) * b * H)});
    }
    if (drop) drop_out(slice, l, steps, dropout, output_of(slice, l, false), layer.dropped.data());
  }
}

void CpuSession::run_head(Slice& slice, int steps, const DropoutKey& dropout) {
  const NetworkShape& n = network_.shape();
  const std::int64_t rows = std::int64_t{steps} * slice.lanes, H = n.hidden, V = n.vocabulary;
  const float* const bias = network_.arena(Arena::kParameters) + network_.layout().head_bias().offset;
  const ProductShape product{.m = rows, .n = V, .k = H, .a_row = H, .c_row = V, .into = Into::kAddBias};
  slice.products.get(product).run(output_of(slice, n.layers - 1, dropout.probability > 0), network_.head_forward(),
                                  slice.logits.data(), bias);
}

void CpuSession::run_loss(Slice& slice, const Window& window, bool want_gradient) {
  const int V = network_.shape().vocabulary;
  slice.loss = {};
  for (int t = 0; t < window.steps; ++t) {
    for (int lane = 0; lane < slice.lanes; ++lane) {
      const auto at = static_cast<std::size_t>(std::int64_t{t} * window.batch + slice.first + lane);
      float* const row = slice.logits.data() + (std::int64_t{t} * slice.lanes + lane) * V;
      const float weight = window.weights.empty() ? 1.0F : window.weights[at];
      if (weight == 0.0F) {
        if (want_gradient) std::fill_n(row, V, 0.0F);
        continue;
      }
      const XentRow x = softmax_xent_row(row, V, window.targets[at], weight * window.loss_scale, want_gradient);
      slice.loss.nats += static_cast<double>(weight) * x.nats;
      slice.loss.weight += static_cast<double>(weight);
      if (x.correct) slice.loss.correct += static_cast<double>(weight);
    }
  }
}

void CpuSession::run_backward(Slice& slice, int steps, const DropoutKey& dropout) {
  const NetworkShape& n = network_.shape();
  const GateMap& map = network_.gates();
  const std::int64_t H = n.hidden, b = slice.lanes, W = map.width, V = n.vocabulary, rows = steps * b;
  const bool drop = dropout.probability > 0;

  const ProductShape head{.m = rows, .n = H, .k = V, .a_row = V, .c_row = H};
  slice.products.get(head).run(slice.logits.data(), network_.head_backward(), slice.dh.data());
  std::fill_n(slice.head_bias_sum.data(), V, 0.0F);
  for (int t = 0; t < steps; ++t) add_sum(slice, slice.head_bias_sum.data(), slice.logits.data() + t * b * V, V);

  for (int l = n.layers - 1; l >= 0; --l) {
    Layer& layer = slice.layers[static_cast<std::size_t>(l)];
    PackedLayer& packed = network_.packed(l);
    float* const dh = slice.dh.data();
    if (drop) drop_out(slice, l, steps, dropout, dh, dh);
    std::fill_n(slice.dc.data(), b * H, 0.0F);
    std::fill_n(layer.bias_sum.data(), W, 0.0F);
    for (std::int64_t t = steps - 1; t >= 0; --t) {
      float* const gates = layer.gates.data() + t * b * W;
      float* const dh_prev = t == 0 ? nullptr : dh + (t - 1) * b * H;
      step_backward(n.cell, {.rows = slice.lanes,
                             .hidden = n.hidden,
                             .gates = gates,
                             .h_prev = layer.h.data() + t * b * H,
                             .h = layer.h.data() + (t + 1) * b * H,
                             .c_prev = at(layer.c, t * b * H),
                             .c = at(layer.c, (t + 1) * b * H),
                             .dh = dh + t * b * H,
                             .dh_prev = dh_prev,
                             .dc = slice.dc.data()});
      add_sum(slice, layer.bias_sum.data(), gates, W);
      if (t == 0) continue;
      for (std::size_t i = 0; i < packed.hidden_backward.size(); ++i) {
        const GateBlock& block = map.hidden[i];
        const ProductShape product{.m = b, .n = H, .k = block.rows, .a_row = W, .c_row = H, .into = Into::kAccumulate};
        slice.products.get(product).run(gates + block.gate_column, *packed.hidden_backward[i], dh_prev);
      }
    }
    if (l == 0) continue;
    for (std::size_t i = 0; i < packed.input_backward.size(); ++i) {
      const GateBlock& block = map.input[i];
      const ProductShape product{.m = rows,
                                 .n = H,
                                 .k = block.rows,
                                 .a_row = W,
                                 .c_row = H,
                                 .into = i == 0 ? Into::kOverwrite : Into::kAccumulate};
      slice.products.get(product).run(layer.gates.data() + block.gate_column, *packed.input_backward[i],
                                      slice.dh_below.data());
    }
    std::swap(slice.dh, slice.dh_below);
  }
}

/// The rows of one step are summed first, and then the steps: chains of b and T additions, not one of T b.
void CpuSession::add_sum(Slice& slice, float* to, const float* rows, std::int64_t n) {
  std::fill_n(slice.step_sum.data(), n, 0.0F);
  add_rows(slice.step_sum.data(), rows, slice.lanes, n);
  add_rows(to, slice.step_sum.data(), 1, n);
}

void CpuSession::copy_logits(const Slice& slice, int steps, std::span<float> logits) const {
  if (logits.empty()) return;
  const std::int64_t V = network_.shape().vocabulary, b = slice.lanes;
  for (std::int64_t t = 0; t < steps; ++t) {
    std::copy_n(slice.logits.data() + t * b * V, b * V, logits.data() + (t * shape_.batch + slice.first) * V);
  }
}

void CpuSession::forward(const Window& window, std::span<float> logits) {
  check_window(window, shape_, network_.shape().vocabulary, false);
  if (!logits.empty() && logits.size() != size_of(window.steps, window.batch, network_.shape().vocabulary)) {
    throw ShapeError("Session::forward: logits must be [T,B,V] or empty");
  }
  network_.refresh();
  network_.pool().run(static_cast<int>(slices_.size()), [&](int worker) {
    Slice& s = slices_[static_cast<std::size_t>(worker)];
    start_lanes(s, window.reset);
    run_forward(s, window.steps, {window.ids, {}}, {});
    if (!logits.empty()) run_head(s, window.steps, {});
    copy_logits(s, window.steps, logits);
    finish_lanes(s, window.steps);
  });
}

void CpuSession::forward_dense(int steps, std::span<const float> x, std::span<float> logits) {
  const std::size_t expected = size_of(steps, shape_.batch, network_.shape().vocabulary);
  if (steps < 1 || steps > shape_.max_steps || x.size() != expected || logits.size() != expected) {
    throw ShapeError("Session::forward_dense: x and logits must be [T,B,V]");
  }
  network_.refresh();
  network_.pool().run(static_cast<int>(slices_.size()), [&](int worker) {
    Slice& s = slices_[static_cast<std::size_t>(worker)];
    run_forward(s, steps, {{}, x}, {});
    run_head(s, steps, {});
    copy_logits(s, steps, logits);
    finish_lanes(s, steps);
  });
}

WindowLoss CpuSession::evaluate(const Window& window) {
  check_window(window, shape_, network_.shape().vocabulary, true);
  network_.refresh();
  network_.pool().run(static_cast<int>(slices_.size()), [&](int worker) {
    Slice& s = slices_[static_cast<std::size_t>(worker)];
    start_lanes(s, window.reset);
    run_forward(s, window.steps, {window.ids, {}}, {});
    run_head(s, window.steps, {});
    run_loss(s, window, false);
    finish_lanes(s, window.steps);
  });
  WindowLoss sum;
  for (const Slice& s : slices_) sum += s.loss;
  return sum;
}

WindowLoss CpuSession::gradients(const Window& window, const DropoutKey& dropout) {
  if (!shape_.training) throw ShapeError("Session::gradients: the session was not opened for training");
  check_window(window, shape_, network_.shape().vocabulary, true);
  network_.refresh();
  network_.pool().run(static_cast<int>(slices_.size()), [&](int worker) {
    Slice& s = slices_[static_cast<std::size_t>(worker)];
    start_lanes(s, window.reset);
    run_forward(s, window.steps, {window.ids, {}}, dropout);
    run_head(s, window.steps, dropout);
    run_loss(s, window, true);
    run_backward(s, window.steps, dropout);
  });
  network_.pool().run(network_.pool().size(), [&](int part) { weight_gradients(window, part, dropout); });
  bias_gradients();
  WindowLoss sum;
  for (Slice& s : slices_) {
    finish_lanes(s, window.steps);
    sum += s.loss;
  }
  return sum;
}

void CpuSession::weight_gradients(const Window& window, int part, const DropoutKey& dropout) {
  for (int l = 0; l < network_.shape().layers; ++l) {
    for (const GateBlock& block : network_.gates().hidden)
      matrix_gradient(part, window.steps, block, l, false, dropout);
    if (l == 0) continue;
    for (const GateBlock& block : network_.gates().input) matrix_gradient(part, window.steps, block, l, true, dropout);
  }
  table_gradient(window, part);
  head_gradient(part, window.steps, dropout);
}

/// to [m,H] = the sum over the slices of A^T X: A [T b, m] inside rows of `width` columns, X [T b, H].
template <class A, class X>
void CpuSession::sum_products(int part, std::int64_t steps, std::int64_t m, std::int64_t width, const A& a_of,
                              const X& x_of, float* to) {
  const std::int64_t H = network_.shape().hidden;
  for (Slice& s : slices_) {
    const ProductShape product{.m = m,
                               .n = H,
                               .k = steps * s.lanes,
                               .a_row = 1,
                               .a_column = width,
                               .b_row = H,
                               .c_row = H,
                               .into = &s == &slices_.front() ? Into::kOverwrite : Into::kAccumulate};
    gradient_products_[static_cast<std::size_t>(part)].get(product).run(a_of(s), x_of(s), to);
  }
}

void CpuSession::matrix_gradient(int part, std::int64_t steps, const GateBlock& block, int layer, bool of_input,
                                 const DropoutKey& dropout) {
  const std::int64_t H = network_.shape().hidden;
  const Range mine = split_range(block.rows, part, network_.pool().size(), 16);
  if (mine.size() == 0) return;
  const auto own = [layer](Slice& s) -> Layer& { return s.layers[static_cast<std::size_t>(layer)]; };
  const auto gates = [&](Slice& s) { return own(s).gates.data() + block.gate_column + mine.begin; };
  const auto x = [&](Slice& s) {
    return of_input ? output_of(s, layer - 1, dropout.probability > 0) : own(s).h.data();
  };
  const ParameterLayout& layout = network_.layout();
  const auto& tensor = of_input ? layout.weight_ih(layer) : layout.weight_hh(layer);
  sum_products(part, steps, mine.size(), network_.gates().width, gates, x,
               network_.arena(Arena::kGradients) + tensor.offset + (block.weight_row + mine.begin) * H);
}

void CpuSession::table_gradient(const Window& window, int part) {
  const std::int64_t W = network_.gates().width, V = network_.shape().vocabulary;
  const Range mine = split_range(W, part, network_.pool().size(), 16);
  if (mine.size() == 0) return;
  float* const table = table_gradient_.data();
  for (std::int64_t v = 0; v < V; ++v) std::fill_n(table + v * W + mine.begin, mine.size(), 0.0F);
  for (Slice& s : slices_) {
    const float* const gates = s.layers.front().gates.data();
    for (std::int64_t t = 0; t < window.steps; ++t) {
      for (std::int64_t lane = 0; lane < s.lanes; ++lane) {
        const TokenId id = window.ids[static_cast<std::size_t>(t * window.batch + s.first + lane)];
        add_rows(table + id * W + mine.begin, gates + (t * s.lanes + lane) * W + mine.begin, 1, mine.size());
      }
    }
  }
  float* const gradient = network_.arena(Arena::kGradients) + network_.layout().weight_ih(0).offset;
  for (const GateBlock& block : network_.gates().input) {
    for (std::int64_t r = 0; r < block.rows; ++r) {
      const std::int64_t column = block.gate_column + r;
      if (column < mine.begin || column >= mine.end) continue;
      for (std::int64_t v = 0; v < V; ++v) gradient[(block.weight_row + r) * V + v] = table[v * W + column];
    }
  }
}

void CpuSession::head_gradient(int part, std::int64_t steps, const DropoutKey& dropout) {
  const std::int64_t H = network_.shape().hidden, V = network_.shape().vocabulary;
  const Range mine = split_range(V, part, network_.pool().size());
  if (mine.size() == 0) return;
  const auto logits = [&](Slice& s) { return s.logits.data() + mine.begin; };
  const auto top = [&](Slice& s) { return output_of(s, network_.shape().layers - 1, dropout.probability > 0); };
  sum_products(part, steps, mine.size(), V, logits, top,
               network_.arena(Arena::kGradients) + network_.layout().head_weight().offset + mine.begin * H);
}

void CpuSession::bias_gradients() {
  const ParameterLayout& layout = network_.layout();
  float* const g = network_.arena(Arena::kGradients);
  const auto sum_blocks = [&](const std::vector<GateBlock>& blocks, std::size_t layer, float* to) {
    for (const GateBlock& block : blocks) {
      std::fill_n(to + block.weight_row, block.rows, 0.0F);
      for (const Slice& s : slices_) {
        add_rows(to + block.weight_row, s.layers[layer].bias_sum.data() + block.gate_column, 1, block.rows);
      }
    }
  };
  for (int l = 0; l < network_.shape().layers; ++l) {
    sum_blocks(network_.gates().input, static_cast<std::size_t>(l), g + layout.bias_ih(l).offset);
    sum_blocks(network_.gates().hidden, static_cast<std::size_t>(l), g + layout.bias_hh(l).offset);
  }
  float* const head = g + layout.head_bias().offset;
  std::fill_n(head, network_.shape().vocabulary, 0.0F);
  for (const Slice& s : slices_) add_rows(head, s.head_bias_sum.data(), 1, network_.shape().vocabulary);
}

void CpuSession::submit_step(const Window& window, const DropoutKey& dropout, const UpdateSettings& settings) {
  const WindowLoss loss = gradients(window, dropout);
  StepResult result;
  result.nats_per_char = loss.nats / loss.weight;
  if (std::isfinite(loss.nats)) {
    const StepResult update = network_.update(settings);
    result.gradient_norm = update.gradient_norm;
    result.skipped = update.skipped;
  } else {
    result.gradient_norm = std::nan("");
    result.skipped = true;
  }
  if (result.skipped) reset();
  results_.push_back(result);
}

StepResult CpuSession::next_result() {
  if (results_.empty()) throw ShapeError("Session::next_result: no step was submitted");
  const StepResult result = results_.front();
  results_.pop_front();
  return result;
}

}  // namespace charrnn::cpu
