// Where the loaded program and its libraries keep what a kernel may touch besides device memory: static shared memory
// (thread-local storage of the module, prelude.h) and constants.
#pragma once

#include "host_cuda/cells.h"

namespace host_cuda {

/// What is known of the bytes from `address` on, if it is static shared memory, or null.
Cell* static_shared(const void* address);
void forget_static_shared();
/// The address lies in a part of a module that nobody can write.
bool read_only(const void* address);

}  // namespace host_cuda
