// The functions of kernels/math.h on vectors, element by element, on the target that Highway has chosen.
#pragma once

namespace vector_functions {

enum class Function { kExp, kSigmoid, kTanh };

/// y = f(x), n elements.
void apply(Function f, const float* x, float* y, int n);

}  // namespace vector_functions
