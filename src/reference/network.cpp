#include <cmath>
#include <string>
#include <utility>

#include "charrnn/error.h"
#include "reference/cells.h"
#include "reference/reference.h"

namespace charrnn::reference {

double sigmoid(double a) { return 1 / (1 + std::exp(-a)); }

double row_product(const double* weight, const double* bias, int row, const std::vector<double>& v) {
  const double* w = weight + static_cast<std::size_t>(row) * v.size();
  double sum = bias[row];
  for (std::size_t k = 0; k < v.size(); ++k) sum += w[k] * v[k];
  return sum;
}

void row_backward(double da, const double* weight, int row, const std::vector<double>& v, double* dweight,
                  double* dbias, std::vector<double>& dv) {
  const std::size_t first = static_cast<std::size_t>(row) * v.size();
  for (std::size_t k = 0; k < v.size(); ++k) {
    dweight[first + k] += da * v[k];
    dv[k] += da * weight[first + k];
  }
  dbias[row] += da;
}

State State::zero(const NetworkShape& shape, int batch) {
  const std::size_t count =
      static_cast<std::size_t>(shape.layers) * static_cast<std::size_t>(batch) * static_cast<std::size_t>(shape.hidden);
  return {std::vector<double>(count), std::vector<double>(has_cell_state(shape.cell) ? count : 0)};
}

namespace {

void expect_size(const char* what, std::size_t is, std::size_t expected) {
  if (is == expected) return;
  throw ShapeError("reference: " + std::string(what) + " has " + std::to_string(is) + " elements, expected " +
                   std::to_string(expected));
}

void expect_id(const char* what, TokenId id, int vocabulary) {
  if (id >= 0 && id < vocabulary) return;
  throw ShapeError("reference: " + std::string(what) + " is " + std::to_string(id) + ", expected [0, " +
                   std::to_string(vocabulary) + ")");
}

CellWeights layer_weights(const ParameterLayout& layout, std::span<const double> p, int layer) {
  return {static_cast<int>(layout.weight_ih(layer).cols), layout.shape().hidden,
          p.data() + layout.weight_ih(layer).offset,      p.data() + layout.weight_hh(layer).offset,
          p.data() + layout.bias_ih(layer).offset,        p.data() + layout.bias_hh(layer).offset};
}

CellGradients layer_gradients(const ParameterLayout& layout, std::vector<double>& g, int layer) {
  return {g.data() + layout.weight_ih(layer).offset, g.data() + layout.weight_hh(layer).offset,
          g.data() + layout.bias_ih(layer).offset, g.data() + layout.bias_hh(layer).offset};
}

CellStep cell_forward(Cell cell, const CellWeights& w, std::vector<double> x, std::vector<double> h,
                      std::vector<double> c) {
  switch (cell) {
    case Cell::kLstm: return lstm_forward(w, std::move(x), std::move(h), std::move(c));
    case Cell::kGru: return gru_forward(w, std::move(x), std::move(h));
    default: return rnn_forward(w, cell == Cell::kRnnRelu, std::move(x), std::move(h));
  }
}

CellDerivatives cell_backward(Cell cell, const CellWeights& w, const CellStep& step, const std::vector<double>& dh,
                              const std::vector<double>& dc, const CellGradients& gradients) {
  switch (cell) {
    case Cell::kLstm: return lstm_backward(w, step, dh, dc, gradients);
    case Cell::kGru: return gru_backward(w, step, dh, gradients);
    default: return rnn_backward(w, cell == Cell::kRnnRelu, step, dh, gradients);
  }
}

/// What one lane kept on its way up through step t.
struct LaneStep {
  std::vector<CellStep> layers;
  std::vector<double> top;      // [H] what the head read: the last layer's h with its dropout
  std::vector<double> dlogits;  // [V] loss_scale * weight * (softmax - 1-of-k target)
};

class Lane {
 public:
  Lane(const ParameterLayout& layout, std::span<const double> parameters, const Window& window,
       const DropoutMask& dropout, int lane)
      : layout_(layout), shape_(layout.shape()), p_(parameters), window_(window), dropout_(dropout), lane_(lane) {}

  void forward(const State& start, Result& result);
  void backward(std::vector<double>& gradients) const;

 private:
  std::size_t position(int t) const { return static_cast<std::size_t>(t * window_.batch + lane_); }
  std::size_t state_offset(int layer) const {
    return static_cast<std::size_t>((layer * window_.batch + lane_) * shape_.hidden);
  }
  double mask(int layer, int t, int unit) const { return dropout_ ? dropout_(layer, t, lane_, unit) : 1.0; }
  std::vector<double> input(int t) const;
  void loss(int t, const std::vector<double>& logits, LaneStep& step, Result& result) const;

