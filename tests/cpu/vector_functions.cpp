#include "cpu/vector_functions.h"

#undef HWY_DISABLED_TARGETS
#define HWY_DISABLED_TARGETS HWY_SSSE3  // as src/cpu/row_ops.cpp
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cpu/vector_functions.cpp"
#include <hwy/foreach_target.h>  // before what uses Highway

#include "cpu/vectors-inl.h"

HWY_BEFORE_NAMESPACE();
namespace vector_functions::HWY_NAMESPACE {

namespace vec = charrnn::HWY_NAMESPACE;

template <class Lanes>
HWY_INLINE void apply_one(Function f, const float* from, float* to, Lanes lanes) {
  const vec::Floats x = vec::load(from, lanes);
  switch (f) {
    case Function::kExp: return vec::store(vec::exp_of(x), to, lanes);
    case Function::kSigmoid: return vec::store(vec::sigmoid(x), to, lanes);
    case Function::kTanh: return vec::store(vec::tanh_of(x), to, lanes);
  }
}

void apply_any(Function f, const float* x, float* y, int n) {
  int j = 0;
  for (; j + vec::kLanes <= n; j += vec::kLanes) apply_one(f, x + j, y + j, vec::AllLanes{});
  if (j < n) apply_one(f, x + j, y + j, vec::FirstLanes{n - j});
}

}  // namespace vector_functions::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE

namespace vector_functions {

HWY_EXPORT(apply_any);
void apply(Function f, const float* x, float* y, int n) { HWY_DYNAMIC_DISPATCH(apply_any)(f, x, y, n); }

}  // namespace vector_functions

#endif  // HWY_ONCE
