// Vectors of the instruction set that the including file is being compiled for, and the math of kernels/*.h on them.
// For files that Highway compiles several times (hwy/foreach_target.h); like all of those, what stands here is in a
// namespace of its own for each instruction set: charrnn::HWY_NAMESPACE.
#if defined(CHARRNN_CPU_VECTORS_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef CHARRNN_CPU_VECTORS_INL_H
#undef CHARRNN_CPU_VECTORS_INL_H
#else
#define CHARRNN_CPU_VECTORS_INL_H
#endif

#include <hwy/highway.h>

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "cpu/element.h"
// Those for scalars, and all that they include themselves.
#include "kernels/gru_cell.h"
#include "kernels/lstm_cell.h"
#include "kernels/optimizer.h"
#include "kernels/philox.h"
#include "kernels/rnn_cell.h"

#undef CHARRNN_AVX512
#if HWY_ARCH_X86 && HWY_TARGET <= HWY_AVX3  // the better a target, the lower its number
#define CHARRNN_AVX512 1
#else
#define CHARRNN_AVX512 0
#endif

HWY_BEFORE_NAMESPACE();
namespace charrnn::HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

using FloatTag = hn::ScalableTag<float>;
using WordTag = hn::RebindToUnsigned<FloatTag>;  // of 32 bits
using HalfTag = hn::Rebind<std::uint16_t, FloatTag>;
inline constexpr int kLanes = static_cast<int>(hn::MaxLanes(FloatTag()));

/// Which units: a vector full, or the last ones of a row, fewer than kLanes.
struct AllLanes {};
struct FirstLanes {
  int count;
};

struct Mask {
  hn::Mask<FloatTag> m;
};

struct Floats {
  hn::Vec<FloatTag> v;

  Floats() = default;
  explicit HWY_INLINE Floats(hn::Vec<FloatTag> x) : v(x) {}
  explicit HWY_INLINE Floats(float x) : v(hn::Set(FloatTag(), x)) {}
};

// No friends in the class: g++ gives those the instructions of the command line, and with them other registers for
// arguments, which shows where nothing is inlined.
HWY_INLINE Floats operator-(Floats x) { return Floats(hn::Neg(x.v)); }
HWY_INLINE Floats operator+(Floats a, Floats b) { return Floats(hn::Add(a.v, b.v)); }
HWY_INLINE Floats operator-(Floats a, Floats b) { return Floats(hn::Sub(a.v, b.v)); }
HWY_INLINE Floats operator*(Floats a, Floats b) { return Floats(hn::Mul(a.v, b.v)); }
HWY_INLINE Floats operator/(Floats a, Floats b) { return Floats(hn::Div(a.v, b.v)); }
HWY_INLINE Floats& operator+=(Floats& a, Floats b) { return a = a + b; }
HWY_INLINE Floats& operator-=(Floats& a, Floats b) { return a = a - b; }
HWY_INLINE Mask operator<(Floats a, Floats b) { return {hn::Lt(a.v, b.v)}; }
HWY_INLINE Mask operator>(Floats a, Floats b) { return {hn::Gt(a.v, b.v)}; }

HWY_INLINE Floats select(Mask condition, Floats yes, Floats no) {
  return Floats(hn::IfThenElse(condition.m, yes.v, no.v));
}
#if HWY_TARGET <= HWY_SSSE3 && HWY_ARCH_X86  // one instruction, whose result is its second operand where one is NaN
HWY_INLINE Floats at_least(Floats x, Floats low) { return Floats(hn::Max(low.v, x.v)); }
HWY_INLINE Floats at_most(Floats x, Floats high) { return Floats(hn::Min(high.v, x.v)); }
#else
HWY_INLINE Floats at_least(Floats x, Floats low) { return select(x < low, low, x); }
HWY_INLINE Floats at_most(Floats x, Floats high) { return select(x > high, high, x); }
#endif
HWY_INLINE Floats mul_add(Floats a, Floats b, Floats c) { return Floats(hn::MulAdd(a.v, b.v, c.v)); }
HWY_INLINE Floats magnitude_of(Floats x) { return Floats(hn::Abs(x.v)); }
HWY_INLINE Floats with_sign_of(Floats magnitude, Floats sign) { return Floats(hn::CopySignToAbs(magnitude.v, sign.v)); }
HWY_INLINE Floats sqrt_of(Floats x) { return Floats(hn::Sqrt(x.v)); }