  const ParameterLayout& layout_;
  const NetworkShape& shape_;
  std::span<const double> p_;
  const Window& window_;
  const DropoutMask& dropout_;
  int lane_;
  std::vector<LaneStep> steps_;  // [T]
};

std::vector<double> Lane::input(int t) const {
  const auto vocabulary = static_cast<std::size_t>(shape_.vocabulary);
  if (!window_.inputs.empty()) {
    const auto x = window_.inputs.subspan(position(t) * vocabulary, vocabulary);
    return {x.begin(), x.end()};
  }
  const TokenId id = window_.ids[position(t)];
  expect_id("an input character", id, shape_.vocabulary);
  std::vector<double> one_of_k(vocabulary);
  one_of_k[static_cast<std::size_t>(id)] = 1;
  return one_of_k;
}

void Lane::loss(int t, const std::vector<double>& logits, LaneStep& step, Result& result) const {
  step.dlogits.assign(logits.size(), 0.0);
  if (window_.targets.empty()) return;
  const double weight = window_.weights.empty() ? 1.0 : window_.weights[position(t)];
  if (weight == 0) return;
  const TokenId target = window_.targets[position(t)];
  expect_id("a target", target, shape_.vocabulary);

  std::size_t largest = 0;
  for (std::size_t v = 1; v < logits.size(); ++v) {
    if (logits[v] > logits[largest]) largest = v;
  }
  double sum = 0;
  for (const double y : logits) sum += std::exp(y - logits[largest]);  // no overflow, whatever the logits
  const double log_sum = logits[largest] + std::log(sum);
  for (std::size_t v = 0; v < logits.size(); ++v) {
    const double softmax = std::exp(logits[v] - log_sum);
    step.dlogits[v] = window_.loss_scale * weight * (softmax - (static_cast<TokenId>(v) == target ? 1 : 0));
  }
  result.nats += weight * (log_sum - logits[static_cast<std::size_t>(target)]);
  result.weight += weight;
  if (static_cast<TokenId>(largest) == target) result.correct += weight;
}

void Lane::forward(const State& start, Result& result) {
  const auto hidden = static_cast<std::size_t>(shape_.hidden);
  const bool reset = !window_.reset.empty() && window_.reset[static_cast<std::size_t>(lane_)] != 0;
  std::vector<std::vector<double>> h(static_cast<std::size_t>(shape_.layers)), c = h;
  for (int l = 0; l < shape_.layers; ++l) {
    h[l].assign(hidden, 0.0);
    if (has_cell_state(shape_.cell)) c[l].assign(hidden, 0.0);
    for (std::size_t j = 0; j < hidden && !reset; ++j) {
      h[l][j] = start.h[state_offset(l) + j];
      if (has_cell_state(shape_.cell)) c[l][j] = start.c[state_offset(l) + j];
    }
  }

  const double* head_weight = p_.data() + layout_.head_weight().offset;
  const double* head_bias = p_.data() + layout_.head_bias().offset;
  for (int t = 0; t < window_.steps; ++t) {
    LaneStep step;
    std::vector<double> x = input(t);
    for (int l = 0; l < shape_.layers; ++l) {
      step.layers.push_back(cell_forward(shape_.cell, layer_weights(layout_, p_, l), std::move(x), h[l], c[l]));
      h[l] = step.layers.back().h;
      c[l] = step.layers.back().c;
      x = h[l];
      for (int j = 0; j < shape_.hidden; ++j) x[j] *= mask(l, t, j);
    }
    step.top = std::move(x);
    std::vector<double> logits;
    for (int v = 0; v < shape_.vocabulary; ++v) logits.push_back(row_product(head_weight, head_bias, v, step.top));
    for (std::size_t v = 0; v < logits.size(); ++v) result.logits[position(t) * logits.size() + v] = logits[v];
    loss(t, logits, step, result);
    steps_.push_back(std::move(step));
  }

  for (int l = 0; l < shape_.layers; ++l) {
    for (std::size_t j = 0; j < hidden; ++j) {
      result.state.h[state_offset(l) + j] = h[l][j];
      if (has_cell_state(shape_.cell)) result.state.c[state_offset(l) + j] = c[l][j];
    }
  }
}

void Lane::backward(std::vector<double>& gradients) const {
  const auto hidden = static_cast<std::size_t>(shape_.hidden);
  const double* head_weight = p_.data() + layout_.head_weight().offset;
  double* dhead_weight = gradients.data() + layout_.head_weight().offset;
  double* dhead_bias = gradients.data() + layout_.head_bias().offset;
  // Nothing after the window depends on its last state: truncated back-propagation.
  std::vector<std::vector<double>> dh(static_cast<std::size_t>(shape_.layers), std::vector<double>(hidden)), dc = dh;
  for (int t = window_.steps - 1; t >= 0; --t) {
    const LaneStep& step = steps_[static_cast<std::size_t>(t)];
    std::vector<double> dx(hidden);
    for (int v = 0; v < shape_.vocabulary; ++v) {
      row_backward(step.dlogits[v], head_weight, v, step.top, dhead_weight, dhead_bias, dx);
    }
    for (int l = shape_.layers - 1; l >= 0; --l) {
      for (int j = 0; j < shape_.hidden; ++j) dh[l][j] += dx[j] * mask(l, t, j);
      CellDerivatives d = cell_backward(shape_.cell, layer_weights(layout_, p_, l), step.layers[l], dh[l], dc[l],
                                        layer_gradients(layout_, gradients, l));
      dh[l] = std::move(d.dh_prev);
      dc[l] = std::move(d.dc_prev);
      dx = std::move(d.dx);
    }
  }
}

Result run(const ParameterLayout& layout, std::span<const double> parameters, const Window& window, const State& state,
           const DropoutMask& dropout, bool with_gradients) {
  const NetworkShape& shape = layout.shape();
  const std::size_t characters = static_cast<std::size_t>(window.steps) * static_cast<std::size_t>(window.batch);
  Result result;
  result.state = State::zero(shape, window.batch);
  expect_size("the parameter arena", parameters.size(), layout.arena_size());
  expect_size("h", state.h.size(), result.state.h.size());
  expect_size("c", state.c.size(), result.state.c.size());
  if (window.inputs.empty()) {
    expect_size("ids", window.ids.size(), characters);
  } else {
    expect_size("inputs", window.inputs.size(), characters * static_cast<std::size_t>(shape.vocabulary));
  }
  if (!window.targets.empty()) expect_size("targets", window.targets.size(), characters);
  if (!window.weights.empty()) expect_size("weights", window.weights.size(), characters);
  if (!window.reset.empty()) expect_size("reset", window.reset.size(), static_cast<std::size_t>(window.batch));

  result.logits.resize(characters * static_cast<std::size_t>(shape.vocabulary));
  if (with_gradients) result.gradients.resize(layout.arena_size());
  for (int lane = 0; lane < window.batch; ++lane) {
    Lane one(layout, parameters, window, dropout, lane);
    one.forward(state, result);
    if (with_gradients) one.backward(result.gradients);
  }
  return result;
}

}  // namespace

Result forward(const ParameterLayout& layout, std::span<const double> parameters, const Window& window,
               const State& state, const DropoutMask& dropout) {
  return run(layout, parameters, window, state, dropout, false);
}

Result forward_backward(const ParameterLayout& layout, std::span<const double> parameters, const Window& window,
                        const State& state, const DropoutMask& dropout) {
  return run(layout, parameters, window, state, dropout, true);
}

std::vector<double> central_differences(const std::function<double(std::span<const double>)>& f,
                                        std::span<const double> x, double step) {
  std::vector<double> at(x.begin(), x.end()), gradient(x.size());
  for (std::size_t k = 0; k < x.size(); ++k) {
    at[k] = x[k] + step;
    const double above = f(at);
    at[k] = x[k] - step;
    const double below = f(at);
    at[k] = x[k];
    gradient[k] = (above - below) / (2 * step);
  }
  return gradient;
}

std::vector<double> numeric_gradients(const ParameterLayout& layout, std::span<const double> parameters,
                                      const Window& window, const State& state, const DropoutMask& dropout,
                                      double step) {
  // Only the tensors' elements: at small sizes half of an arena is padding.
  std::vector<std::size_t> places;
  for (const ParameterTensor& t : layout.tensors()) {
    for (std::size_t k = 0; k < t.count(); ++k) places.push_back(t.offset + k);
  }
  std::vector<double> arena(parameters.begin(), parameters.end()), x;
  for (const std::size_t place : places) x.push_back(arena[place]);
  const auto loss = [&](std::span<const double> at) {
    for (std::size_t k = 0; k < places.size(); ++k) arena[places[k]] = at[k];
    return window.loss_scale * forward(layout, arena, window, state, dropout).nats;
  };
  const std::vector<double> derivatives = central_differences(loss, x, step);
  std::vector<double> gradients(arena.size());
  for (std::size_t k = 0; k < places.size(); ++k) gradients[places[k]] = derivatives[k];
  return gradients;
}

}  // namespace charrnn::reference
