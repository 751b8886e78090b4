#include "cuda/cuda_session.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <string>

#include "backend/window_check.h"
#include "cuda/ranges.h"
#include "cuda/text_scan.h"
#include "kernels/cell_steps.h"
#include "kernels/column_sums.h"
#include "kernels/philox.h"

namespace charrnn::cuda {

namespace {

constexpr std::size_t kRing = 2 * kStepsInFlight;
constexpr int kDrawnAtOnce = 256;
/// A text may take up to this share of the memory that is free once the session is there: the rest is for validation.
constexpr std::size_t kTextShare = 2;

ArrivalLayout arrival_layout(const SessionShape& s) {
  return {static_cast<std::size_t>(s.max_steps) * static_cast<std::size_t>(s.batch), static_cast<std::size_t>(s.batch)};
}

DropoutStep dropout_step(const DropoutKey& key) {
  DropoutStep step;
  step.step = key.step;  // counted up by the device without dropout too
  if (key.probability <= 0) return step;
  step.seed = key.seed;
  step.bound = dropout_bound(key.probability);
  step.first_lane = static_cast<std::uint32_t>(key.first_lane);
  step.scale = 1.0F / (1.0F - key.probability);
  return step;
}

/// Numbers of the device's type as floats, and back; on the host.
void decode(const std::byte* from, Element element, float* to, std::size_t count) {
  with_element(element, [&](auto real) {
    const auto* const values = reinterpret_cast<const decltype(real)*>(from);
    for (std::size_t i = 0; i < count; ++i) to[i] = to_float(values[i]);
  });
}
void encode(const float* from, Element element, std::byte* to, std::size_t count) {
  with_element(element, [&](auto real) {
    auto* const values = reinterpret_cast<decltype(real)*>(to);
    for (std::size_t i = 0; i < count; ++i) values[i] = from_float<decltype(real)>(from[i]);
  });
}

/// One step forward and back through each layer, over zeros: cuDNN may accept a description and refuse to run it.
void try_out(Recurrence& recurrence, CudaNetwork& network, int lanes, bool training) {
  const auto n = static_cast<std::size_t>(lanes), hidden = static_cast<std::size_t>(network.shape().hidden);
  const std::size_t size = size_of(network.format().element);
  const auto stride = static_cast<std::size_t>(one_hot_stride(network.shape().vocabulary));
  DeviceBuffer<std::byte> h(2 * n * hidden * size, "a trial"), one_hot(n * stride * size, "a trial");
  DeviceBuffer<std::byte> x(n * hidden * size, "a trial"), dy(n * hidden * size, "a trial");
  DeviceBuffer<std::byte> dx(n * hidden * size, "a trial");
  DeviceBuffer<float> c(2 * n * hidden, "a trial");
  for (DeviceBuffer<std::byte>* buffer : {&h, &one_hot, &x, &dy}) buffer->zero(network.stream());
  c.zero(network.stream());
  recurrence.refresh();
  for (int layer = 0; layer < network.shape().layers; ++layer) {
    LayerWindow w;
    w.layer = layer;
    w.steps = 1;
    w.keep = training;
    w.track = &network.track(0);
    w.one_hot = one_hot.data();
    w.x = layer == 0 ? nullptr : x.data();
    w.h = h.data();
    w.c = has_cell_state(network.shape().cell) ? c.data() : nullptr;
    w.dy = dy.data();
    w.dx = layer == 0 ? nullptr : dx.data();
    recurrence.forward(w, {0, 1});
    if (training) recurrence.backward(w, {0, 1});
  }
  network.device().stream.wait();
}

/// The recurrence that was asked for, or the fused one with a note where cuDNN cannot be had.
std::unique_ptr<Recurrence> make_recurrence(CudaNetwork& network, const SessionShape& session, int& lanes) {
  std::string why;
  if (wants_cudnn(network, &why)) {
    try {
      lanes = cudnn_lanes(network, session.batch);
      auto made = make_cudnn_recurrence(network, {lanes, session.max_steps, session.training});
      try_out(*made, network, lanes, session.training);
      return made;
    } catch (const OutOfMemory&) {
      throw;  // the fused one takes memory, too: fewer lanes are the way out
    } catch (const DeviceError& e) {
      why = e.what();
    }
  }
  network.note_fallback(why);
  lanes = session.batch;
  return make_fused_recurrence(network, {lanes, session.max_steps, session.training});
}

}  // namespace

CudaSession::CudaSession(CudaNetwork& network, const SessionShape& shape)
    : network_(network), shape_(shape), element_(network.format().element) {
  recurrence_ = make_recurrence(network, shape, lanes_);
  for (int steps = 1; steps <= shape.max_steps; ++steps) most_parts_ = std::max(most_parts_, recurrence_->parts(steps));
  if (most_parts_ > 1) tracks_ = std::min(network.shape().layers, kMostTracks);
  for (int l = 0; l < tracks_; ++l) network.track(l);  // made now, since a capture may not
  if (tracks_ > 1) events_.resize(static_cast<std::size_t>(network.shape().layers * most_parts_));
  joined_.resize(static_cast<std::size_t>(tracks_));
  const NetworkShape& n = network.shape();
  const auto T = static_cast<std::size_t>(shape.max_steps), lanes = static_cast<std::size_t>(lanes_);
  const auto H = static_cast<std::size_t>(n.hidden), layers = static_cast<std::size_t>(n.layers);
  const std::size_t rows = T * lanes, size = size_of(element_);
  const std::size_t V = static_cast<std::size_t>(n.vocabulary);
  const auto stride = static_cast<std::size_t>(one_hot_stride(n.vocabulary));

  h_ = DeviceBuffer<std::byte>(layers * (T + 1) * lanes * H * size, "hidden states");
  h_.zero(network.stream());
  if (has_cell_state(n.cell)) {
    c_ = DeviceBuffer<float>(layers * (T + 1) * lanes * H, "cells");
    c_.zero(network.stream());
  }
  logits_ = DeviceBuffer<float>(rows * stride, "logits");
  losses_ = DeviceBuffer<RowLoss>(rows, "losses");
  sums_ = DeviceBuffer<WindowSums>(1, "sums of losses");
  inputs_ = DeviceBuffer<StepInputs>(1, "the inputs of a step");
  ids_ = DeviceBuffer<DeviceId>(rows, "characters");
  targets_ = DeviceBuffer<DeviceId>(rows, "characters");
  weights_ = DeviceBuffer<float>(rows, "weights of losses");
  reset_ = DeviceBuffer<std::uint8_t>(lanes, "resets");
  loss_scale_ = DeviceBuffer<float>(1, "the scale of losses");
  window_ = {ids_.data(), targets_.data(), weights_.data(), reset_.data(), loss_scale_.data()};
  for (Arrival& a : arrivals_) {
    a.host = PinnedBuffer<std::byte>(arrival_layout(shape).bytes(), "windows");
    std::fill_n(a.host.data(), a.host.size(), std::byte{0});  // all of it is copied, of short windows too
    a.device = DeviceBuffer<std::byte>(arrival_layout(shape).bytes(), "windows");
  }
  if (shape.training || recurrence_->wants_one_hot()) {
    one_hot_ = DeviceBuffer<std::byte>(rows * stride * size, "1-of-k vectors");
  }
  if (!shape.training) return;
  for (std::size_t l = 0; l < layers; ++l) dropped_.emplace_back(rows * H * size, "what dropout leaves of a layer");
  dlogits_ = DeviceBuffer<std::byte>(rows * stride * size, "gradients of logits");
  for (std::size_t l = 0; l < layers; ++l) dy_.emplace_back(rows * H * size, "gradients of hidden states");
  partial_ = DeviceBuffer<float>(static_cast<std::size_t>(sum_chunks(static_cast<std::int64_t>(rows))) * V,
                                 "gradients of the head's bias");
  ring_ = PinnedBuffer<StepRecord>(kRing, "results of steps");
  for (std::size_t i = 0; i < kRing; ++i) {
    begun_.emplace_back(Event::Kind::kTimed);
    done_.emplace_back(Event::Kind::kTimed);
  }
}

CudaSession::~CudaSession() {
  static_cast<void>(cudaStreamSynchronize(network_.stream()));  // its memory may still be in use
  static_cast<void>(cudaStreamSynchronize(network_.device().copies.get()));
}

std::size_t CudaSession::memory_bytes(const NetworkShape& n, Precision precision, const SessionShape& s) {
  const std::size_t T = static_cast<std::size_t>(s.max_steps), B = static_cast<std::size_t>(s.batch);
  const std::size_t H = static_cast<std::size_t>(n.hidden), V = static_cast<std::size_t>(one_hot_stride(n.vocabulary));
  const std::size_t layers = static_cast<std::size_t>(n.layers), rows = T * B,
                    size = size_of(format_of(precision).element);
  const auto W = static_cast<std::size_t>(gate_blocks(n.cell, n.hidden).width);
  std::size_t bytes = layers * (T + 1) * B * H * (size + (has_cell_state(n.cell) ? sizeof(float) : 0));
  bytes += rows * (V * sizeof(float) + sizeof(RowLoss) + 4 * sizeof(DeviceId) + sizeof(float));
  bytes += layers * B * W * sizeof(float) + (layers > 1 ? rows * W * sizeof(float) : 0);
  bytes += (std::min<std::size_t>(layers, kMostTracks) - 1) * Products::kWorkspaceBytes;
  if (s.training) bytes += layers * (rows * (W + 2 * H) * size + 2 * B * H * sizeof(float)) + rows * 2 * V * size;
  return bytes;
}

// Layout of memory
// -----------------------------------------------------------------------------------------------------

void* CudaSession::h(int layer, std::int64_t at_slot) const {
  return h_.data() + state_layout().at(layer, at_slot) * static_cast<std::int64_t>(size_of(element_));
}

float* CudaSession::c(int layer) const { return c_.size() == 0 ? nullptr : c_.data() + state_layout().at(layer, 0); }

LaneStates CudaSession::states() const {
  return {.h = h_.data(),
          .c = c_.data(),
          .element = element_,
          .layers = network_.shape().layers,
          .lanes = lanes_,
          .hidden = network_.shape().hidden,
          .layer_stride = state_layout().layer_stride()};
}

const void* CudaSession::output(int layer, bool dropout) const {
  return dropout ? dropped_[static_cast<std::size_t>(layer)].data() : h(layer, 1);
}

ArrivedWindow CudaSession::arrived(std::byte* base) const {
  const ArrivalLayout at = arrival_layout(shape_);
  return {.ids = reinterpret_cast<DeviceId*>(base + at.ids()),
          .targets = reinterpret_cast<DeviceId*>(base + at.targets()),
          .weights = reinterpret_cast<float*>(base + at.weights()),
          .reset = reinterpret_cast<std::uint8_t*>(base + at.reset()),
          .loss_scale = reinterpret_cast<float*>(base + at.loss_scale())};
}

// States
// ---------------------------------------------------------------------------------------------------------------

void CudaSession::reset() {
  network_.device().use();
  const std::size_t count = static_cast<std::size_t>(slot());
  for (int l = 0; l < network_.shape().layers; ++l) {
    check(cudaMemsetAsync(h(l, 0), 0, count * size_of(element_), network_.stream()), "cudaMemsetAsync");
    if (c(l) == nullptr) continue;
    check(cudaMemsetAsync(c(l), 0, count * sizeof(float), network_.stream()), "cudaMemsetAsync");
  }
}

void CudaSession::get_state(std::span<float> to_h, std::span<float> to_c) {
  network_.device().use();
  check_state(network_.shape(), shape_.batch, to_h.size(), to_c.size());
  network_.device().stream.wait();
  const auto count = static_cast<std::size_t>(shape_.batch) * static_cast<std::size_t>(network_.shape().hidden);
  std::vector<std::byte> raw(count * size_of(element_));
  for (int l = 0; l < network_.shape().layers; ++l) {
    const std::size_t at = static_cast<std::size_t>(l) * count;
    copy_to_host(raw.data(), h(l, 0), raw.size());
    decode(raw.data(), element_, to_h.data() + at, count);
    if (c(l) != nullptr) copy_to_host(to_c.data() + at, c(l), count * sizeof(float));
  }
}

void CudaSession::set_state(std::span<const float> from_h, std::span<const float> from_c) {
  network_.device().use();
  check_state(network_.shape(), shape_.batch, from_h.size(), from_c.size());
  reset();  // the padding
  network_.device().stream.wait();
  const auto count = static_cast<std::size_t>(shape_.batch) * static_cast<std::size_t>(network_.shape().hidden);
  std::vector<std::byte> raw(count * size_of(element_));
  for (int l = 0; l < network_.shape().layers; ++l) {
    const std::size_t at = static_cast<std::size_t>(l) * count;
    encode(from_h.data() + at, element_, raw.data(), count);
    copy_to_device(h(l, 0), raw.data(), raw.size());
    if (c(l) != nullptr) copy_to_device(c(l), from_c.data() + at, count * sizeof(float));
  }
}

// Windows
// --------------------------------------------------------------------------------------------------------------

void CudaSession::send(const Window& w, Arrival& to) {
  to.copied.wait();  // until the pinned memory has been read, two windows ago
  const ArrivedWindow host = arrived(to.host.data());
  const std::size_t count = w.ids.size();
  for (std::size_t i = 0; i < count; ++i) {
    host.ids[i] = static_cast<DeviceId>(w.ids[i]);
    const float weight = w.targets.empty() ? 0.0F : w.weights.empty() ? 1.0F : w.weights[i];
    host.weights[i] = weight;
    host.targets[i] = weight == 0.0F ? kNoId : static_cast<DeviceId>(w.targets[i]);
  }
  for (std::size_t b = 0; b < static_cast<std::size_t>(shape_.batch); ++b) {
    host.reset[b] = w.reset.empty() ? std::uint8_t{0} : w.reset[b];
  }
  *host.loss_scale = w.loss_scale;
  auto* const copies = network_.device().copies.get();
  to.taken.hold(copies);
  check(cudaMemcpyAsync(to.device.data(), to.host.data(), to.device.bytes(), cudaMemcpyHostToDevice, copies),
        "cudaMemcpyAsync");
  to.copied.record(copies);
  to.copied.hold(network_.stream());
}

void CudaSession::take(const Window& w) {
  Arrival& arrival = arrivals_[0];
  send(w, arrival);
  const ArrivedWindow slot = arrived(arrival.device.data());
  take_window({slot, slot}, nullptr, {w.steps, shape_.batch, lanes_}, window_, network_.stream());
  arrival.taken.record(network_.stream());
}

// Work on the stream
// ---------------------------------------------------------------------------------------------------

std::vector<Part> CudaSession::parts_of(const Pass& pass) const {
  const int count = recurrence_->parts(pass.steps);
  std::vector<Part> parts;
  for (int i = 0; i < count; ++i) {
    const int first = static_cast<int>(std::int64_t{pass.steps} * i / count);
    parts.push_back({first, static_cast<int>(std::int64_t{pass.steps} * (i + 1) / count) - first});
  }
  return parts;
}

/// Layers' streams wait for the session's own ...
void CudaSession::fork(const Pass& pass) {
  if (!side_by_side(pass)) return;
  forked_.record(network_.stream());
  for (int i = 1; i < tracks_; ++i) forked_.hold(network_.track(i).stream);
}

/// ... and it for them.
void CudaSession::join(const Pass& pass) {
  if (!side_by_side(pass)) return;
  for (int i = 1; i < tracks_; ++i) {
    const Event& joined = joined_[static_cast<std::size_t>(i)];
    joined.record(network_.track(i).stream);
    joined.hold(network_.stream());
  }
}

LayerWindow CudaSession::layer_window(int layer, const Pass& pass) {
  LayerWindow w;
  w.layer = layer;
  w.steps = pass.steps;
  w.keep = pass.keep;
  w.track = &track_of(layer, pass);
  if (layer == 0) {
    w.ids = pass.dense ? nullptr : window_.ids;
    w.one_hot = one_hot_.data();
  } else {
    w.x = output(layer - 1, pass.dropout);
  }
  w.h = h(layer, 0);
  w.c = c(layer);
  if (pass.keep) {
    w.dy = dy_[static_cast<std::size_t>(layer)].data();
    w.dx = layer == 0 ? nullptr : dy_[static_cast<std::size_t>(layer) - 1].data();
  }
  return w;
}

void CudaSession::drop_out_part(int layer, const Pass& pass, const Part& part, const void* x, void* y) {
  const std::int64_t at = part.first * slot() * static_cast<std::int64_t>(size_of(element_));
  drop_out({.element = element_,
            .first = part.first,
            .steps = part.steps,
            .lanes = lanes_,
            .hidden = network_.shape().hidden,
            .layer = layer,
            .x = static_cast<const std::byte*>(x) + at,
            .y = static_cast<std::byte*>(y) + at,
            .step = &inputs_.data()->dropout},
           track_of(layer, pass).stream);
}

void CudaSession::enqueue_forward(const Pass& pass) {
  const Range range("forward");
  const int vocabulary = network_.shape().vocabulary;
  if (!pass.dense && (pass.keep || recurrence_->wants_one_hot())) {
    one_hot(window_.ids, std::int64_t{pass.steps} * lanes_, one_hot_stride(vocabulary), one_hot_.data(), element_,
            network_.stream());
  }
  fork(pass);
  const std::vector<Part> parts = parts_of(pass);
  const bool beside = side_by_side(pass);
  for (int p = 0; p < static_cast<int>(parts.size()); ++p) {
    const Part& part = parts[static_cast<std::size_t>(p)];
    for (int l = 0; l < network_.shape().layers; ++l) {
      const Range layer_range("layer");
      if (beside && l > 0) event(l - 1, p).hold(track_of(l, pass).stream);
      recurrence_->forward(layer_window(l, pass), part);
      if (pass.dropout) drop_out_part(l, pass, part, h(l, 1), dropped_[static_cast<std::size_t>(l)].data());
      if (beside) event(l, p).record(track_of(l, pass).stream);
    }
  }
  join(pass);
}

void CudaSession::enqueue_head(const Pass& pass) {
  const Range range("head");
  const NetworkShape& n = network_.shape();
  const Matrix top{output(n.layers - 1, pass.dropout), element_, std::int64_t{pass.steps} * lanes_, n.hidden, n.hidden};
  const Matrix weight{
      network_.weight(network_.layout().head_weight()), element_, n.vocabulary, n.hidden, n.hidden, true};
  network_.products().run({.a = top, .b = weight, .to = logits_.data(), .stride = one_hot_stride(n.vocabulary)},
                          network_.stream());
}

void CudaSession::enqueue_loss(const Pass& pass) {
  const Range range("loss");
  const NetworkShape& n = network_.shape();
  const std::int64_t rows = std::int64_t{pass.steps} * lanes_;
  softmax_xent({.element = element_,
                .rows = rows,
                .vocabulary = n.vocabulary,
                .stride = one_hot_stride(n.vocabulary),
                .logits = logits_.data(),
                .bias = network_.parameter(network_.layout().head_bias()),
                .targets = window_.targets,
                .weights = window_.weights,
                .loss_scale = window_.loss_scale,
                .update_state = network_.device_update_state(),
                .dlogits = pass.keep ? dlogits_.data() : nullptr,
                .losses = losses_.data()},
               network_.stream());
  sum_losses(losses_.data(), rows, sums_.data(), network_.stream());
}

void CudaSession::enqueue_backward(const Pass& pass) {
  const Range range("backward");
  const NetworkShape& n = network_.shape();
  const ParameterLayout& layout = network_.layout();
  const std::int64_t rows = std::int64_t{pass.steps} * lanes_, stride = one_hot_stride(n.vocabulary);
  const Matrix dlogits{dlogits_.data(), element_, rows, n.vocabulary, stride};
  Matrix dlogits_transposed = dlogits;
  dlogits_transposed.transposed = true;
  const Matrix top{output(n.layers - 1, pass.dropout), element_, rows, n.hidden, n.hidden};
  const Matrix weight{network_.weight(layout.head_weight()), element_, n.vocabulary, n.hidden, n.hidden};
  network_.products().run(
      {.a = dlogits_transposed, .b = top, .to = network_.gradient(layout.head_weight()), .stride = n.hidden},
      network_.stream());
  column_sums({.element = element_,
               .from = dlogits_.data(),
               .rows = rows,
               .columns = n.vocabulary,
               .stride = static_cast<int>(stride),
               .partial = partial_.data(),
               .targets = {{network_.gradient(layout.head_bias()), 0, n.vocabulary}}},
              network_.stream());
  network_.products().run({.a = dlogits, .b = weight, .to = dy_.back().data(), .element = element_, .stride = n.hidden},
                          network_.stream());
  fork(pass);
  const std::vector<Part> parts = parts_of(pass);
  const bool beside = side_by_side(pass);
  for (int p = static_cast<int>(parts.size()) - 1; p >= 0; --p) {
    const Part& part = parts[static_cast<std::size_t>(p)];
    for (int l = n.layers - 1; l >= 0; --l) {
      const Range layer_range("layer");
      if (l < n.layers - 1) {
        if (beside) event(l + 1, p).hold(track_of(l, pass).stream);
        recurrence_->input_gradient(layer_window(l + 1, pass), part, track_of(l, pass));
      }
      void* const dy = dy_[static_cast<std::size_t>(l)].data();
      if (pass.dropout) drop_out_part(l, pass, part, dy, dy);
      recurrence_->backward(layer_window(l, pass), part);
      if (beside) event(l, p).record(track_of(l, pass).stream);
    }
  }
  for (int l = n.layers - 1; l >= 0; --l) recurrence_->weight_gradients(layer_window(l, pass));
  join(pass);
}

void CudaSession::refresh() {
  network_.refresh();
  recurrence_->refresh();
}

WindowLoss CudaSession::read_sums() {
  network_.device().stream.wait();
  WindowSums sums{};
  copy_to_host(&sums, sums_.data(), sizeof(sums));
  return {sums.nats, sums.weight, sums.correct};
}

void CudaSession::read_logits(int steps, std::span<float> to) {
  const int V = network_.shape().vocabulary;
  const auto row = static_cast<std::size_t>(V);
  const std::size_t lanes = static_cast<std::size_t>(lanes_), batch = static_cast<std::size_t>(shape_.batch);
  if (full_logits_.size() == 0) {
    full_logits_ = DeviceBuffer<float>(static_cast<std::size_t>(shape_.max_steps) * lanes * row, "logits for the host");
  }
  add_bias(logits_.data(), network_.parameter(network_.layout().head_bias()), std::int64_t{steps} * lanes_, V,
           one_hot_stride(V), full_logits_.data(), network_.stream());
  network_.device().stream.wait();
  for (std::size_t t = 0; t < static_cast<std::size_t>(steps); ++t) {  // without the padding
    copy_to_host(to.data() + t * batch * row, full_logits_.data() + t * lanes * row, batch * row * sizeof(float));
  }
}

// Operations that wait
// -------------------------------------------------------------------------------------------------

void CudaSession::forward(const Window& window, std::span<float> logits) {
  network_.device().use();
  check_window(window, shape_, network_.shape().vocabulary, false);
  check_logits(window.steps, logits.size(), true);
  refresh();
  take(window);
  start_lanes(states(), window_.reset, network_.stream());
  const Pass pass{.steps = window.steps};
  enqueue_forward(pass);
  if (!logits.empty()) {
    enqueue_head(pass);
    read_logits(window.steps, logits);
  }
  finish_lanes(states(), window.steps, nullptr, network_.stream());
  network_.device().stream.wait();
}

void CudaSession::forward_dense(int steps, std::span<const float> x, std::span<float> logits) {
  network_.device().use();
  if (steps < 1 || steps > shape_.max_steps)
    throw ShapeError("Session::forward_dense: steps are outside the session's");
  check_logits(steps, x.size(), false);
  check_logits(steps, logits.size(), false);
  refresh();
  const auto V = static_cast<std::size_t>(network_.shape().vocabulary);
  const auto stride = static_cast<std::size_t>(one_hot_stride(network_.shape().vocabulary));
  const std::size_t lanes = static_cast<std::size_t>(lanes_), batch = static_cast<std::size_t>(shape_.batch);
  std::vector<float> padded(static_cast<std::size_t>(steps) * lanes * stride, 0.0F);
  for (std::size_t t = 0; t < static_cast<std::size_t>(steps); ++t) {
    for (std::size_t b = 0; b < batch; ++b) std::copy_n(&x[(t * batch + b) * V], V, &padded[(t * lanes + b) * stride]);
  }
  std::vector<std::byte> raw(padded.size() * size_of(element_));
  encode(padded.data(), element_, raw.data(), padded.size());
  network_.device().stream.wait();
  if (one_hot_.size() == 0) {
    one_hot_ = DeviceBuffer<std::byte>(static_cast<std::size_t>(shape_.max_steps) * lanes * stride * size_of(element_),
                                       "input vectors");
  }
  copy_to_device(one_hot_.data(), raw.data(), raw.size());
  const Pass pass{.steps = steps, .dense = true};
  enqueue_forward(pass);
  enqueue_head(pass);
  read_logits(steps, logits);
  finish_lanes(states(), steps, nullptr, network_.stream());
  network_.device().stream.wait();
}

WindowLoss CudaSession::evaluate(const Window& window) {
  network_.device().use();
  check_window(window, shape_, network_.shape().vocabulary, true);
  refresh();
  take(window);
  start_lanes(states(), window_.reset, network_.stream());
  const Pass pass{.steps = window.steps};
  enqueue_forward(pass);
  enqueue_head(pass);
  enqueue_loss(pass);
  finish_lanes(states(), window.steps, nullptr, network_.stream());
  return read_sums();
}

WindowLoss CudaSession::gradients(const Window& window, const DropoutKey& dropout) {
  network_.device().use();
  if (!shape_.training) throw ShapeError("Session::gradients: the session was not opened for training");
  check_window(window, shape_, network_.shape().vocabulary, true);
  refresh();
  take(window);
  expected_.reset();
  StepInputs inputs;
  inputs.dropout = dropout_step(dropout);
  inputs.slot = next_slot_;
  write_inputs(inputs, inputs_.data(), network_.stream());
  start_lanes(states(), window_.reset, network_.stream());
  const Pass pass{.steps = window.steps, .keep = true, .dropout = dropout.probability > 0};
  enqueue_forward(pass);
  enqueue_head(pass);
  enqueue_loss(pass);
  enqueue_backward(pass);
  network_.unscale_gradients();
  finish_lanes(states(), window.steps, nullptr, network_.stream());
  return read_sums();
}

void CudaSession::check_logits(int steps, std::size_t size, bool may_be_empty) const {
  const std::size_t expected = static_cast<std::size_t>(steps) * static_cast<std::size_t>(shape_.batch) *
                               static_cast<std::size_t>(network_.shape().vocabulary);
  if (size == expected || (may_be_empty && size == 0)) return;
  throw ShapeError("Session: vectors and logits must be [T,B,V]; " + std::to_string(size) + " numbers were given, " +
                   std::to_string(expected) + " expected");
}

// The training step
// ----------------------------------------------------------------------------------------------------

void CudaSession::submit_step(const Window& window, const DropoutKey& dropout, const UpdateSettings& settings) {
  network_.device().use();
  if (!shape_.training) throw ShapeError("Session::submit_step: the session was not opened for training");
  check_window(window, shape_, network_.shape().vocabulary, true);
  network_.refresh();
  Arrival& arrival = arrivals_[next_slot_ % 2];
  send(window, arrival);
  run_step({window.steps, dropout.probability > 0, false, settings.optimizer.name},
           {.dropout = dropout_step(dropout), .rule = rule_of(settings), .slot = next_slot_});
  arrival.taken.record(network_.stream());
}

bool CudaSession::hold_text(const TextWindows& w) {
  network_.device().use();
  if (w.batch != shape_.batch || w.steps < 1 || w.steps > shape_.max_steps || w.ids_of_bytes.size() != 256 ||
      w.windows_per_epoch < 1) {
    throw ShapeError("Session::hold_text: the windows do not fit the session");
  }
  const std::int64_t last = (w.batch - 1) * w.stride + w.windows_per_epoch * w.steps;
  if (last >= static_cast<std::int64_t>(w.text.size())) throw ShapeError("Session::hold_text: the text is too short");
  const std::size_t free_bytes = free_memory();
  if (!text_may_be_held()) return false;
  if (w.text.size() > free_bytes / kTextShare || w.text.size() + network_.reserve_bytes(shape_.batch) > free_bytes)
    return false;

  HeldText held;
  held.text = DeviceBuffer<std::uint8_t>(w.text.size(), "the text");
  held.ids_of_bytes = DeviceBuffer<DeviceId>(256, "the vocabulary");
  held.stride = w.stride;
  held.windows_per_epoch = w.windows_per_epoch;
  held.steps = w.steps;
  std::array<DeviceId, 256> ids{};
  std::transform(w.ids_of_bytes.begin(), w.ids_of_bytes.end(), ids.begin(),
                 [](TokenId id) { return id < 0 ? kNoId : static_cast<DeviceId>(id); });
  copy_to_device(held.ids_of_bytes.data(), ids.data(), ids.size() * sizeof(DeviceId));
  copy_to_device(held.text.data(), w.text.data(), w.text.size());
  const std::int64_t unknown =
      first_unknown(held.text.data(), static_cast<std::int64_t>(w.text.size()), held.ids_of_bytes.data());
  if (unknown >= 0) {
    throw DataError("the text has the byte " +
                    std::to_string(static_cast<unsigned char>(w.text[static_cast<std::size_t>(unknown)])) +
                    " at offset " + std::to_string(unknown) +
                    ", which is not in the vocabulary: the file was changed while in use; put the text back and start "
                    "again");
  }
  text_ = std::move(held);
  steps_.clear();  // graphs of steps point to the text before
  return true;
}

void CudaSession::submit_text_step(std::int64_t window, const DropoutKey& dropout, const UpdateSettings& settings) {
  network_.device().use();
  if (!text_ || !shape_.training) throw ShapeError("Session::submit_text_step: no text is held for training");
  if (window < 0 || window >= text_->windows_per_epoch) {
    throw ShapeError("Session::submit_text_step: window " + std::to_string(window) + " is outside the epoch's " +
                     std::to_string(text_->windows_per_epoch));
  }
  network_.refresh();
  run_step({text_->steps, dropout.probability > 0, true, settings.optimizer.name},
           {.dropout = dropout_step(dropout),
            .rule = rule_of(settings),
            .window = window,
            .windows_per_epoch = text_->windows_per_epoch,
            .slot = next_slot_});
}

/// The step as work on the stream. All that differs from step to step is in device memory.
void CudaSession::enqueue_step(const StepKey& key) {
  const auto [steps, dropout, from_text, optimizer] = key;
  const WindowShape shape{steps, shape_.batch, lanes_};
  if (from_text) {
    cut_window({text_->text.data(), text_->ids_of_bytes.data(), text_->stride}, inputs_.data(), shape, window_,
               network_.stream());
  } else {
    take_window({arrived(arrivals_[0].device.data()), arrived(arrivals_[1].device.data())}, inputs_.data(), shape,
                window_, network_.stream());
  }
  start_lanes(states(), window_.reset, network_.stream());
  recurrence_->enqueue_refresh();
  const Pass pass{.steps = steps, .keep = true, .dropout = dropout};
  enqueue_forward(pass);
  enqueue_head(pass);
  enqueue_loss(pass);
  enqueue_backward(pass);
  {
    const Range range("update");
    network_.enqueue_update(optimizer, sums_.data(), inputs_.data(), ring_.data(), kRing);
  }
  finish_lanes(states(), steps, network_.decision(), network_.stream());
}

void CudaSession::run_step(const StepKey& key, const StepInputs& inputs) {
  if (sent_.size() >= kRing) throw ShapeError("Session: too many steps are in flight; call next_result() first");
  const Range range("step");
  const std::size_t at = next_slot_ % kRing;
  begun_[at].record(network_.stream());
  const bool is_next = expected_ && *expected_ == inputs;
  expected_.reset();  // until all of the step is enqueued
  if (!is_next) write_inputs(inputs, inputs_.data(), network_.stream());
  // The first time it runs as it is: libraries load code and choose algorithms then, which a capture would not allow.
  const auto found = steps_.find(key);
  if (found == steps_.end() || !captures_) {
    const std::int64_t before = launch_count();
    enqueue_step(key);
    network_.device().launches_a_step = launch_count() - before;
    steps_.try_emplace(key);
  } else {
    replay(found->second, [&] { enqueue_step(key); });
    if (found->second) network_.device().launches_a_step = static_cast<std::int64_t>(found->second->nodes());
  }
  done_[at].record(network_.stream());
  sent_.push_back(next_slot_++);
  expected_ = inputs;
  expected_->advance();
  network_.updated_by_step();
}

/// Launches the graph of `enqueue`'s work, which it captures if there is none yet. What cannot be captured runs as it
/// is.
template <class F>
void CudaSession::replay(std::optional<Graph>& graph, const F& enqueue) {
  if (!graph) {
    try {
      graph = Graph::capture(network_.stream(), enqueue);
    } catch (const DeviceError& e) {
      captures_ = false;
      network_.device().note(std::string("the step is launched kernel by kernel, for it could not be captured: ") +
                             e.what());
      return enqueue();
    }
  }
  graph->launch(network_.stream());
}

StepResult CudaSession::next_result() {
  network_.device().use();
  if (sent_.empty()) throw ShapeError("Session::next_result: no step was submitted");
  const std::size_t at = sent_.front() % kRing;
  done_[at].wait();
  sent_.pop_front();
  float ms = 0;
  check(cudaEventElapsedTime(&ms, begun_[at].get(), done_[at].get()), "cudaEventElapsedTime");
  const StepRecord& record = ring_[at];
  return {record.nats_per_char, record.gradient_norm, record.skipped != 0, double{ms}};
}

// Drawing
// --------------------------------------------------------------------------------------------------------------

void CudaSession::enqueue_draw() {
  const Pass pass{.steps = 1};
  enqueue_forward(pass);
  enqueue_head(pass);
  const int V = network_.shape().vocabulary;
  draw({.lanes = shape_.batch,
        .vocabulary = V,
        .stride = one_hot_stride(V),
        .logits = logits_.data(),
        .bias = network_.parameter(network_.layout().head_bias()),
        .rule = draw_rule_.data(),
        .failed = draw_failed_.data(),
        .drawn = drawn_.data(),
        .ids = ids_.data()},
       network_.stream());
  finish_lanes(states(), 1, nullptr, network_.stream());
}

bool CudaSession::generate(int steps, std::span<const TokenId> ids, const DrawSettings& settings,
                           std::span<TokenId> drawn) {
  network_.device().use();
  const int V = network_.shape().vocabulary;
  if (V > kMostDrawn) return false;
  const auto batch = static_cast<std::size_t>(shape_.batch);
  if (steps < 1 || ids.size() != batch || drawn.size() != static_cast<std::size_t>(steps) * batch) {
    throw ShapeError("Session::generate: ids must be [B], drawn [steps,B]");
  }
  if (draw_rule_.size() == 0) {
    draw_rule_ = DeviceBuffer<DrawRule>(1, "drawing");
    draw_failed_ = DeviceBuffer<int>(1, "drawing");
    drawn_ = DeviceBuffer<DeviceId>(static_cast<std::size_t>(kDrawnAtOnce) * batch, "drawn characters");
  }
  refresh();
  take({.steps = 1, .batch = shape_.batch, .ids = ids});
  draw_failed_.zero(network_.stream());
  std::vector<DeviceId> raw(static_cast<std::size_t>(kDrawnAtOnce) * batch);
  for (int done = 0; done < steps;) {
    const int now = std::min(kDrawnAtOnce, steps - done);
    network_.device().stream.wait();
    const DrawRule rule{settings.temperature,  settings.top_k,       settings.greedy,           settings.seed,
                        settings.first_stream, settings.stream_step, settings.first_draw + done};
    copy_to_device(draw_rule_.data(), &rule, sizeof(rule));
    for (int i = 0; i < now; ++i) {
      if (!has_drawn_ || !captures_) {
        enqueue_draw();
        has_drawn_ = true;
      } else {
        replay(draw_step_, [&] { enqueue_draw(); });
      }
    }
    network_.device().stream.wait();
    int failed = 0;
    copy_to_host(&failed, draw_failed_.data(), sizeof(failed));
    if (failed != 0) {
      throw RunError("the network's score of character " + std::to_string(failed - 1) +
                     " is not finite, so nothing can be drawn; train again with a lower learning rate");
    }
    const std::size_t count = static_cast<std::size_t>(now) * batch;
    copy_to_host(raw.data(), drawn_.data(), count * sizeof(DeviceId));
    std::copy_n(raw.begin(), count,
                drawn.begin() + static_cast<std::ptrdiff_t>(static_cast<std::size_t>(done) * batch));
    done += now;
  }
  return true;
}

}  // namespace charrnn::cuda
