// The CPU as a backend.
#pragma once

#include <memory>

#include "backend/backend.h"

namespace charrnn::cpu {

/// @param threads  0: all processors that this process may use
std::unique_ptr<Backend> make_cpu_backend(int threads);

/// The processor's name as the system gives it.
std::string cpu_name();
/// How many processors this process may use.
int usable_processors();

/// What this processor computes in, the first being what `auto` takes: bf16 where its products are native (AVX-512
/// BF16, AMX), and fp32.
std::vector<Precision> precisions();

}  // namespace charrnn::cpu
