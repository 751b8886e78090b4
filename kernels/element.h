// The types in which activations and gradients stand in device memory. Arithmetic is float everywhere.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstddef>
#include <cstdint>

#include "kernels/math.h"

namespace charrnn::cuda {

enum class Element : std::uint8_t { kF32, kF16, kBf16 };
using F16 = __half;
using Bf16 = __nv_bfloat16;

constexpr std::size_t size_of(Element e) { return e == Element::kF32 ? 4 : 2; }

CHARRNN_HD float to_float(float x) { return x; }
CHARRNN_HD float to_float(F16 x) { return __half2float(x); }
CHARRNN_HD float to_float(Bf16 x) { return __bfloat162float(x); }

template <class To>
CHARRNN_HD To from_float(float x);
template <>
CHARRNN_HD float from_float<float>(float x) {
  return x;
}
template <>
CHARRNN_HD F16 from_float<F16>(float x) {
  return __float2half_rn(x);
}
template <>
CHARRNN_HD Bf16 from_float<Bf16>(float x) {
  return __float2bfloat16_rn(x);
}

/// Calls f with a value of the element's type, to choose an instance of a kernel.
template <class F>
void with_element(Element e, const F& f) {
  switch (e) {
    case Element::kF32: return f(float{});
    case Element::kF16: return f(F16{});
    case Element::kBf16: return f(Bf16{});
  }
}

}  // namespace charrnn::cuda
