// Philox 4x32-10, a counter-based generator: the same (counter, key) gives the same four numbers on every device.
// Source: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (SC 2011).
#ifndef CHARRNN_KERNELS_PHILOX_H  // math.h says why
#define CHARRNN_KERNELS_PHILOX_H

#include <cstdint>

#include "kernels/math.h"

namespace CHARRNN_MATH_NAMESPACE {

/// Word: std::uint32_t, or the CPU's vectors of them.
template <class Word>
struct PhiloxWords {
  Word x0, x1, x2, x3;
};
using PhiloxBlock = PhiloxWords<std::uint32_t>;

/// a * x, as two words.
template <class Word>
struct WideProduct {
  Word high, low;
};
CHARRNN_HD WideProduct<std::uint32_t> wide_product(std::uint32_t a, std::uint32_t x) {
  const std::uint64_t product = std::uint64_t{a} * x;
  return {static_cast<std::uint32_t>(product >> 32), static_cast<std::uint32_t>(product)};
}

template <class Word>
CHARRNN_HD PhiloxWords<Word> philox_words(PhiloxWords<Word> counter, std::uint32_t key0, std::uint32_t key1) {
  for (int round = 0; round < 10; ++round) {
    const WideProduct<Word> p0 = wide_product(0xD2511F53U, counter.x0);
    const WideProduct<Word> p1 = wide_product(0xCD9E8D57U, counter.x2);
    counter = {p1.high ^ counter.x1 ^ Word(key0), p1.low, p0.high ^ counter.x3 ^ Word(key1), p0.low};
    key0 += 0x9E3779B9U;
    key1 += 0xBB67AE85U;
  }
  return counter;
}
CHARRNN_HD PhiloxBlock philox(PhiloxBlock counter, std::uint32_t key0, std::uint32_t key1) {
  return philox_words(counter, key0, key1);
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
template <class Word>
CHARRNN_HD PhiloxWords<Word> dropout_words(std::uint64_t seed, std::uint64_t step, std::uint32_t layer, std::uint32_t t,
                                           std::uint32_t lane, Word k) {
  return philox_words<Word>({k | Word(layer << 24), Word(lane), Word(t), Word(static_cast<std::uint32_t>(step))},
                            static_cast<std::uint32_t>(seed),
                            static_cast<std::uint32_t>(seed >> 32) ^ static_cast<std::uint32_t>(step >> 32));
}
CHARRNN_HD PhiloxBlock dropout_numbers(std::uint64_t seed, std::uint64_t step, std::uint32_t layer, std::uint32_t t,
                                       std::uint32_t lane, std::uint32_t k) {
  return dropout_words(seed, step, layer, t, lane, k);
}

/// The bound below which a number drops its unit. probability in [0, 1).
CHARRNN_HD std::uint32_t dropout_bound(float probability) {
  return static_cast<std::uint32_t>(static_cast<double>(probability) * 4294967296.0);
}

}  // namespace CHARRNN_MATH_NAMESPACE

#endif
