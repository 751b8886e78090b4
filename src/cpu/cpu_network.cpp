#include "cpu/cpu_network.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "cpu/cpu_session.h"
#include "cpu/memory.h"

namespace charrnn::cpu {

namespace {

constexpr std::int64_t kUpdateChunk = 1 << 14;  // floats; fixed, so that sums do not depend on the number of threads

/// The part of a weight matrix that a block of gates reads, times its input from the left: [D, rows].
WeightView forward_view(const float* weights, const GateBlock& block, std::int64_t columns) {
  return {weights + block.weight_row * columns, columns, block.rows, 1, columns};
}

/// The same part for the way back: [rows, D].
WeightView backward_view(const float* weights, const GateBlock& block, std::int64_t columns) {
  return {weights + block.weight_row * columns, block.rows, columns, columns, 1};
}

}  // namespace

CpuNetwork::CpuNetwork(const NetworkShape& shape, std::shared_ptr<ThreadPool> pool)
    : layout_(shape), gates_(gate_map(shape.cell, shape.hidden)), pool_(std::move(pool)) {
  require_memory(memory_bytes(shape), "the network");
  for (auto& arena : arenas_) arena = HostBuffer(layout_.arena_size());
  const float* p = arena(Arena::kParameters);
  const auto keep = [this](std::vector<std::unique_ptr<PackedWeights>>& to, const WeightView& view) {
    to.push_back(std::make_unique<PackedWeights>(view));
    all_packed_.push_back(to.back().get());
  };
  for (int l = 0; l < shape.layers; ++l) {
    PackedLayer& layer = packed_.emplace_back();
    for (const GateBlock& block : gates_.hidden) {
      keep(layer.hidden_forward, forward_view(p + layout_.weight_hh(l).offset, block, shape.hidden));
      keep(layer.hidden_backward, backward_view(p + layout_.weight_hh(l).offset, block, shape.hidden));
    }
    if (l == 0) continue;
    layer.bias = HostBuffer(static_cast<std::size_t>(gates_.width));
    for (const GateBlock& block : gates_.input) {
      keep(layer.input_forward, forward_view(p + layout_.weight_ih(l).offset, block, shape.hidden));
      keep(layer.input_backward, backward_view(p + layout_.weight_ih(l).offset, block, shape.hidden));
    }
  }
  const GateBlock head{0, shape.vocabulary, 0};
  head_forward_ = std::make_unique<PackedWeights>(forward_view(p + layout_.head_weight().offset, head, shape.hidden));
  head_backward_ = std::make_unique<PackedWeights>(backward_view(p + layout_.head_weight().offset, head, shape.hidden));
  all_packed_.push_back(head_forward_.get());
  all_packed_.push_back(head_backward_.get());
  table_ = HostBuffer(static_cast<std::size_t>(shape.vocabulary * gates_.width));
}

void CpuNetwork::read(Arena which, std::span<float> to) {
  if (to.size() != layout_.arena_size()) throw ShapeError("Network::read: the span has not the arena's size");
  std::copy_n(arena(which), to.size(), to.data());
}

void CpuNetwork::write(Arena which, std::span<const float> from) {
  if (from.size() != layout_.arena_size()) throw ShapeError("Network::write: the span has not the arena's size");
  std::copy_n(from.data(), from.size(), arena(which));
  if (which == Arena::kParameters) stale_ = true;
}

void CpuNetwork::refresh() {
  if (!stale_) return;
  std::vector<std::pair<PackedWeights*, int>> copies;
  for (PackedWeights* weights : all_packed_) {
    for (int copy = 0; copy < weights->copies(); ++copy) copies.emplace_back(weights, copy);
  }
  const int parts = pool_->size();
  pool_->run(parts, [&](int part) {
    for (std::size_t i = static_cast<std::size_t>(part); i < copies.size(); i += static_cast<std::size_t>(parts)) {
      copies[i].first->repack_copy(copies[i].second);
    }
    refresh_table(part, parts);
  });
  for (int l = 1; l < shape().layers; ++l) refresh_bias(l);
  stale_ = false;
}

void CpuNetwork::refresh_table(int part, int parts) {
  const std::int64_t V = shape().vocabulary, W = gates_.width;
  const float* const p = arena(Arena::kParameters);
  const float* const w = p + layout_.weight_ih(0).offset;
  const float* const b_ih = p + layout_.bias_ih(0).offset;
  const float* const b_hh = p + layout_.bias_hh(0).offset;
  const Range rows = split_range(V, part, parts);
  for (std::int64_t v = rows.begin; v < rows.end; ++v) {
    float* const to = table_.data() + v * W;
    std::fill_n(to, W, 0.0F);
    for (const GateBlock& block : gates_.input) {
      for (std::int64_t r = 0; r < block.rows; ++r) {
        to[block.gate_column + r] = w[(block.weight_row + r) * V + v] + b_ih[block.weight_row + r];
      }
    }
    for (const GateBlock& block : gates_.hidden)
      add_rows(to + block.gate_column, b_hh + block.weight_row, 1, block.rows);
  }
}

void CpuNetwork::refresh_bias(int layer) {
  const float* const p = arena(Arena::kParameters);
  float* const to = packed(layer).bias.data();
  std::fill_n(to, gates_.width, 0.0F);
  for (const GateBlock& block : gates_.input) {
    add_rows(to + block.gate_column, p + layout_.bias_ih(layer).offset + block.weight_row, 1, block.rows);
  }
  for (const GateBlock& block : gates_.hidden) {
    add_rows(to + block.gate_column, p + layout_.bias_hh(layer).offset + block.weight_row, 1, block.rows);
  }
}

StepResult CpuNetwork::update(const UpdateSettings& settings) {
  const auto n = static_cast<std::int64_t>(layout_.arena_size());
  const std::int64_t chunks = (n + kUpdateChunk - 1) / kUpdateChunk;
  const int parts = pool_->size();
  const float* const g = arena(Arena::kGradients);

  std::vector<double> squares(static_cast<std::size_t>(chunks));
  pool_->run(parts, [&](int part) {
    const Range mine = split_range(chunks, part, parts);
    for (std::int64_t c = mine.begin; c < mine.end; ++c) {
      squares[static_cast<std::size_t>(c)] =
          sum_of_squares(g + c * kUpdateChunk, std::min(kUpdateChunk, n - c * kUpdateChunk));
    }
  });
  double sum = 0;
  for (const double s : squares) sum += s;

  StepResult result;
  result.gradient_norm = std::sqrt(sum);
  result.skipped = !std::isfinite(sum);
  if (result.skipped) return result;

  UpdateRow row;
  row.factors = factors_of(rule_of(settings.optimizer), updates_ + 1);
  row.clip_value = std::numeric_limits<float>::infinity();
  if (settings.clip.kind == ClipConfig::Kind::kValue) row.clip_value = static_cast<float>(settings.clip.threshold);
  if (settings.clip.kind == ClipConfig::Kind::kNorm && result.gradient_norm > settings.clip.threshold) {
    row.clip_scale = static_cast<float>(settings.clip.threshold / result.gradient_norm);
  }
  pool_->run(parts, [&](int part) {
    const Range mine = split_range(chunks, part, parts);
    UpdateRow r = row;
    const std::int64_t begin = mine.begin * kUpdateChunk;
    r.n = std::min(n, mine.end * kUpdateChunk) - begin;
    r.p = arena(Arena::kParameters) + begin;
    r.g = g + begin;
    r.moment1 = arena(Arena::kMoment1) + begin;
    r.moment2 = arena(Arena::kMoment2) + begin;
    if (r.n > 0) update_row(settings.optimizer.name, r);
  });
  ++updates_;
  stale_ = true;
  return result;
}

std::size_t CpuNetwork::memory_bytes(const NetworkShape& shape) {
  const ParameterLayout layout(shape);
  constexpr std::size_t kArenas = 4, kPackedCopies = 2;  // forward and backward
  return (kArenas + kPackedCopies) * layout.arena_size() * sizeof(float);
}

std::unique_ptr<Session> CpuNetwork::open(const SessionShape& shape) {
  require_memory(CpuSession::memory_bytes(layout_.shape(), shape), "a session");
  return std::make_unique<CpuSession>(*this, shape);
}

}  // namespace charrnn::cpu
