#include "cpu/row_ops.h"

#include <algorithm>
#include <cmath>

// Highway compiles this file once for each of its targets, from AVX-512 down to one without vectors. SSSE3 is left out:
// few machines have that and no SSE4.
#undef HWY_DISABLED_TARGETS
#define HWY_DISABLED_TARGETS HWY_SSSE3
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cpu/row_ops.cpp"  // NOLINT(readability-identifier-naming): the name is Highway's
#include <hwy/foreach_target.h>               // before what uses Highway

#include "cpu/vectors-inl.h"

HWY_BEFORE_NAMESPACE();
namespace charrnn::cpu::HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;
namespace vec = charrnn::HWY_NAMESPACE;
using vec::AllLanes;
using vec::FirstLanes;
using vec::Floats;
using vec::keep;
using vec::kLanes;
using vec::load;
using vec::rounded;
using vec::store;
using vec::store_rounded;

/// Units of a row that are worked on at once, where that takes more than one pass: what waits in between, a KiB an
/// array, stays in the first cache. Passes are short on purpose. A processor overlaps what stands within some 150
/// vector instructions; a unit of an LSTM has nearly as many in one chain, and would be computed at the chain's pace.
constexpr int kChunk = 256;

/// Calls row.units(j, lanes) for the units from `from` to `to`.
template <class Row>
HWY_INLINE void for_units(const Row& row, std::int64_t from, std::int64_t to) {
  std::int64_t j = from;
  for (; j + kLanes <= to; j += kLanes) row.units(j, AllLanes{});
  if (j < to) row.units(j, FirstLanes{static_cast<int>(to - j)});
}

// ---- dropout

#if HWY_TARGET == HWY_SCALAR
constexpr int kDropoutUnits = 4;
#else
constexpr int kWordLanes = static_cast<int>(hn::MaxLanes(vec::Words::Tag()));
constexpr int kDropoutUnits = 4 * kWordLanes;  // whose numbers are made at once
#endif

/// numbers[i] = the number of unit first + i, for n units and some more up to a multiple of kDropoutUnits.
HWY_INLINE void dropout_row(const DropoutStep& d, std::uint32_t lane, std::int64_t first, std::int64_t n,
                            std::uint32_t* HWY_RESTRICT numbers) {
#if HWY_TARGET == HWY_SCALAR
  for (std::int64_t i = 0; i < n; i += kDropoutUnits) {
    const auto block = static_cast<std::uint32_t>((first + i) / kDropoutUnits);
    const PhiloxBlock x = dropout_numbers(d.seed, d.step, d.layer, d.t, lane, block);
    numbers[i] = x.x0, numbers[i + 1] = x.x1, numbers[i + 2] = x.x2, numbers[i + 3] = x.x3;
  }
#else
  using Wide = vec::Words::Tag;
  const Wide wide;
  const hn::Repartition<std::uint32_t, Wide> narrow;
  // Blocks 0, W/2, 1, W/2 + 1, ...: so interleaving the lower halves of each two lanes gives the first W/2 blocks in
  // order, and the upper halves the rest.
  HWY_ALIGN std::uint64_t order[kWordLanes];
  for (int i = 0; i < kWordLanes; ++i) order[i] = static_cast<std::uint64_t>(i / 2 + i % 2 * (kWordLanes / 2));
  auto block = hn::Add(hn::Load(wide, order), hn::Set(wide, static_cast<std::uint64_t>(first / 4)));
  for (std::int64_t i = 0; i < n; i += kDropoutUnits) {
    const auto x = vec::dropout_words(d.seed, d.step, d.layer, d.t, lane, vec::Words(block));
    block = hn::Add(block, hn::Set(wide, static_cast<std::uint64_t>(kWordLanes)));
    const auto pair = [&](vec::Words even, vec::Words odd) HWY_ATTR {  // in one lane of 64 bits
      return hn::BitCast(wide, hn::OddEven(hn::BitCast(narrow, hn::ShiftLeft<32>(odd.v)), hn::BitCast(narrow, even.v)));
    };
    const auto x01 = pair(x.x0, x.x1), x23 = pair(x.x2, x.x3);
    hn::Store(hn::BitCast(narrow, hn::InterleaveLower(wide, x01, x23)), narrow, numbers + i);
    hn::Store(hn::BitCast(narrow, hn::InterleaveUpper(wide, x01, x23)), narrow, numbers + i + kDropoutUnits / 2);
  }
#endif
}

