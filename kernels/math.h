// Element math that host and device share. float takes branch-free approximations that a compiler can vectorise, within
// a few units in the last place; double takes the standard library's.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>

#if defined(__CUDACC__)
#define CHARRNN_HD __host__ __device__ __forceinline__
#else
#define CHARRNN_HD inline __attribute__((always_inline))
#endif

namespace charrnn {

/// e^x to about 1 ulp in [-87, 88]; clamped outside, NaN stays NaN.
/// 2^k * e^r with k = round(x / ln 2), |r| <= ln(2)/2, and Taylor's polynomial of degree 7 for e^r,
/// whose remainder r^8 / 8! is below 6e-9.
CHARRNN_HD float exp_of(float x) {
  constexpr float kLow = -87.0F, kHigh = 88.0F;
  x = x < kLow ? kLow : x;
  x = x > kHigh ? kHigh : x;
  constexpr float kLog2E = 1.44269504089F;
  constexpr float kRound = 12582912.0F;     // 1.5 * 2^23: adding it leaves the nearest integer in the low bits
  constexpr float kLn2High = 0.693359375F;  // its product with |k| <= 127 is exact
  constexpr float kLn2Low = -2.12194440e-4F;
  const float shifted = x * kLog2E + kRound;
  const float k = shifted - kRound;
  const float r = (x - k * kLn2High) - k * kLn2Low;
  float p = 1.0F / 5040.0F;
  p = p * r + 1.0F / 720.0F;
  p = p * r + 1.0F / 120.0F;
  p = p * r + 1.0F / 24.0F;
  p = p * r + 1.0F / 6.0F;
  p = p * r + 0.5F;
  p = p * r + 1.0F;
  p = p * r + 1.0F;
  const std::int32_t exponent = std::bit_cast<std::int32_t>(shifted) - std::bit_cast<std::int32_t>(kRound);
  return p * std::bit_cast<float>((exponent + 127) << 23);
}
CHARRNN_HD double exp_of(double x) { return std::exp(x); }

template <class Real>
CHARRNN_HD Real sigmoid(Real x) {
  return Real(1) / (Real(1) + exp_of(-x));
}

/// tanh to a few ulp everywhere: a polynomial near 0, where 1 - 2 / (e^2x + 1) would cancel.
/// Polynomial: the minimax one of the Cephes library (S. Moshier, public domain) for |x| < 0.625.
CHARRNN_HD float tanh_of(float x) {
  const float a = x < 0.0F ? -x : x;
  const float far = 1.0F - 2.0F / (exp_of(2.0F * a) + 1.0F);
  const float z = x * x;
  float p = -5.70498872745e-3F;
  p = p * z + 2.06390887954e-2F;
  p = p * z - 5.37397155531e-2F;
  p = p * z + 1.33314422036e-1F;
  p = p * z - 3.33332819422e-1F;
  const float near = p * z * x + x;
  const float signed_far = x < 0.0F ? -far : far;
  return a < 0.625F ? near : signed_far;
}
CHARRNN_HD double tanh_of(double x) { return std::tanh(x); }

}  // namespace charrnn
