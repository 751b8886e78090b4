// Runs a kernel: its blocks one after the other, the threads of a block as fibres.
#pragma once

#include "host_cuda/launch.h"

namespace host_cuda {

void run_grid(const Launch& launch);

/// Leaves the running kernel for good, as a device does after a fault. Only from one of its threads.
[[noreturn]] void abandon_kernel();

constexpr unsigned kWarp = 32;
constexpr std::size_t kMostShared = 227U << 10U;  // bytes of dynamic shared memory of a block

}  // namespace host_cuda