// ---- cells, forward

/// One row of CellForward, and the numbers of its units from `first_number` on.
template <class E>
struct ForwardRow {
  std::int64_t hidden;
  const float* recurrent;
  const float* input;
  const float* bias;
  E* gates;
  const E* h_prev;
  const float* c_prev;
  E* h;
  float* c;
  E* dropped;
  std::uint32_t bound;
  float scale;
  std::int64_t chunk_start;
  const std::uint32_t* numbers;  // [kChunk] of dropout
  float* gates_between;          // [2 kChunk] from one pass to the next. LSTM: o; GRU: r and z

  /// The input's part of a pre-activation, with the biases.
  template <class Lanes>
  HWY_INLINE Floats input_part(int gate, std::int64_t j, Lanes lanes) const {
    const Floats x = load(input + gate * hidden + j, lanes);
    return bias == nullptr ? x : x + load(bias + gate * hidden + j, lanes);
  }
  template <class Lanes>
  HWY_INLINE Floats recurrent_part(int gate, std::int64_t j, Lanes lanes) const {
    return load(recurrent + gate * hidden + j, lanes);
  }
  template <class Lanes>
  HWY_INLINE void keep_gate(int gate, Floats x, std::int64_t j, Lanes lanes) const {
    store(x, gates + gate * hidden + j, lanes);
  }

  HWY_INLINE void store_between(int which, Floats x, std::int64_t j) const {
    hn::Store(x.v, vec::FloatTag(), gates_between + which * kChunk + (j - chunk_start));
  }
  HWY_INLINE Floats load_between(int which, std::int64_t j) const {
    return Floats(hn::Load(vec::FloatTag(), gates_between + which * kChunk + (j - chunk_start)));
  }

  template <class Lanes>
  HWY_INLINE void store_h(Floats y, std::int64_t j, Lanes lanes) const {
    const Floats stored = rounded<E>(y);
    store_rounded(stored, h + j, lanes);
    if (dropped == nullptr) return;
    const vec::WordTag tag;
    const auto number = hn::Load(tag, numbers + (j - chunk_start));
    const auto drop = hn::RebindMask(vec::FloatTag(), hn::Lt(number, hn::Set(tag, bound)));
    const Floats kept = rounded<E>(stored * Floats(scale)) + Floats(0.0F);  // makes -0 to +0
    store_rounded(vec::select(vec::Mask{drop}, Floats(-0.0F), kept), dropped + j, lanes);
  }
};

template <Cell kCell, class E>
struct CellForwardRow : ForwardRow<E> {
  template <class Lanes>
  HWY_INLINE void units(std::int64_t j, Lanes lanes) const {
    const auto pre = [&](int gate, int row)
                         HWY_ATTR { return this->input_part(gate, j, lanes) + this->recurrent_part(row, j, lanes); };
    if constexpr (kCell == Cell::kLstm) {
      const auto y = vec::lstm_gates(pre(kLstmI, kLstmI), pre(kLstmF, kLstmF), pre(kLstmG, kLstmG), pre(kLstmO, kLstmO),
                                     load(this->c_prev + j, lanes));
      this->store_between(0, y.o, j);
      store(y.c, this->c + j, lanes);
      if (this->gates != nullptr) {
        this->keep_gate(kLstmI, y.i, j, lanes);
        this->keep_gate(kLstmF, y.f, j, lanes);
        this->keep_gate(kLstmG, y.g, j, lanes);
        this->keep_gate(kLstmO, y.o, j, lanes);
      }
    } else if constexpr (kCell == Cell::kGru) {
      const Floats r = vec::sigmoid(pre(kGruColumnR, kGruR)), z = vec::sigmoid(pre(kGruColumnZ, kGruZ));
      this->store_between(0, r, j);
      this->store_between(1, z, j);
      if (this->gates != nullptr) {
        this->keep_gate(kGruColumnR, r, j, lanes);
        this->keep_gate(kGruColumnZ, z, j, lanes);
      }
    } else {
      this->store_h(vec::rnn_cell<kCell == Cell::kRnnRelu>(pre(0, 0)), j, lanes);
    }
  }
};

