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

CpuNetwork::CpuNetwork(const NetworkShape& shape, Precision precision, std::shared_ptr<ThreadPool> pool)
    : layout_(shape), precision_(precision), gates_(gate_map(shape.cell, shape.hidden)), pool_(std::move(pool)) {
  require_memory(memory_bytes(shape), "the network");
  for (auto& arena : arenas_) arena = HostBuffer(layout_.arena_size());
  const float* p = arena(Arena::kParameters);
  const auto keep = [this](const WeightView& view) {
    auto packed = std::make_unique<PackedWeights>(view);
    all_packed_.push_back(packed.get());
    return packed;
  };
  for (int l = 0; l < shape.layers; ++l) {
    PackedLayer& layer = packed_.emplace_back();
    const float* const w_hh = p + layout_.weight_hh(l).offset;
    layer.hidden_forward = keep(forward_view(w_hh, gates_.hidden.front(), shape.hidden));
    layer.hidden_backward = keep(backward_view(w_hh, gates_.hidden.front(), shape.hidden));
    layer.bias = HostBuffer(static_cast<std::size_t>(gates_.width));
    if (l == 0) continue;
    const float* const w_ih = p + layout_.weight_ih(l).offset;
    for (const GateBlock& block : gates_.input) {
      layer.input_forward.push_back(keep(forward_view(w_ih, block, shape.hidden)));
      layer.input_backward.push_back(keep(backward_view(w_ih, block, shape.hidden)));
    }
  }
  const GateBlock head{0, shape.vocabulary, 0};
  head_forward_ = keep(forward_view(p + layout_.head_weight().offset, head, shape.hidden));
  head_backward_ = keep(backward_view(p + layout_.head_weight().offset, head, shape.hidden));
  table_ = HostBuffer(static_cast<std::size_t>(shape.vocabulary * gates_.width));
  squares_.resize(
      static_cast<std::size_t>((static_cast<std::int64_t>(layout_.arena_size()) + kUpdateChunk - 1) / kUpdateChunk));
}

void CpuNetwork::read(Arena which, std::span<float> to) {
  if (to.size() != layout_.arena_size()) throw ShapeError("Network::read: the span has not the arena's size");
  std::copy_n(arena(which), to.size(), to.data());
}

void CpuNetwork::write(Arena which, std::span<const float> from) {
  if (from.size() != layout_.arena_size()) throw ShapeError("Network::write: the span has not the arena's size");
  std::copy_n(from.data(), from.size(), arena(which));
  if (which == Arena::kParameters) ++version_;
}

void CpuNetwork::refresh() {
  if (refreshed_ == version_) return;
  for (int l = 0; l < shape().layers; ++l) refresh_bias(l);
  const int parts = pool_->size();
  pool_->run(parts, [&](int part) {
    int turn = 0;  // copies are dealt to the workers in turn
    for (PackedWeights* weights : all_packed_) {
      for (int copy = 0; copy < weights->copies(); ++copy) {
        if (turn++ % parts == part) weights->repack_copy(copy);
      }
    }
    refresh_table(part, parts);
  });
  refreshed_ = version_;
}

LaneSampler& CpuNetwork::lane_sampler() {
  if (!lane_sampler_) {
    require_memory(LaneSampler::memory_bytes(shape(), precision_), "drawing one text");
    lane_sampler_ = std::make_unique<LaneSampler>(layout_, precision_, *pool_);
  }
  if (in_lane_ != version_) {
    lane_sampler_->pack(arena(Arena::kParameters));
    in_lane_ = version_;
  }
  return *lane_sampler_;
}

void CpuNetwork::refresh_table(int part, int parts) {
  const std::int64_t V = shape().vocabulary, W = gates_.width;
  const float* const w = arena(Arena::kParameters) + layout_.weight_ih(0).offset;
  const float* const bias = packed(0).bias.data();
  const Range rows = split_range(V, part, parts);
  for (std::int64_t v = rows.begin; v < rows.end; ++v) std::copy_n(bias, W, table_.data() + v * W);
  constexpr std::int64_t kColumns = 16;  // a cache line at a time, since this turns rows into columns
  for (const GateBlock& block : gates_.input) {
    for (std::int64_t r = 0; r < block.rows; r += kColumns) {
      const float* const from = w + (block.weight_row + r) * V;
      float* const to = table_.data() + block.gate_column + r;
      const std::int64_t columns = std::min(kColumns, block.rows - r);
      for (std::int64_t v = rows.begin; v < rows.end; ++v) {
        for (std::int64_t i = 0; i < columns; ++i) to[v * W + i] += from[i * V + v];
      }
    }
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
  const auto chunks = static_cast<std::int64_t>(squares_.size());
  const int parts = pool_->size();
  const float* const g = arena(Arena::kGradients);

  pool_->run(parts, [&](int part) {
    const Range mine = split_range(chunks, part, parts);
    for (std::int64_t c = mine.begin; c < mine.end; ++c) {
      squares_[static_cast<std::size_t>(c)] =
          sum_of_squares(g + c * kUpdateChunk, std::min(kUpdateChunk, n - c * kUpdateChunk));
    }
  });
  double sum = 0;
  for (const double s : squares_) sum += s;

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
  ++version_;
  return result;
}

std::size_t CpuNetwork::memory_bytes(const NetworkShape& shape) {
  const ParameterLayout layout(shape);
  constexpr std::size_t kArenas = 4, kPackedCopies = 2;  // forward and backward
  return (kArenas + kPackedCopies) * layout.arena_size() * sizeof(float);
}

std::unique_ptr<Session> CpuNetwork::open(const SessionShape& shape) {
  const bool half = precision_ == Precision::kBf16;
  require_memory(half ? CpuSession<Bf16>::memory_bytes(layout_.shape(), shape, pool_->size())
                      : CpuSession<float>::memory_bytes(layout_.shape(), shape, pool_->size()),
                 "a session");
  if (half) return std::make_unique<CpuSession<Bf16>>(*this, shape);
  return std::make_unique<CpuSession<float>>(*this, shape);
}

}  // namespace charrnn::cpu