HWY_INLINE Floats quotient_of(Floats a, Floats b) {
#if CHARRNN_AVX512
  // From 14 bits: a r misses by the factor 1 - e, |e| < 2^-14; what is missing, times r again, leaves e^2 and a
  // rounding.
  const auto r = hn::ApproximateReciprocal(b.v);
  const auto q = hn::Mul(a.v, r);
  return Floats(hn::MulAdd(hn::NegMulAdd(q, b.v, a.v), r, q));
#else
  return a / b;  // elsewhere the approximation has 12 bits, and one more step costs what division does
#endif
}

HWY_INLINE Floats power_of_two(Floats n_in_low_bits) {
  return Floats(hn::BitCast(FloatTag(), hn::ShiftLeft<23>(hn::BitCast(WordTag(), n_in_low_bits.v))));
}

#if HWY_TARGET != HWY_SCALAR
/// Philox's words, each in the low half of a lane of 64 bits; what is in the high half does not matter. So the products
/// of two words need no shuffles.
struct Words {
  using Tag = hn::ScalableTag<std::uint64_t>;
  hn::Vec<Tag> v;

  explicit HWY_INLINE Words(hn::Vec<Tag> x) : v(x) {}
  explicit HWY_INLINE Words(std::uint32_t x) : v(hn::Set(Tag(), x)) {}
};
HWY_INLINE Words operator|(Words a, Words b) { return Words(hn::Or(a.v, b.v)); }
HWY_INLINE Words operator^(Words a, Words b) { return Words(hn::Xor(a.v, b.v)); }
#endif

}  // namespace charrnn::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

// Once more, for vectors: math.h says why.
#undef CHARRNN_KERNELS_MATH_H
#undef CHARRNN_KERNELS_GRU_CELL_H
#undef CHARRNN_KERNELS_LSTM_CELL_H
#undef CHARRNN_KERNELS_OPTIMIZER_H
#undef CHARRNN_KERNELS_PHILOX_H
#undef CHARRNN_KERNELS_RNN_CELL_H
#undef CHARRNN_MATH_NAMESPACE
#define CHARRNN_MATH_NAMESPACE charrnn::HWY_NAMESPACE
HWY_BEFORE_NAMESPACE();
#include "kernels/gru_cell.h"
#include "kernels/lstm_cell.h"
#include "kernels/optimizer.h"
#include "kernels/philox.h"
#include "kernels/rnn_cell.h"
HWY_AFTER_NAMESPACE();
#undef CHARRNN_MATH_NAMESPACE
#define CHARRNN_MATH_NAMESPACE charrnn