/// The second pass of an LSTM and a GRU.
template <Cell kCell, class E>
struct CellOutputRow : ForwardRow<E> {
  template <class Lanes>
  HWY_INLINE void units(std::int64_t j, Lanes lanes) const {
    if constexpr (kCell == Cell::kLstm) {
      this->store_h(vec::lstm_output(this->load_between(0, j), load(this->c + j, lanes)), j, lanes);
    } else {
      // Products of the input have no column nh: above layer 0 its bias is all that there is.
      const float* const from_bias = this->bias != nullptr ? this->bias : this->input;
      const Floats nh =
          load(from_bias + kGruColumnNh * this->hidden + j, lanes) + this->recurrent_part(kGruN, j, lanes);
      const auto y = vec::gru_output(this->load_between(0, j), this->load_between(1, j),
                                     this->input_part(kGruColumnNx, j, lanes), nh, load(this->h_prev + j, lanes));
      if (this->gates != nullptr) {
        this->keep_gate(kGruColumnNx, y.n, j, lanes);
        this->keep_gate(kGruColumnNh, nh, j, lanes);
      }
      this->store_h(y.h, j, lanes);
    }
  }
};

/// Of an array that cells without it do not have.
template <class T>
T* offset(T* array, std::int64_t at) {
  return array == nullptr ? nullptr : array + at;
}

/// Columns of a row of gates, and rows of W_hh, in units of H.
constexpr int gate_columns(Cell cell) { return cell == Cell::kLstm || cell == Cell::kGru ? 4 : 1; }
constexpr int recurrent_rows(Cell cell) { return cell == Cell::kGru ? 3 : gate_columns(cell); }

template <Cell kCell, class E>
void cell_forward_rows(const CellForward<E>& s) {
  const std::int64_t H = s.hidden, W = gate_columns(kCell) * H, R = recurrent_rows(kCell) * H;
  HWY_ALIGN std::uint32_t numbers[kChunk];
  HWY_ALIGN float gates_between[2 * kChunk];
  for (int b = 0; b < s.rows; ++b) {
    const std::int64_t at = b * H;
    CellForwardRow<kCell, E> row{{.hidden = H,
                                  .recurrent = s.recurrent + b * R,
                                  .input = s.input + (s.ids != nullptr ? s.ids[b] : b) * W,
                                  .bias = s.bias,
                                  .gates = s.gates != nullptr ? s.gates + b * W : nullptr,
                                  .h_prev = s.h_prev + at,
                                  .c_prev = offset(s.c_prev, at),
                                  .h = s.h + at,
                                  .c = offset(s.c, at),
                                  .dropped = s.dropped != nullptr ? s.dropped + at : nullptr,
                                  .bound = s.dropout.bound,
                                  .scale = s.dropout.scale,
                                  .chunk_start = 0,
                                  .numbers = numbers,
                                  .gates_between = gates_between}};
    for (std::int64_t first = 0; first < H; first += kChunk) {
      const std::int64_t end = std::min(first + kChunk, H);
      row.chunk_start = first;
      if (s.dropped != nullptr) {
        dropout_row(s.dropout, s.dropout.first_lane + static_cast<std::uint32_t>(b), first, end - first, numbers);
      }
      for_units(row, first, end);
      if constexpr (kCell == Cell::kLstm || kCell == Cell::kGru) {
        for_units(CellOutputRow<kCell, E>{row}, first, end);
      }
    }
  }
}

template <class E>
void cell_forward_any(const CellForward<E>& s) {
  switch (s.cell) {
    case Cell::kLstm: return cell_forward_rows<Cell::kLstm>(s);
    case Cell::kGru: return cell_forward_rows<Cell::kGru>(s);
    case Cell::kRnnTanh: return cell_forward_rows<Cell::kRnnTanh>(s);
    case Cell::kRnnRelu: return cell_forward_rows<Cell::kRnnRelu>(s);
  }
}

// ---- cells, backward

