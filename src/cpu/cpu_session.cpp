#include "cpu/cpu_session.h"

#include <algorithm>
#include <cmath>

#include "backend/draw.h"
#include "backend/window_check.h"
#include "kernels/philox.h"

namespace charrnn::cpu {

template <class E>
CpuSession<E>::CpuSession(CpuNetwork& network, const SessionShape& shape) : network_(network), shape_(shape) {
  const int parts = std::min(network.pool().size(), shape.batch);
  for (int part = 0; part < parts; ++part) slices_.emplace_back(network, shape, split_range(shape.batch, part, parts));
  losses_.resize(slices_.size());
  if (shape.training) weight_gradients_.emplace(network);
}

template <class E>
std::size_t CpuSession<E>::memory_bytes(const NetworkShape& n, const SessionShape& s, int threads) {
  const int parts = std::min(threads, s.batch);
  std::size_t bytes = s.training ? WeightGradients<E>::memory_bytes(n) : 0;
  for (int part = 0; part < parts; ++part) {
    bytes += Slice<E>::memory_bytes(n, s, split_range(s.batch, part, parts).size());
  }
  return bytes;
}

/// work(slice, its loss) on a thread each.
template <class E>
template <class Work>
void CpuSession<E>::run_slices(const Work& work) {
  network_.pool().run(static_cast<int>(slices_.size()), [&](int worker) {
    const auto i = static_cast<std::size_t>(worker);
    work(slices_[i], losses_[i]);
  });
}

template <class E>
WindowLoss CpuSession<E>::loss() const {
  WindowLoss sum;
  for (const WindowLoss& loss : losses_) sum += loss;
  return sum;
}

template <class E>
void CpuSession<E>::reset() {
  for (Slice<E>& s : slices_) s.zero_state();
}

template <class E>
void CpuSession<E>::get_state(std::span<float> h, std::span<float> c) {
  check_state(network_.shape(), shape_.batch, h.size(), c.size());
  for (const Slice<E>& s : slices_) s.get_state(h, c);
}

template <class E>
void CpuSession<E>::set_state(std::span<const float> h, std::span<const float> c) {
  check_state(network_.shape(), shape_.batch, h.size(), c.size());
  for (Slice<E>& s : slices_) s.set_state(h, c);
}

template <class E>
void CpuSession<E>::forward(const Window& window, std::span<float> logits) {
  check_window(window, shape_, network_.shape().vocabulary, false);
  const std::int64_t wanted = std::int64_t{window.steps} * window.batch * network_.shape().vocabulary;
  if (!logits.empty() && static_cast<std::int64_t>(logits.size()) != wanted) {
    throw ShapeError("Session::forward: logits must be [T,B,V] or empty");
  }
  network_.refresh();
  run_slices([&](Slice<E>& s, WindowLoss&) {
    s.start(window.reset);
    s.forward(window.steps, {window.ids, {}}, {});
    if (!logits.empty()) {
      s.head(window.steps);
      s.copy_logits(window.steps, logits);
    }
    s.finish(window.steps);
  });
}

template <class E>
void CpuSession<E>::forward_dense(int steps, std::span<const float> x, std::span<float> logits) {
  const auto expected = static_cast<std::size_t>(std::int64_t{steps} * shape_.batch * network_.shape().vocabulary);
  if (steps < 1 || steps > shape_.max_steps || x.size() != expected || logits.size() != expected) {
    throw ShapeError("Session::forward_dense: x and logits must be [T,B,V]");
  }
  network_.refresh();
  run_slices([&](Slice<E>& s, WindowLoss&) {
    s.forward(steps, {{}, x}, {});
    s.head(steps);
    s.copy_logits(steps, logits);
    s.finish(steps);
  });
}

template <class E>
WindowLoss CpuSession<E>::evaluate(const Window& window) {
  check_window(window, shape_, network_.shape().vocabulary, true);
  network_.refresh();
  run_slices([&](Slice<E>& s, WindowLoss& loss) {
    s.start(window.reset);
    s.forward(window.steps, {window.ids, {}}, {});
    s.head(window.steps);
    loss = s.loss(window, false);
    s.finish(window.steps);
  });
  return loss();
}

template <class E>
WindowLoss CpuSession<E>::gradients(const Window& window, const DropoutKey& dropout) {
  if (!shape_.training) throw ShapeError("Session::gradients: the session was not opened for training");
  check_window(window, shape_, network_.shape().vocabulary, true);
  network_.refresh();
  run_slices([&](Slice<E>& s, WindowLoss& loss) {
    s.start(window.reset);
    s.forward(window.steps, {window.ids, {}}, dropout);
    s.head(window.steps);
    loss = s.loss(window, true);
    s.backward(window.steps);
  });
  weight_gradients_->sum(slices_, window);
  for (Slice<E>& s : slices_) s.finish(window.steps);
  return loss();
}

template <class E>
void CpuSession<E>::submit_step(const Window& window, const DropoutKey& dropout, const UpdateSettings& settings) {
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

template <class E>
StepResult CpuSession<E>::next_result() {
  if (results_.empty()) throw ShapeError("Session::next_result: no step was submitted");
  const StepResult result = results_.front();
  results_.erase(results_.begin());
  return result;
}

template <class E>
bool CpuSession<E>::generate(int steps, std::span<const TokenId> ids, const DrawSettings& settings,
                             std::span<TokenId> drawn) {
  const auto batch = static_cast<std::size_t>(shape_.batch);
  if (steps < 1 || drawn.size() != static_cast<std::size_t>(steps) * batch) {
    throw ShapeError("Session::generate: drawn must be [steps,B]");
  }
  check_window({.steps = 1, .batch = shape_.batch, .ids = ids}, shape_, network_.shape().vocabulary, false);
  if (shape_.batch == 1) {
    generate_one(ids.front(), settings, drawn);
    return true;
  }
  network_.refresh();
  run_slices([&](Slice<E>& s, WindowLoss&) { generate_slice(s, steps, ids, settings, drawn); });
  return true;
}

/// One lane has nothing to multiply matrices with: all threads work on its characters together.
template <class E>
void CpuSession<E>::generate_one(TokenId first, const DrawSettings& settings, std::span<TokenId> drawn) {
  const NetworkShape& n = network_.shape();
  lane_h_.resize(static_cast<std::size_t>(n.layers) * static_cast<std::size_t>(n.hidden));
  if (has_cell_state(n.cell)) lane_c_.resize(lane_h_.size());
  LaneSampler& sampler = network_.lane_sampler();
  get_state(lane_h_, lane_c_);
  sampler.run({.first = first,
               .stream = settings.first_stream,
               .draws = &settings,
               .h = lane_h_,
               .c = lane_c_,
               .drawn = drawn});
  set_state(lane_h_, lane_c_);
}

template <class E>
void CpuSession<E>::generate_slice(Slice<E>& slice, int steps, std::span<const TokenId> ids,
                                   const DrawSettings& settings, std::span<TokenId> drawn) {
  const auto B = static_cast<std::size_t>(shape_.batch);
  DrawScratch scratch(network_.shape().vocabulary);
  for (int t = 0; t < steps; ++t) {
    const auto now = static_cast<std::size_t>(t);
    slice.forward(1, {t == 0 ? ids : drawn.subspan((now - 1) * B, B), {}}, {});
    slice.head(1);
    for (int lane = 0; lane < slice.lanes(); ++lane) {
      const auto b = static_cast<std::size_t>(slice.first() + lane);
      const double random = stream_uniform(settings.seed, settings.first_stream + b * settings.stream_step,
                                           static_cast<std::uint64_t>(settings.first_draw + t));
      drawn[now * B + b] = draw_character(slice.logits(0, lane), settings, random, scratch);
    }
    slice.finish(1);
  }
}

template class CpuSession<float>;
template class CpuSession<Bf16>;

}  // namespace charrnn::cpu
