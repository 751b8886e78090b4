// The types in which activations, and what products read, stand in memory. Arithmetic is float everywhere.
#pragma once

#include <bit>
#include <cstdint>
#include <type_traits>

namespace charrnn::cpu {

enum class Element : std::uint8_t { kF32, kBf16 };

/// bfloat16: a float's upper half.
struct Bf16 {
  std::uint16_t bits = 0;
};

template <class E>
constexpr Element element_of() {
  return std::is_same_v<E, float> ? Element::kF32 : Element::kBf16;
}

inline float to_float(float x) { return x; }
inline float to_float(Bf16 x) { return std::bit_cast<float>(std::uint32_t{x.bits} << 16); }

/// To the nearest, ties to even; NaN stays NaN.
template <class E>
E from_float(float x);
template <>
inline float from_float<float>(float x) {
  return x;
}
template <>
inline Bf16 from_float<Bf16>(float x) {
  const auto bits = std::bit_cast<std::uint32_t>(x);
  if (x != x) return {static_cast<std::uint16_t>(bits >> 16 | 0x40U)};
  return {static_cast<std::uint16_t>((bits + 0x7FFFU + (bits >> 16 & 1U)) >> 16)};
}

}  // namespace charrnn::cpu