template <class E>
struct BackwardRow {
  std::int64_t hidden;
  bool first, last;
  E* gates;
  const E* h_prev;
  const E* h;
  const float* c_prev;
  const float* c;
  const E* dy;
  const E* dropped;
  float dropout_scale;
  float* dh;
  float* dc;
  float* sums;
  std::int64_t chunk_start;
  const float* tanh_c;  // [kChunk] LSTM

  /// The gradient that reaches h from above and from the step behind.
  template <class Lanes>
  HWY_INLINE Floats incoming(std::int64_t j, Lanes lanes) const {
    Floats from_above = load(dy + j, lanes);
    if (dropped != nullptr) {
      const auto drop = vec::is_negative_zero(load(dropped + j, lanes));
      from_above = vec::select(drop, Floats(0.0F), from_above * Floats(dropout_scale));
    }
    return last ? from_above : from_above + load(dh + j, lanes);
  }
  template <class Lanes>
  HWY_INLINE Floats gate(int g, std::int64_t j, Lanes lanes) const {
    return load(gates + g * hidden + j, lanes);
  }
  /// The gradient of a pre-activation, in place of its activation, and its part of the sum over rows.
  template <class Lanes>
  HWY_INLINE void put(int g, Floats d, std::int64_t j, Lanes lanes) const {
    float* const sum = sums + g * hidden + j;
    store(first ? d : d + load(sum, lanes), sum, lanes);
    store(d, gates + g * hidden + j, lanes);
  }
};

template <Cell kCell, class E>
struct CellBackwardRow : BackwardRow<E> {
  template <class Lanes>
  HWY_INLINE void units(std::int64_t j, Lanes lanes) const {
    const Floats dh = this->incoming(j, lanes);
    if constexpr (kCell == Cell::kLstm) {
      const Floats tanh_of_c(hn::Load(vec::FloatTag(), this->tanh_c + (j - this->chunk_start)));
      const auto d = vec::lstm_gates_backward(this->gate(kLstmI, j, lanes), this->gate(kLstmF, j, lanes),
                                              this->gate(kLstmG, j, lanes), this->gate(kLstmO, j, lanes),
                                              load(this->c_prev + j, lanes), tanh_of_c, dh,
                                              this->last ? Floats(0.0F) : load(this->dc + j, lanes));
      this->put(kLstmI, d.di, j, lanes);
      this->put(kLstmF, d.df, j, lanes);
      this->put(kLstmG, d.dg, j, lanes);
      this->put(kLstmO, d.d_o, j, lanes);
      store(d.dc_prev, this->dc + j, lanes);
    } else if constexpr (kCell == Cell::kGru) {
      const auto d = vec::gru_cell_backward(this->gate(kGruColumnR, j, lanes), this->gate(kGruColumnZ, j, lanes),
                                            this->gate(kGruColumnNx, j, lanes), this->gate(kGruColumnNh, j, lanes),
                                            load(this->h_prev + j, lanes), dh);
      this->put(kGruColumnNx, d.dnx, j, lanes);
      this->put(kGruColumnR, d.dr, j, lanes);
      this->put(kGruColumnZ, d.dz, j, lanes);
      this->put(kGruColumnNh, d.dnh, j, lanes);
      store(d.dh_prev, this->dh + j, lanes);
    } else {
      this->put(0, vec::rnn_cell_backward<kCell == Cell::kRnnRelu>(load(this->h + j, lanes), dh), j, lanes);
    }
  }
};

/// An LSTM's first pass.
struct TanhRow {
  const float* x;
  float* y;  // of vectors in full

  template <class Lanes>
  HWY_INLINE void units(std::int64_t j, Lanes lanes) const {
    hn::Store(vec::tanh_of(load(x + j, lanes)).v, vec::FloatTag(), y + j);
  }
};

