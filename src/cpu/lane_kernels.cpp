#include "cpu/lane_kernels.h"

#include <cstring>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cpu/lane_kernels.cpp"  // NOLINT(readability-identifier-naming)
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "cpu/element.h"
#include "kernels/gate_map.h"
#include "kernels/gru_cell.h"
#include "kernels/lstm_cell.h"
#include "kernels/rnn_cell.h"

HWY_BEFORE_NAMESPACE();
namespace charrnn::cpu::HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

using Floats = hn::CappedTag<float, kLaneRows>;
using Words = hn::RebindToUnsigned<Floats>;
constexpr int kLanes = static_cast<int>(hn::MaxLanes(Floats()));
constexpr int kParts = kLaneRows / kLanes;  // vector registers to 16 rows

/// Sums are kept in enough registers that one addition need not wait for the one before: with few rows, those of every
/// kChains-th column in one.
constexpr int chains_for(int registers) { return registers >= 8 ? 1 : registers >= 4 ? 2 : 4; }

template <int kVectors>
void multiply_floats(const TileProduct& p) {
  constexpr int kRegisters = kVectors * kParts, kChains = chains_for(kRegisters);
  const Floats d;
  const auto* HWY_RESTRICT w = static_cast<const float*>(p.weights);
  const auto* HWY_RESTRICT x = static_cast<const float*>(p.x);
  hn::Vec<Floats> sums[kChains][kRegisters];
  for (int r = 0; r < kRegisters; ++r) sums[0][r] = hn::LoadU(d, p.sums + r * kLanes);
  for (int chain = 1; chain < kChains; ++chain) {
    for (int r = 0; r < kRegisters; ++r) sums[chain][r] = hn::Zero(d);
  }
  for (int k = 0; k < p.k; k += kChains) {
    for (int chain = 0; chain < kChains; ++chain) {
      const auto xk = hn::Set(d, x[k + chain]);
      for (int r = 0; r < kRegisters; ++r) {
        sums[chain][r] = hn::MulAdd(hn::Load(d, w + r * kLanes), xk, sums[chain][r]);
      }
      w += kVectors * kLaneRows;
    }
  }
  for (int chain = 1; chain < kChains; ++chain) {
    for (int r = 0; r < kRegisters; ++r) sums[0][r] = hn::Add(sums[0][r], sums[chain][r]);
  }
  for (int r = 0; r < kRegisters; ++r) hn::StoreU(sums[0][r], d, p.sums + r * kLanes);
}

/// A pair of bf16 stands in 32 bits, the even column in the lower half: shifted up it is a float, and so is the other
/// with the lower half cleared.
template <int kVectors>
void multiply_bf16(const TileProduct& p) {
  constexpr int kRegisters = kVectors * kParts, kChains = chains_for(2 * kRegisters);
  const Floats d;
  const Words words;
  const auto* HWY_RESTRICT w = static_cast<const std::uint32_t*>(p.weights);
  const auto* HWY_RESTRICT x = static_cast<const char*>(p.x);
  const auto upper = hn::Set(words, 0xFFFF0000U);
  hn::Vec<Floats> even[kChains][kRegisters], odd[kChains][kRegisters];
  for (int r = 0; r < kRegisters; ++r) even[0][r] = hn::LoadU(d, p.sums + r * kLanes);
  for (int chain = 0; chain < kChains; ++chain) {
    for (int r = 0; r < kRegisters; ++r) {
      if (chain > 0) even[chain][r] = hn::Zero(d);
      odd[chain][r] = hn::Zero(d);
    }
  }
  for (int k = 0; k < p.k; k += 2 * kChains) {
    for (int chain = 0; chain < kChains; ++chain) {
      std::uint32_t pair = 0;
      std::memcpy(&pair, x + (k / 2 + chain) * sizeof pair, sizeof pair);
      const auto x_even = hn::BitCast(d, hn::Set(words, pair << 16));
      const auto x_odd = hn::BitCast(d, hn::Set(words, pair & 0xFFFF0000U));
      for (int r = 0; r < kRegisters; ++r) {
        const auto pairs = hn::Load(words, w + r * kLanes);
        even[chain][r] = hn::MulAdd(hn::BitCast(d, hn::ShiftLeft<16>(pairs)), x_even, even[chain][r]);
        odd[chain][r] = hn::MulAdd(hn::BitCast(d, hn::And(pairs, upper)), x_odd, odd[chain][r]);
      }
      w += kVectors * kLaneRows;
    }
  }
  for (int r = 0; r < kRegisters; ++r) {
    auto sum = hn::Add(even[0][r], odd[0][r]);
    for (int chain = 1; chain < kChains; ++chain) sum = hn::Add(sum, hn::Add(even[chain][r], odd[chain][r]));
    hn::StoreU(sum, d, p.sums + r * kLanes);
  }
}

void product_of_floats(const TileProduct& p) {
  switch (p.vectors) {
    case 1: return multiply_floats<1>(p);
    case 2: return multiply_floats<2>(p);
    case 3: return multiply_floats<3>(p);
    default: return multiply_floats<4>(p);
  }
}

void product_of_bf16(const TileProduct& p) {
  switch (p.vectors) {
    case 1: return multiply_bf16<1>(p);
    case 2: return multiply_bf16<2>(p);
    case 3: return multiply_bf16<3>(p);
    default: return multiply_bf16<4>(p);
  }
}

// Loops of 16 without a branch inside, which the compiler turns into this target's vectors.

