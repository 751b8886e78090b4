// What is asked of a whole text on the device, through Thrust.
#pragma once

#include <cstdint>

#include "kernels/windows.h"

namespace charrnn::cuda {

/// The offset of the first byte whose id is kNoId; -1: there is none. Waits.
std::int64_t first_unknown(const std::uint8_t* text, std::int64_t size, const DeviceId* ids_of_bytes);

}  // namespace charrnn::cuda