template <Cell kCell, class E>
void cell_backward_rows(const CellBackward<E>& s) {
  const std::int64_t H = s.hidden, W = gate_columns(kCell) * H;
  HWY_ALIGN float tanh_c[kChunk];
  if (s.rows == 0) std::fill_n(s.sums, W, 0.0F);
  for (int b = 0; b < s.rows; ++b) {
    const std::int64_t at = b * H;
    CellBackwardRow<kCell, E> row{{.hidden = H,
                                   .first = b == 0,
                                   .last = s.last,
                                   .gates = s.gates + b * W,
                                   .h_prev = s.h_prev + at,
                                   .h = s.h + at,
                                   .c_prev = offset(s.c_prev, at),
                                   .c = offset(s.c, at),
                                   .dy = s.dy + at,
                                   .dropped = s.dropped != nullptr ? s.dropped + at : nullptr,
                                   .dropout_scale = s.dropout_scale,
                                   .dh = s.dh + at,
                                   .dc = offset(s.dc, at),
                                   .sums = s.sums,
                                   .chunk_start = 0,
                                   .tanh_c = tanh_c}};
    for (std::int64_t first = 0; first < H; first += kChunk) {
      const std::int64_t end = std::min(first + kChunk, H);
      row.chunk_start = first;
      if constexpr (kCell == Cell::kLstm) for_units(TanhRow{row.c + first, tanh_c}, 0, end - first);
      for_units(row, first, end);
    }
  }
}

template <class E>
void cell_backward_any(const CellBackward<E>& s) {
  switch (s.cell) {
    case Cell::kLstm: return cell_backward_rows<Cell::kLstm>(s);
    case Cell::kGru: return cell_backward_rows<Cell::kGru>(s);
    case Cell::kRnnTanh: return cell_backward_rows<Cell::kRnnTanh>(s);
    case Cell::kRnnRelu: return cell_backward_rows<Cell::kRnnRelu>(s);
  }
}

// ---- sums of rows

/// Some rows at once, so that y is read and written once for all of them. The order of additions is that of the rows.
template <int kRows, class E>
struct AddRows {
  float* y;
  const E* x;
  std::int64_t stride;

  template <class Lanes>
  HWY_INLINE void units(std::int64_t j, Lanes lanes) const {
    Floats sum = load(y + j, lanes);
    for (int row = 0; row < kRows; ++row) sum += load(x + row * stride + j, lanes);
    store(sum, y + j, lanes);
  }
};

template <class E>
void add_rows_any(float* y, const E* x, std::int64_t rows, std::int64_t n) {
  constexpr int kRows = 8;
  std::int64_t row = 0;
  for (; row + kRows <= rows; row += kRows) for_units(AddRows<kRows, E>{y, x + row * n, n}, 0, n);
  for (; row < rows; ++row) for_units(AddRows<1, E>{y, x + row * n, n}, 0, n);
}

// ---- softmax

using DoubleTag = hn::ScalableTag<double>;
using Doubles = hn::Vec<DoubleTag>;

/// The sum of x's lanes, pair by pair, onto those of `sum`.
HWY_INLINE Doubles add_in_double(Doubles sum, Floats x) {
  const DoubleTag tag;
#if HWY_TARGET == HWY_SCALAR
  return hn::Add(sum, hn::PromoteTo(tag, x.v));
#else
  const hn::Half<vec::FloatTag> half;
  return hn::Add(sum,
                 hn::Add(hn::PromoteTo(tag, hn::LowerHalf(half, x.v)), hn::PromoteTo(tag, hn::UpperHalf(half, x.v))));
#endif
}

/// Calls f(j, lanes) for all of n elements.
template <class F>
HWY_INLINE void for_each(int n, const F& f) {
  int j = 0;
  for (; j + kLanes <= n; j += kLanes) f(j, AllLanes{});
  if (j < n) f(j, FirstLanes{n - j});
}

HWY_INLINE float largest_of(const float* x, int n) {
  Floats largest(x[0]);
  for_each(n, [&](int j, auto lanes)
                  HWY_ATTR { largest = Floats(hn::Max(largest.v, keep(lanes, load(x + j, lanes), largest).v)); });
  return hn::GetLane(hn::MaxOfLanes(vec::FloatTag(), largest.v));
}