template <class E>
void lstm_step(const TileCell& t) {
  const float *const HWY_RESTRICT sums = t.sums, *const HWY_RESTRICT start = t.start;
  float* const HWY_RESTRICT c = t.c;
  E* const HWY_RESTRICT h = static_cast<E*>(t.h);
  for (int unit = 0; unit < kLaneRows; ++unit) {
    const auto a = [&](LstmGate gate) { return sums[gate * kLaneRows + unit] + start[gate * kLaneRows + unit]; };
    const LstmStep<float> y = lstm_cell(a(kLstmI), a(kLstmF), a(kLstmG), a(kLstmO), c[unit]);
    c[unit] = y.c;
    h[unit] = from_float<E>(y.h);
  }
}

template <class E>
void gru_step(const TileCell& t) {
  const float *const HWY_RESTRICT sums = t.sums, *const HWY_RESTRICT start = t.start;
  const E* const HWY_RESTRICT h_prev = static_cast<const E*>(t.h_prev);
  E* const HWY_RESTRICT h = static_cast<E*>(t.h);
  for (int unit = 0; unit < kLaneRows; ++unit) {
    const auto a = [&](GruColumn column) { return sums[column * kLaneRows + unit] + start[column * kLaneRows + unit]; };
    const GruStep<float> y =
        gru_cell(a(kGruColumnR), a(kGruColumnZ), a(kGruColumnNx), a(kGruColumnNh), to_float(h_prev[unit]));
    h[unit] = from_float<E>(y.h);
  }
}

template <bool kRelu, class E>
void rnn_step(const TileCell& t) {
  const float *const HWY_RESTRICT sums = t.sums, *const HWY_RESTRICT start = t.start;
  E* const HWY_RESTRICT h = static_cast<E*>(t.h);
  for (int unit = 0; unit < t.vectors * kLaneRows; ++unit) {
    h[unit] = from_float<E>(rnn_cell<kRelu>(sums[unit] + start[unit]));
  }
}

template <class E>
void (*step_of(Cell cell))(const TileCell&) {
  switch (cell) {
    case Cell::kLstm: return lstm_step<E>;
    case Cell::kGru: return gru_step<E>;
    case Cell::kRnnTanh: return rnn_step<false, E>;
    case Cell::kRnnRelu: break;
  }
  return rnn_step<true, E>;
}

LaneKernels kernels_of(Cell cell, bool bf16) {
  const char* const name = hwy::TargetName(HWY_TARGET);
  if (bf16) return {name, product_of_bf16, step_of<Bf16>(cell)};
  return {name, product_of_floats, step_of<float>(cell)};
}

}  // namespace charrnn::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE

#if defined(__x86_64__)
#include <immintrin.h>
#define CHARRNN_NATIVE_BF16 1
#endif

namespace charrnn::cpu {
HWY_EXPORT(kernels_of);

namespace {

#if defined(CHARRNN_NATIVE_BF16)
#define CHARRNN_BF16_TARGET __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")))

/// vdpbf16ps: two products a lane and instruction. It takes denormals for zero, and rounds the sum of the pair once
/// more than two fused multiplications and additions would.
template <int kVectors>
CHARRNN_BF16_TARGET void multiply_pairs(const TileProduct& p) {
  constexpr int kChains = kVectors >= 4 ? 2 : 4;
  const auto* w = static_cast<const char*>(p.weights);
  const auto* x = static_cast<const char*>(p.x);
  __m512 sums[kChains][kVectors];
  for (int v = 0; v < kVectors; ++v) sums[0][v] = _mm512_loadu_ps(p.sums + v * kLaneRows);
  for (int chain = 1; chain < kChains; ++chain) {
    for (int v = 0; v < kVectors; ++v) sums[chain][v] = _mm512_setzero_ps();
  }
  for (int k = 0; k < p.k; k += 2 * kChains) {
    for (int chain = 0; chain < kChains; ++chain) {
      int pair = 0;
      std::memcpy(&pair, x + (k / 2 + chain) * sizeof pair, sizeof pair);
      const __m512i pairs = _mm512_set1_epi32(pair);
      for (int v = 0; v < kVectors; ++v) {
        const __m512i weights = _mm512_load_si512(w + v * 64);
        sums[chain][v] =
            _mm512_dpbf16_ps(sums[chain][v], reinterpret_cast<__m512bh>(weights), reinterpret_cast<__m512bh>(pairs));
      }
      w += kVectors * 64;
    }
  }
  for (int v = 0; v < kVectors; ++v) {
    __m512 sum = sums[0][v];
    for (int chain = 1; chain < kChains; ++chain) sum = _mm512_add_ps(sum, sums[chain][v]);
    _mm512_storeu_ps(p.sums + v * kLaneRows, sum);
  }
}

void product_of_pairs(const TileProduct& p) {
  switch (p.vectors) {
    case 1: return multiply_pairs<1>(p);
    case 2: return multiply_pairs<2>(p);
    case 3: return multiply_pairs<3>(p);
    default: return multiply_pairs<4>(p);
  }
}

bool has_native_bf16() {
  return __builtin_cpu_supports("avx512f") != 0 && __builtin_cpu_supports("avx512bw") != 0 &&
         __builtin_cpu_supports("avx512dq") != 0 && __builtin_cpu_supports("avx512vl") != 0 &&
         __builtin_cpu_supports("avx512bf16") != 0;
}
#endif

}  // namespace

LaneKernels lane_kernels(Cell cell, Precision precision, bool portable) {
  const bool bf16 = precision == Precision::kBf16;
  LaneKernels kernels = HWY_DYNAMIC_DISPATCH(kernels_of)(cell, bf16);
#if defined(CHARRNN_NATIVE_BF16)
  if (bf16 && !portable && has_native_bf16()) {
    kernels.instructions = "AVX-512 BF16";
    kernels.product = product_of_pairs;
  }
#else
  static_cast<void>(portable);
#endif
  return kernels;
}

}  // namespace charrnn::cpu
#endif  // HWY_ONCE
