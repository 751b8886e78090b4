// How much memory is to be had, so that too large a network is refused instead of being killed when it touches its
// pages.
#pragma once

#include <cstddef>
#include <string>

namespace charrnn::cpu {

/// Bytes that this process may still take: what the system calls available, or less where its control group says so.
std::size_t available_memory();

/// @throws DeviceError saying what is needed, what there is and what to make smaller
void require_memory(std::size_t bytes, const std::string& what);

}  // namespace charrnn::cpu
