#include "cpu/lane_sampler.h"

#include <algorithm>
#include <cstring>
#include <string>
#include <type_traits>
#include <utility>

#include "charrnn/error.h"
#include "cpu/element.h"
#include "kernels/philox.h"

namespace charrnn::cpu {

namespace {

constexpr std::size_t kHugePage = std::size_t{2} << 20;
constexpr std::int64_t kLine = 64;  // bytes of a cache line

std::int64_t round_up(std::int64_t n, std::int64_t to) { return (n + to - 1) / to * to; }

/// A thread more is worth its meetings from this many bytes of weights on. Two threads of a Zen 4 against one, in runs
/// of 64 characters: 1x64 (91 KB in fp32) is as fast, 2x128 (840 KB) 1.8 times as fast, and 1.4 times in bf16.
constexpr std::size_t kBytesAThread = std::size_t{128} << 10;

/// Threads that lost more than this part of a run waiting for each other would not have been slower alone.
constexpr double kLostToBeAlone = 0.4;
constexpr int kFirstBackOff = 4, kLastBackOff = 256;  // runs

/// Of weights, before padding: layer 0's W_ih is a table of which a row is read.
std::size_t bytes_a_character(const ParameterLayout& layout, std::int64_t element_bytes) {
  return (layout.parameter_count() - layout.weight_ih(0).count()) * static_cast<std::size_t>(element_bytes);
}

}  // namespace

int LaneSampler::Tiling::vectors_of(int tile) const { return std::min(vectors, all_vectors() - tile * vectors); }

LaneSampler::Columns LaneSampler::columns_of(const std::vector<GateBlock>& blocks, std::int64_t hidden) {
  std::vector<std::pair<std::int64_t, std::int64_t>> found;  // gate column in units of H, row of the matrix
  for (const GateBlock& block : blocks) {
    for (std::int64_t at = 0; at < block.rows; at += hidden) {
      found.emplace_back((block.gate_column + at) / hidden, block.weight_row + at);
    }
  }
  std::sort(found.begin(), found.end());
  Columns columns;
  columns.first = static_cast<int>(found.front().first);
  for (const auto& [column, row] : found) columns.row.push_back(row);
  return columns;
}

LaneSampler::LaneSampler(const ParameterLayout& layout, Precision precision, ThreadPool& pool, LaneOptions options)
    : layout_(layout),
      gates_(gate_map(layout.shape().cell, layout.shape().hidden)),
      pool_(pool),
      bf16_(precision == Precision::kBf16),
      kernels_(lane_kernels(layout.shape().cell, precision, options.portable)),
      workers_(options.workers) {
  const NetworkShape& n = layout_.shape();
  input_columns_ = columns_of(gates_.input, n.hidden);
  hidden_columns_ = columns_of(gates_.hidden, n.hidden);
  head_columns_ = {0, {0}};
  element_bytes_ = bf16_ ? sizeof(Bf16) : sizeof(float);
  padded_k_ = static_cast<int>(round_up(n.hidden, kLaneColumns));
  units_ = {n.hidden, columns_a_unit() == 1 ? kLaneVectors : 1};
  characters_ = {n.vocabulary, kLaneVectors};
  c_stride_ = round_up(n.hidden, kLaneRows);
  h_stride_bytes_ = round_up(c_stride_ * element_bytes_, kLine);

  const auto floats = [](std::int64_t count) { return HostBuffer(static_cast<std::size_t>(count)); };
  table_ = floats(n.vocabulary * padded_gates());
  bias_ = floats(n.layers * padded_gates());
  head_bias_ = floats(round_up(n.vocabulary, kLaneRows));
  logits_ = floats(round_up(n.vocabulary, kLaneRows));
  h_ = floats(n.layers * 2 * h_stride_bytes_ / static_cast<std::int64_t>(sizeof(float)));
  c_ = floats(n.layers * c_stride_);

  const std::size_t bytes = bytes_a_character(layout_, element_bytes_);
  int threads = options.threads;
  if (threads == 0) threads = static_cast<int>(std::min<std::size_t>(bytes / kBytesAThread, pool.size()));
  threads = std::clamp(threads, 1, pool.size());
  for (int t = 0; t < threads; ++t) {
    auto share = std::make_unique<Share>(n.vocabulary);
    share->units = split_range(units_.tiles(), t, threads);
    share->characters = split_range(characters_.tiles(), t, threads);
    lay_out(*share);
    shares_.push_back(std::move(share));
  }
}

/// In the order in which a character reads them.
void LaneSampler::lay_out(Share& share) const {
  const int layers = layout_.shape().layers;
  std::size_t bytes = 0;
  const auto place = [&](const Columns& columns, const Tiling& tiling, const Range& tiles) {
    const std::size_t tile_bytes = columns.row.size() * static_cast<std::size_t>(tiling.vectors) * kLaneRows *
                                   static_cast<std::size_t>(padded_k_) * static_cast<std::size_t>(element_bytes_);
    const Matrix matrix{bytes, tile_bytes};
    bytes += tile_bytes * static_cast<std::size_t>(tiles.size());
    return matrix;
  };
  for (int l = 0; l < layers; ++l) {
    share.hidden.push_back(place(hidden_columns_, units_, share.units));
    share.input.push_back(l == 0 ? Matrix{} : place(input_columns_, units_, share.units));
  }
  share.head = place(head_columns_, characters_, share.characters);

  const std::size_t spare = bytes >= kHugePage ? kHugePage : 0;  // to begin with a huge page
  share.storage = HostBuffer((bytes + spare) / sizeof(float));
  auto* const begin = reinterpret_cast<std::byte*>(share.storage.data());
  const std::size_t past = spare == 0 ? 0 : reinterpret_cast<std::uintptr_t>(begin) % kHugePage;
  share.weights = past == 0 ? begin : begin + (kHugePage - past);
  share.sums =
      HostBuffer(static_cast<std::size_t>(layers * share.units.size() * columns_a_unit() * units_.vectors) * kLaneRows);
}

std::size_t LaneSampler::weight_bytes() const {
  std::size_t bytes = 0;
  for (const auto& share : shares_) {
    for (const auto* matrices : {&share->input, &share->hidden}) {
      for (const Matrix& m : *matrices) bytes += m.tile_bytes * static_cast<std::size_t>(share->units.size());
    }
    bytes += share->head.tile_bytes * static_cast<std::size_t>(share->characters.size());
  }
  return bytes;
}

std::size_t LaneSampler::memory_bytes(const NetworkShape& shape, Precision precision) {
  const ParameterLayout layout(shape);
  const std::size_t table = layout.weight_ih(0).count() * sizeof(float);
  return table + bytes_a_character(layout, precision == Precision::kBf16 ? sizeof(Bf16) : sizeof(float));
}

void LaneSampler::pack(const float* parameters) {
  pool_.run(threads(), [&](int worker) {
    Share& share = *shares_[static_cast<std::size_t>(worker)];
    if (bf16_) {
      pack_share<Bf16>(share, parameters);
    } else {
      pack_share<float>(share, parameters);
    }
  });
}

template <class E>
void LaneSampler::pack_share(Share& share, const float* parameters) {
  const NetworkShape& n = layout_.shape();
  for (int l = 0; l < n.layers; ++l) {
    const auto layer = static_cast<std::size_t>(l);
    pack_matrix<E>(share.weights + share.hidden[layer].offset_bytes, parameters + layout_.weight_hh(l).offset,
                   hidden_columns_, units_, share.units);
    if (l > 0) {
      pack_matrix<E>(share.weights + share.input[layer].offset_bytes, parameters + layout_.weight_ih(l).offset,
                     input_columns_, units_, share.units);
    }
    for (std::int64_t tile = share.units.begin; tile < share.units.end; ++tile) {
      for (int v = 0; v < (l == 0 ? n.vocabulary : 1); ++v) {
        float* const to = (l == 0 ? table_.data() + v * padded_gates() : bias_.data() + l * padded_gates());
        pack_start(to + units_.first_row(static_cast<int>(tile)) * columns_a_unit(), parameters, l,
                   static_cast<int>(tile), v);
      }
    }
  }
  pack_matrix<E>(share.weights + share.head.offset_bytes, parameters + layout_.head_weight().offset, head_columns_,
                 characters_, share.characters);
  for (std::int64_t tile = share.characters.begin; tile < share.characters.end; ++tile) {
    const std::int64_t first = characters_.first_row(static_cast<int>(tile));
    const std::int64_t count = std::min<std::int64_t>(characters_.vectors * kLaneRows, n.vocabulary - first);
    std::copy_n(parameters + layout_.head_bias().offset + first, count, head_bias_.data() + first);
  }
}

/// @param from  a matrix [rows,H] of the arena, of which `columns` says what rows make which gate columns
template <class E>
void LaneSampler::pack_matrix(std::byte* to, const float* from, const Columns& columns, const Tiling& tiling,
                              Range tiles) const {
  constexpr std::int64_t kPair = std::is_same_v<E, float> ? 1 : 2;  // columns that stand together: 32 bits of them
  const std::int64_t H = layout_.shape().hidden;
  E* tile_to = reinterpret_cast<E*>(to);
  for (std::int64_t tile = tiles.begin; tile < tiles.end; ++tile) {
    const int vectors = tiling.vectors_of(static_cast<int>(tile));
    const std::int64_t all = static_cast<std::int64_t>(columns.row.size()) * vectors;
    for (std::int64_t vector = 0; vector < all; ++vector) {
      const std::int64_t first = tiling.first_row(static_cast<int>(tile)) + vector % vectors * kLaneRows;
      const std::int64_t rows = std::min<std::int64_t>(kLaneRows, tiling.rows - first);
      const float* const rows_from = from + (columns.row[static_cast<std::size_t>(vector / vectors)] + first) * H;
      for (std::int64_t k = 0; k < H; ++k) {
        E* const column_to = tile_to + (k / kPair * all + vector) * kLaneRows * kPair + k % kPair;
        for (std::int64_t row = 0; row < rows; ++row) column_to[row * kPair] = from_float<E>(rows_from[row * H + k]);
      }
    }
    tile_to += all * kLaneRows * padded_k_;
  }
}

/// What a tile's pre-activations are besides the products: both biases and, in layer 0, the character's column of W_ih.
/// @param to  [C, vectors, 16] overwritten
void LaneSampler::pack_start(float* to, const float* parameters, int layer, int tile, int character) const {
  const int vectors = units_.vectors_of(tile);
  const std::int64_t first = units_.first_row(tile);
  const std::int64_t count = std::min<std::int64_t>(vectors * kLaneRows, units_.rows - first);
  const auto column_to = [&](const Columns& columns, std::size_t i) {
    return to + (columns.first + static_cast<std::int64_t>(i)) * vectors * kLaneRows;
  };
  std::fill_n(to, columns_a_unit() * vectors * kLaneRows, 0.0F);
  const std::int64_t V = layout_.shape().vocabulary;
  for (std::size_t i = 0; i < input_columns_.row.size(); ++i) {
    const std::int64_t row = input_columns_.row[i] + first;
    const float* const bias = parameters + layout_.bias_ih(layer).offset + row;
    for (std::int64_t unit = 0; unit < count; ++unit) column_to(input_columns_, i)[unit] = bias[unit];
    if (layer > 0) continue;
    const float* const weights = parameters + layout_.weight_ih(0).offset + row * V + character;
    for (std::int64_t unit = 0; unit < count; ++unit) column_to(input_columns_, i)[unit] += weights[unit * V];
  }
  for (std::size_t i = 0; i < hidden_columns_.row.size(); ++i) {
    const float* const bias = parameters + layout_.bias_hh(layer).offset + hidden_columns_.row[i] + first;
    for (std::int64_t unit = 0; unit < count; ++unit) column_to(hidden_columns_, i)[unit] += bias[unit];
  }
}

std::byte* LaneSampler::h_of(int layer, int parity) {
  return reinterpret_cast<std::byte*>(h_.data()) + (2 * layer + parity) * h_stride_bytes_;
}

/// @param tile  counted from the share's first
float* LaneSampler::sums_of(Share& share, int layer, std::int64_t tile) const {
  return share.sums.data() + (layer * share.units.size() + tile) * columns_a_unit() * units_.vectors * kLaneRows;
}

void LaneSampler::load_state(const LaneRun& run) {
  const NetworkShape& n = layout_.shape();
  const auto H = static_cast<std::size_t>(n.hidden);
  std::fill_n(h_.data(), h_.size(), 0.0F);
  std::fill_n(c_.data(), c_.size(), 0.0F);
  for (int l = 0; l < n.layers; ++l) {
    const float* const h = run.h.data() + static_cast<std::size_t>(l) * H;
    if (bf16_) {
      std::transform(h, h + H, reinterpret_cast<Bf16*>(h_of(l, 0)), from_float<Bf16>);
    } else {
      std::copy_n(h, H, reinterpret_cast<float*>(h_of(l, 0)));
    }
    if (!run.c.empty()) std::copy_n(run.c.data() + static_cast<std::size_t>(l) * H, H, c_.data() + l * c_stride_);
  }
}

void LaneSampler::store_state(const LaneRun& run) const {
  const NetworkShape& n = layout_.shape();
  const auto H = static_cast<std::size_t>(n.hidden);
  const auto parity = static_cast<int>(run.drawn.size() % 2);
  for (int l = 0; l < n.layers; ++l) {
    const auto* const h = reinterpret_cast<const std::byte*>(h_.data()) + (2 * l + parity) * h_stride_bytes_;
    float* const to = run.h.data() + static_cast<std::size_t>(l) * H;
    if (bf16_) {
      const auto* const from = reinterpret_cast<const Bf16*>(h);
      std::transform(from, from + H, to, [](Bf16 x) { return to_float(x); });
    } else {
      std::copy_n(reinterpret_cast<const float*>(h), H, to);
    }
    if (!run.c.empty()) std::copy_n(c_.data() + l * c_stride_, H, run.c.data() + static_cast<std::size_t>(l) * H);
  }
}

void LaneSampler::run(const LaneRun& run) {
  const NetworkShape& n = layout_.shape();
  const auto state = static_cast<std::size_t>(n.layers) * static_cast<std::size_t>(n.hidden);
  if (run.draws == nullptr || run.h.size() != state || run.c.size() != (has_cell_state(n.cell) ? state : 0)) {
    throw ShapeError("LaneSampler::run: h and c must be [L,H], c empty for cells without it");
  }
  if (run.first < 0 || run.first >= n.vocabulary) {
    throw ShapeError("LaneSampler::run: character " + std::to_string(run.first) + " is outside [0, " +
                     std::to_string(n.vocabulary) + ")");
  }
  if (run.drawn.empty()) return;
  load_state(run);
  const int workers = workers_ > 0 ? std::min(workers_, threads()) : runs_alone_ > 0 ? 1 : threads();
  barrier_.set_parties(workers);
  const auto start = std::chrono::steady_clock::now();
  pool_.run(workers, [&](int worker) { work(worker, workers, run); });
  store_state(run);
  if (workers_ == 0 && threads() > 1) choose_workers(std::chrono::steady_clock::now() - start);
}

/// @param spent  by the last run
void LaneSampler::choose_workers(std::chrono::nanoseconds spent) {
  if (runs_alone_ > 0) {
    --runs_alone_;
    return;
  }
  std::chrono::nanoseconds lost{};
  for (const auto& share : shares_) lost = std::max(lost, share->lost);
  const bool in_the_way = static_cast<double>(lost.count()) > kLostToBeAlone * static_cast<double>(spent.count());
  back_off_ = in_the_way ? std::clamp(2 * back_off_, kFirstBackOff, kLastBackOff) : 0;
  runs_alone_ = back_off_;
}

/// One thread's part: every `workers`-th share. All threads throw at the same character or none does, since all look at
/// the same logits: none is left waiting.
void LaneSampler::work(int worker, int workers, const LaneRun& run) {
  const NetworkShape& n = layout_.shape();
  const DrawSettings& draws = *run.draws;
  const std::span<const float> logits(logits_.data(), static_cast<std::size_t>(n.vocabulary));
  Share& own = *shares_[static_cast<std::size_t>(worker)];
  own.lost = {};
  const auto for_mine = [&](const auto& part) {
    for (int i = worker; i < threads(); i += workers) part(*shares_[static_cast<std::size_t>(i)]);
  };

  TokenId id = run.first;
  for_mine([&](Share& share) { begin_layer(share, 0, 0); });
  for (std::size_t t = 0; t < run.drawn.size(); ++t) {
    // h of the step before stands in `before`, this step's goes to `now`. Nobody still reads what was in `now`, two
    // steps ago: that was before a meeting that all have left.
    const auto before = static_cast<int>(t % 2), now = 1 - before;
    for (int l = 0; l < n.layers; ++l) {
      const float* const start = l == 0 ? table_.data() + id * padded_gates() : bias_.data() + l * padded_gates();
      for_mine([&](Share& share) {
        if (l > 0) multiply(share, l, true, now);
        step_cells(share, l, start, before);
      });
      const std::uint64_t ticket = barrier_.arrive();
      if (l + 1 < n.layers) for_mine([&](Share& share) { begin_layer(share, l + 1, before); });
      own.lost += barrier_.wait(ticket);
    }
    for_mine([&](Share& share) { run_head(share, now); });
    const std::uint64_t ticket = barrier_.arrive();
    if (t + 1 < run.drawn.size()) for_mine([&](Share& share) { begin_layer(share, 0, now); });
    own.lost += barrier_.wait(ticket);
    const auto number = static_cast<std::uint64_t>(draws.first_draw) + static_cast<std::uint64_t>(t);
    id = draw_character(logits, draws, stream_uniform(draws.seed, run.stream, number), own.scratch);
    if (worker == 0) run.drawn[t] = id;
  }
}

/// sums = W_hh h_own. @param parity  of the h that is read
void LaneSampler::begin_layer(Share& share, int layer, int parity) {
  const std::int64_t sums = share.units.size() * columns_a_unit() * units_.vectors * kLaneRows;
  std::fill_n(sums_of(share, layer, 0), sums, 0.0F);
  multiply(share, layer, false, parity);
}

/// sums += W_ih h_below, or W_hh h_own. @param parity  of the h that is read
void LaneSampler::multiply(Share& share, int layer, bool of_input, int parity) {
  const Columns& columns = of_input ? input_columns_ : hidden_columns_;
  const Matrix& matrix = (of_input ? share.input : share.hidden)[static_cast<std::size_t>(layer)];
  const std::byte* const x = h_of(of_input ? layer - 1 : layer, parity);
  const std::byte* weights = share.weights + matrix.offset_bytes;
  for (std::int64_t tile = 0; tile < share.units.size(); ++tile) {
    const int vectors = units_.vectors_of(static_cast<int>(share.units.begin + tile));
    kernels_.product({.weights = weights,
                      .x = x,
                      .k = padded_k_,
                      .vectors = static_cast<int>(columns.row.size()) * vectors,
                      .sums = sums_of(share, layer, tile) + columns.first * vectors * kLaneRows});
    weights += matrix.tile_bytes;
  }
}

/// @param start   [padded gates] what the pre-activations are besides the products
/// @param before  parity of the h of the step before; the other one is written
void LaneSampler::step_cells(Share& share, int layer, const float* start, int before) {
  for (std::int64_t tile = share.units.begin; tile < share.units.end; ++tile) {
    const std::int64_t unit = units_.first_row(static_cast<int>(tile));
    kernels_.cell({.vectors = units_.vectors_of(static_cast<int>(tile)),
                   .sums = sums_of(share, layer, tile - share.units.begin),
                   .start = start + unit * columns_a_unit(),
                   .h_prev = h_of(layer, before) + unit * element_bytes_,
                   .h = h_of(layer, 1 - before) + unit * element_bytes_,
                   .c = c_.data() + layer * c_stride_ + unit});
  }
}

void LaneSampler::run_head(Share& share, int parity) {
  const std::byte* weights = share.weights + share.head.offset_bytes;
  for (std::int64_t tile = share.characters.begin; tile < share.characters.end; ++tile) {
    const std::int64_t first = characters_.first_row(static_cast<int>(tile));
    const int vectors = characters_.vectors_of(static_cast<int>(tile));
    std::copy_n(head_bias_.data() + first, vectors * kLaneRows, logits_.data() + first);
    kernels_.product({.weights = weights,
                      .x = h_of(layout_.shape().layers - 1, parity),
                      .k = padded_k_,
                      .vectors = vectors,
                      .sums = logits_.data() + first});
    weights += share.head.tile_bytes;
  }
}

}  // namespace charrnn::cpu
