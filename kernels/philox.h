// Philox 4x32-10, a counter-based generator: the same (counter, key) gives the same four numbers on every device.
// Source: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (SC 2011).
#pragma once

#include <cstdint>

#include "kernels/math.h"

namespace charrnn {

struct PhiloxBlock {
  std::uint32_t x0, x1, x2, x3;
};

CHARRNN_HD PhiloxBlock philox(PhiloxBlock counter, std::uint32_t key0, std::uint32_t key1) {
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t p0 = std::uint64_t{0xD2511F53U} * counter.x0;
    const std::uint64_t p1 = std::uint64_t{0xCD9E8D57U} * counter.x2;
    counter = {static_cast<std::uint32_t>(p1 >> 32) ^ counter.x1 ^ key0, static_cast<std::uint32_t>(p1),
               static_cast<std::uint32_t>(p0 >> 32) ^ counter.x3 ^ key1, static_cast<std::uint32_t>(p0)};
    key0 += 0x9E3779B9U;
    key1 += 0xBB67AE85U;
  }
  return counter;
}

/// A number in [0, 1) from 53 bits of two words.
CHARRNN_HD double uniform_of(std::uint32_t high, std::uint32_t low) {
  return static_cast<double>((std::uint64_t{high} << 32 | low) >> 11) * 0x1p-53;
}

/// The n-th (from 0) uniform number of stream `stream` under `seed`: two to a block.
CHARRNN_HD double stream_uniform(std::uint64_t seed, std::uint64_t stream, std::uint64_t n) {
  const std::uint64_t block = n / 2;
  const PhiloxBlock x = philox({static_cast<std::uint32_t>(block), static_cast<std::uint32_t>(block >> 32),
                                static_cast<std::uint32_t>(stream), static_cast<std::uint32_t>(stream >> 32)},
                               static_cast<std::uint32_t>(seed), static_cast<std::uint32_t>(seed >> 32));
  return n % 2 == 0 ? uniform_of(x.x0, x.x1) : uniform_of(x.x2, x.x3);
}

/// Dropout: the numbers of units 4k..4k+3 of one (layer, t, lane) at one step. Unit u is dropped where its number is
/// below probability * 2^32. The counter holds k and the layer, the lane, t, and the step's low half; the key holds the
/// seed, with the step's high half folded in.
CHARRNN_HD PhiloxBlock dropout_numbers(std::uint64_t seed, std::uint64_t step, std::uint32_t layer, std::uint32_t t,
                                       std::uint32_t lane, std::uint32_t k) {
  return philox({k | (layer << 24), lane, t, static_cast<std::uint32_t>(step)}, static_cast<std::uint32_t>(seed),
                static_cast<std::uint32_t>(seed >> 32) ^ static_cast<std::uint32_t>(step >> 32));
}

/// The bound below which a number drops its unit. probability in [0, 1).
CHARRNN_HD std::uint32_t dropout_bound(float probability) {
  return static_cast<std::uint32_t>(static_cast<double>(probability) * 4294967296.0);
}

}  // namespace charrnn