template <class E>
XentRow softmax_xent_any(float* logits, E* gradient, int vocabulary, TokenId target, float weight) {
  // A NaN that Max() passes over here is found below: its exponential is NaN, and so is the sum.
  const float largest = largest_of(logits, vocabulary);
  const float target_logit = logits[target];
  const bool correct = target_logit == largest && std::find(logits, logits + target, largest) == logits + target;

  Doubles sums = hn::Zero(DoubleTag());
  for_each(vocabulary, [&](int j, auto lanes) HWY_ATTR {
    const Floats e = vec::exp_of(load(logits + j, lanes) - Floats(largest));
    store(e, logits + j, lanes);
    sums = add_in_double(sums, keep(lanes, e, Floats(0.0F)));
  });
  const double sum = hn::GetLane(hn::SumOfLanes(DoubleTag(), sums));

  if (gradient != nullptr) {
    const auto scale = static_cast<float>(static_cast<double>(weight) / sum);
    const float of_target = logits[target] * scale - weight;
    for_each(vocabulary,
             [&](int j, auto lanes) HWY_ATTR { store(load(logits + j, lanes) * Floats(scale), gradient + j, lanes); });
    gradient[target] = from_float<E>(of_target);
  }
  return {std::log(sum) + static_cast<double>(largest) - static_cast<double>(target_logit), correct};
}

// ---- the update

/// 16 partial sums, whatever the vector's width, added in one order: all instruction sets give the same bits. (Squares
/// of floats are exact in double, so that fused multiplication changes nothing.)
double sum_of_squares_any(const float* x, std::int64_t n) {
  constexpr int kParts = 16;
  const DoubleTag tag;
  const hn::Rebind<float, DoubleTag> floats;
  constexpr int kDoubles = static_cast<int>(hn::MaxLanes(tag));
  Doubles sums[kParts / kDoubles];
  for (auto& sum : sums) sum = hn::Zero(tag);
  std::int64_t j = 0;
  for (; j + kParts <= n; j += kParts) {
    for (int i = 0; i < kParts / kDoubles; ++i) {
      const auto v = hn::PromoteTo(tag, hn::LoadU(floats, x + j + i * kDoubles));
      sums[i] = hn::MulAdd(v, v, sums[i]);
    }
  }
  HWY_ALIGN double parts[kParts];
  for (int i = 0; i < kParts / kDoubles; ++i) hn::Store(sums[i], tag, parts + i * kDoubles);
  for (int i = 0; j < n; ++j, ++i) parts[i] += static_cast<double>(x[j]) * static_cast<double>(x[j]);
  double sum = 0;
  for (const double part : parts) sum += part;
  return sum;
}

template <OptimizerKind kKind>
struct UpdateUnits {
  const UpdateRow& u;
  vec::OptimizerFactors<Floats> f;

  template <class Lanes>
  HWY_INLINE void units(std::int64_t j, Lanes lanes) const {
    const Floats limit(u.clip_value);
    const Floats g = vec::at_least(vec::at_most(load(u.g + j, lanes) * Floats(u.clip_scale), limit), -limit);
    Floats p = load(u.p + j, lanes), m = load(u.moment1 + j, lanes);
    if constexpr (kKind == OptimizerKind::kAdam) {
      Floats v = load(u.moment2 + j, lanes);
      vec::adam(p, g, m, v, f);
      store(v, u.moment2 + j, lanes);
    } else if constexpr (kKind == OptimizerKind::kRmsprop) {
      vec::rmsprop(p, g, m, f);
    } else if constexpr (kKind == OptimizerKind::kAdagrad) {
      vec::adagrad(p, g, m, f);
    } else {
      vec::sgd(p, g, m, f);
    }
    store(m, u.moment1 + j, lanes);
    store(p, u.p + j, lanes);
  }
};

template <OptimizerKind kKind>
void update_units(const UpdateRow& u) {
  const auto& f = u.factors;
  for_units(UpdateUnits<kKind>{u,
                               {.rate = Floats(f.rate),
                                .decay = Floats(f.decay),
                                .fresh = Floats(f.fresh),
                                .decay1 = Floats(f.decay1),
                                .fresh1 = Floats(f.fresh1),
                                .epsilon = Floats(f.epsilon),
                                .second_correction = Floats(f.second_correction)}},
            0, u.n);
}

