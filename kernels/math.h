// Element math that host and device share, in templates over Real: float, double (the standard library's functions, for
// tests), and the CPU's vectors. float and vectors take branch-free approximations within a few units in the last
// place.
//
// A vector's templates need the instructions of their vector, which they take from the place where they are written,
// not from where they are used. So src/cpu/vectors-inl.h includes this folder's headers of templates anew for each
// instruction set, with CHARRNN_MATH_NAMESPACE a namespace of its own; hence guards that can be undefined, in place of
// `#pragma once`.
#ifndef CHARRNN_KERNELS_MATH_H
#define CHARRNN_KERNELS_MATH_H

#include <bit>
#include <cmath>
#include <cstdint>

#ifndef CHARRNN_MATH_NAMESPACE
#define CHARRNN_MATH_NAMESPACE charrnn
#if defined(__CUDACC__)
#define CHARRNN_HD __host__ __device__ __forceinline__
#else
#define CHARRNN_HD inline __attribute__((always_inline))
#endif
#endif

namespace CHARRNN_MATH_NAMESPACE {

// What scalars and vectors spell differently; vectors-inl.h has the same for vectors.

template <class Real>
CHARRNN_HD Real select(bool condition, Real yes, Real no) {
  return condition ? yes : no;
}
/// The larger or the smaller of two; NaN stays NaN.
template <class Real>
CHARRNN_HD Real at_least(Real x, Real low) {
  return x < low ? low : x;
}
template <class Real>
CHARRNN_HD Real at_most(Real x, Real high) {
  return x > high ? high : x;
}
/// a * b + c, rounded once where that is one instruction.
template <class Real>
CHARRNN_HD Real mul_add(Real a, Real b, Real c) {
  return a * b + c;
}
template <class Real>
CHARRNN_HD Real magnitude_of(Real x) {
  return std::fabs(x);
}
template <class Real>
CHARRNN_HD Real with_sign_of(Real magnitude, Real sign) {
  return std::copysign(magnitude, sign);
}
template <class Real>
CHARRNN_HD Real sqrt_of(Real x) {
  return std::sqrt(x);
}
/// a / b for 1 <= b < 2^127. Vectors: within a unit in the last place; exactly 1 where a = b.
template <class Real>
CHARRNN_HD Real quotient_of(Real a, Real b) {
  return a / b;
}
/// 2^(n - 127) from the n in the low bits of a float; any number where that is NaN.
CHARRNN_HD float power_of_two(float n_in_low_bits) {
  return std::bit_cast<float>(std::bit_cast<std::uint32_t>(n_in_low_bits) << 23);
}

/// e^x = scale * (1 + fraction): scale = 2^k with k = round(x / ln 2), fraction = e^r - 1 with |r| <= ln(2)/2. Kept
/// apart, since 1 + fraction would lose what tanh needs near 0.
template <class Real>
struct PowerOfE {
  Real scale, fraction;
};

/// x in [-87, 88], or NaN: then fraction is NaN.
/// fraction = r * q(r). q is the polynomial of degree 5 whose largest relative error over r is the smallest, under q(0)
/// = 1 and with each coefficient a float: 1.4e-8, an eighth of a unit in the last place.
template <class Real>
CHARRNN_HD PowerOfE<Real> power_of_e(Real x) {
  constexpr float kLog2E = 1.44269504089F;
  constexpr float kRound = 12582912.0F + 127.0F;  // adding 1.5 * 2^23 leaves the nearest integer in the low bits
  constexpr float kLn2High = 0.693359375F;        // its product with |k| <= 127 is exact
  constexpr float kLn2Low = -2.12194440e-4F;
  const Real shifted = mul_add(x, Real(kLog2E), Real(kRound));
  const Real k = shifted - Real(kRound);
  const Real r = mul_add(k, Real(-kLn2Low), mul_add(k, Real(-kLn2High), x));
  Real q = Real(1.3870321e-3F);
  q = mul_add(q, r, Real(8.36626068e-3F));
  q = mul_add(q, r, Real(4.1667439e-2F));
  q = mul_add(q, r, Real(1.66665465e-1F));
  q = mul_add(q, r, Real(4.9999997e-1F));
  q = mul_add(q, r, Real(1.0F));
  return {power_of_two(shifted), q * r};
}

/// e^x for x in [-87, 88], and at the nearer end for x outside; NaN stays NaN.
template <class Real>
CHARRNN_HD PowerOfE<Real> clamped_power_of_e(Real x) {
  x = at_least(x, Real(-87.0F));
  x = at_most(x, Real(88.0F));
  return power_of_e(x);
}

/// e^x within 2 ulp in [-87, 88]; clamped outside, NaN stays NaN.
template <class Real>
CHARRNN_HD Real exp_of(Real x) {
  const PowerOfE<Real> e = clamped_power_of_e(x);
  return mul_add(e.fraction, e.scale, e.scale);
}
CHARRNN_HD double exp_of(double x) { return std::exp(x); }

/// 1 / (1 + e^-x) within 3 ulp.
template <class Real>
CHARRNN_HD Real sigmoid(Real x) {
  const PowerOfE<Real> e = clamped_power_of_e(-x);
  return quotient_of(Real(1.0F), mul_add(e.fraction, e.scale, e.scale + Real(1.0F)));
}
CHARRNN_HD double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }

/// tanh within 4 ulp everywhere: (e^2x - 1) / (e^2x - 1 + 2), with e^2x - 1 formed without cancellation.
template <class Real>
CHARRNN_HD Real tanh_of(Real x) {
  const Real a = magnitude_of(x);
  const PowerOfE<Real> e = power_of_e(at_most(a + a, Real(20.0F)));  // from 18.1 on the nearest float is 1
  const Real e_less_1 = mul_add(e.fraction, e.scale, e.scale - Real(1.0F));
  return with_sign_of(quotient_of(e_less_1, e_less_1 + Real(2.0F)), x);
}
CHARRNN_HD double tanh_of(double x) { return std::tanh(x); }

}  // namespace CHARRNN_MATH_NAMESPACE

#endif