HWY_BEFORE_NAMESPACE();
namespace charrnn::HWY_NAMESPACE {

#if HWY_TARGET != HWY_SCALAR
HWY_INLINE WideProduct<Words> wide_product(std::uint32_t a, Words x) {
  const hn::Repartition<std::uint32_t, Words::Tag> tag;
  const auto product = hn::MulEven(hn::BitCast(tag, hn::Set(Words::Tag(), a)), hn::BitCast(tag, x.v));
  return {Words(hn::ShiftRight<32>(product)), Words(product)};
}
#endif

// Rows in memory, at any alignment. Of FirstLanes no other element is read or written; the other lanes are zero.

#if CHARRNN_AVX512 || HWY_TARGET == HWY_AVX2
HWY_INLINE Floats load(const float* from, FirstLanes lanes) {
  const FloatTag tag;
  return Floats(hn::MaskedLoad(hn::FirstN(tag, static_cast<std::size_t>(lanes.count)), tag, from));
}
HWY_INLINE void store(Floats x, float* to, FirstLanes lanes) {
  const FloatTag tag;
  hn::BlendedStore(x.v, hn::FirstN(tag, static_cast<std::size_t>(lanes.count)), tag, to);
}
#else
HWY_INLINE Floats load(const float* from, FirstLanes lanes) {
  HWY_ALIGN float part[kLanes] = {};
  std::memcpy(part, from, static_cast<std::size_t>(lanes.count) * sizeof *from);
  return Floats(hn::Load(FloatTag(), part));
}
HWY_INLINE void store(Floats x, float* to, FirstLanes lanes) {
  HWY_ALIGN float part[kLanes];
  hn::Store(x.v, FloatTag(), part);
  std::memcpy(to, part, static_cast<std::size_t>(lanes.count) * sizeof *to);
}
#endif
HWY_INLINE Floats load(const float* from, AllLanes) { return Floats(hn::LoadU(FloatTag(), from)); }
HWY_INLINE void store(Floats x, float* to, AllLanes) { hn::StoreU(x.v, FloatTag(), to); }

// Bf16 as what it is, an integer of 16 bits.
using Halves = hn::Vec<HalfTag>;
HWY_INLINE Halves load_halves(const std::uint16_t* from, AllLanes) { return hn::LoadU(HalfTag(), from); }
HWY_INLINE void store_halves(Halves x, std::uint16_t* to, AllLanes) { hn::StoreU(x, HalfTag(), to); }
#if CHARRNN_AVX512
HWY_INLINE Halves load_halves(const std::uint16_t* from, FirstLanes lanes) {
  const HalfTag tag;
  return hn::MaskedLoad(hn::FirstN(tag, static_cast<std::size_t>(lanes.count)), tag, from);
}
HWY_INLINE void store_halves(Halves x, std::uint16_t* to, FirstLanes lanes) {
  const HalfTag tag;
  hn::BlendedStore(x, hn::FirstN(tag, static_cast<std::size_t>(lanes.count)), tag, to);
}
#else
HWY_INLINE Halves load_halves(const std::uint16_t* from, FirstLanes lanes) {
  HWY_ALIGN std::uint16_t part[kLanes] = {};
  std::memcpy(part, from, static_cast<std::size_t>(lanes.count) * sizeof *from);
  return hn::Load(HalfTag(), part);
}
HWY_INLINE void store_halves(Halves x, std::uint16_t* to, FirstLanes lanes) {
  HWY_ALIGN std::uint16_t part[kLanes];
  hn::Store(x, HalfTag(), part);
  std::memcpy(to, part, static_cast<std::size_t>(lanes.count) * sizeof *to);
}
#endif

template <class Lanes>
HWY_INLINE Floats load(const cpu::Bf16* from, Lanes lanes) {
  const auto wide = hn::PromoteTo(WordTag(), load_halves(&from->bits, lanes));
  return Floats(hn::BitCast(FloatTag(), hn::ShiftLeft<16>(wide)));
}

/// from_float() of element.h for Bf16, in the upper half of each lane; what is in the lower half does not matter.
HWY_INLINE hn::Vec<WordTag> bf16_in_upper_half(Floats x) {
  const WordTag tag;
  const auto bits = hn::BitCast(tag, x.v);
  const auto odd = hn::And(hn::ShiftRight<16>(bits), hn::Set(tag, 1U));
  const auto nearest = hn::Add(bits, hn::Add(odd, hn::Set(tag, 0x7FFFU)));
  const auto quiet = hn::Or(bits, hn::Set(tag, 0x400000U));
  const auto is_nan = hn::RebindMask(tag, hn::IsNaN(x.v));
  return hn::IfThenElse(is_nan, quiet, nearest);
}
template <class Lanes>
HWY_INLINE void store_upper_halves(hn::Vec<WordTag> x, std::uint16_t* to, Lanes lanes) {
  store_halves(hn::TruncateTo(HalfTag(), hn::ShiftRight<16>(x)), to, lanes);
}

/// Rounds to the type of the row.
template <class Lanes>
HWY_INLINE void store(Floats x, cpu::Bf16* to, Lanes lanes) {
  store_upper_halves(bf16_in_upper_half(x), &to->bits, lanes);
}

/// x as a row of E has it.
template <class E>
HWY_INLINE Floats rounded(Floats x);
template <>
HWY_INLINE Floats rounded<float>(Floats x) {
  return x;
}
template <>
HWY_INLINE Floats rounded<cpu::Bf16>(Floats x) {
  const WordTag tag;
  return Floats(hn::BitCast(FloatTag(), hn::And(bf16_in_upper_half(x), hn::Set(tag, 0xFFFF0000U))));
}
/// Stores what rounded() gave.
template <class Lanes>
HWY_INLINE void store_rounded(Floats x, float* to, Lanes lanes) {
  store(x, to, lanes);
}
template <class Lanes>
HWY_INLINE void store_rounded(Floats x, cpu::Bf16* to, Lanes lanes) {
  store_upper_halves(hn::BitCast(WordTag(), x.v), &to->bits, lanes);
}

/// x in those lanes, and `other` in the rest.
HWY_INLINE Floats keep(AllLanes, Floats x, Floats /*other*/) { return x; }
HWY_INLINE Floats keep(FirstLanes lanes, Floats x, Floats other) {
  return Floats(hn::IfThenElse(hn::FirstN(FloatTag(), static_cast<std::size_t>(lanes.count)), x.v, other.v));
}

HWY_INLINE Mask is_negative_zero(Floats x) {
  const WordTag tag;
  return {hn::RebindMask(FloatTag(), hn::Eq(hn::BitCast(tag, x.v), hn::Set(tag, 0x80000000U)))};
}

}  // namespace charrnn::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