void update_row_any(OptimizerKind kind, const UpdateRow& u) {
  switch (kind) {
    case OptimizerKind::kRmsprop: return update_units<OptimizerKind::kRmsprop>(u);
    case OptimizerKind::kAdam: return update_units<OptimizerKind::kAdam>(u);
    case OptimizerKind::kAdagrad: return update_units<OptimizerKind::kAdagrad>(u);
    case OptimizerKind::kSgd: return update_units<OptimizerKind::kSgd>(u);
  }
}

// ---- what is exported: functions with names of their own

void cell_forward_f32(const CellForward<float>& s) { cell_forward_any(s); }
void cell_forward_bf16(const CellForward<Bf16>& s) { cell_forward_any(s); }
void cell_backward_f32(const CellBackward<float>& s) { cell_backward_any(s); }
void cell_backward_bf16(const CellBackward<Bf16>& s) { cell_backward_any(s); }
void add_rows_f32(float* y, const float* x, std::int64_t rows, std::int64_t n) { add_rows_any(y, x, rows, n); }
void add_rows_bf16(float* y, const Bf16* x, std::int64_t rows, std::int64_t n) { add_rows_any(y, x, rows, n); }
XentRow softmax_xent_f32(float* logits, float* gradient, int vocabulary, TokenId target, float weight) {
  return softmax_xent_any(logits, gradient, vocabulary, target, weight);
}
XentRow softmax_xent_bf16(float* logits, Bf16* gradient, int vocabulary, TokenId target, float weight) {
  return softmax_xent_any(logits, gradient, vocabulary, target, weight);
}

}  // namespace charrnn::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE

namespace charrnn::cpu {

HWY_EXPORT(cell_forward_f32);
HWY_EXPORT(cell_forward_bf16);
HWY_EXPORT(cell_backward_f32);
HWY_EXPORT(cell_backward_bf16);
HWY_EXPORT(add_rows_f32);
HWY_EXPORT(add_rows_bf16);
HWY_EXPORT(softmax_xent_f32);
HWY_EXPORT(softmax_xent_bf16);
HWY_EXPORT(sum_of_squares_any);
HWY_EXPORT(update_row_any);

template <>
void cell_forward(const CellForward<float>& s) {
  HWY_DYNAMIC_DISPATCH(cell_forward_f32)(s);
}
template <>
void cell_forward(const CellForward<Bf16>& s) {
  HWY_DYNAMIC_DISPATCH(cell_forward_bf16)(s);
}
template <>
void cell_backward(const CellBackward<float>& s) {
  HWY_DYNAMIC_DISPATCH(cell_backward_f32)(s);
}
template <>
void cell_backward(const CellBackward<Bf16>& s) {
  HWY_DYNAMIC_DISPATCH(cell_backward_bf16)(s);
}
template <>
void add_rows(float* y, const float* x, std::int64_t rows, std::int64_t n) {
  HWY_DYNAMIC_DISPATCH(add_rows_f32)(y, x, rows, n);
}
template <>
void add_rows(float* y, const Bf16* x, std::int64_t rows, std::int64_t n) {
  HWY_DYNAMIC_DISPATCH(add_rows_bf16)(y, x, rows, n);
}
template <>
XentRow softmax_xent_row(float* logits, float* gradient, int vocabulary, TokenId target, float weight) {
  return HWY_DYNAMIC_DISPATCH(softmax_xent_f32)(logits, gradient, vocabulary, target, weight);
}
template <>
XentRow softmax_xent_row(float* logits, Bf16* gradient, int vocabulary, TokenId target, float weight) {
  return HWY_DYNAMIC_DISPATCH(softmax_xent_bf16)(logits, gradient, vocabulary, target, weight);
}

double sum_of_squares(const float* x, std::int64_t n) { return HWY_DYNAMIC_DISPATCH(sum_of_squares_any)(x, n); }

void update_row(OptimizerKind kind, const UpdateRow& u) { HWY_DYNAMIC_DISPATCH(update_row_any)(kind, u); }

void limit_vectors_to_avx2() {
#if HWY_ARCH_X86
  hwy::DisableTargets(HWY_AVX2 - 1);  // what is better than a target has a lower bit
#endif
}

}  // namespace charrnn::cpu

#endif  // HWY_ONCE
