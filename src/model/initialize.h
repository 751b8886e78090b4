// Fresh parameters, and generators that are functions of a seed and a counter.
#pragma once

#include <cstdint>
#include <span>

#include "backend/parameter_layout.h"
#include "charrnn/config.h"

namespace charrnn {

/// Random numbers by counter (Philox 4x32-10): the n-th number of stream `stream` under `seed`, whatever came before.
class Rng {
 public:
  explicit Rng(std::uint64_t seed, std::uint64_t stream = 0) : seed_(seed), stream_(stream) {}
  std::uint32_t next_u32();
  double uniform();  // [0, 1), 53 bits
  double normal();   // mean 0, variance 1 (Box-Muller)

 private:
  std::uint64_t seed_, stream_, block_ = 0;
  std::uint32_t buffer_[4] = {};
  int left_ = 0;
};

/// Streams of Rng, so that changing one thing's numbers changes no other's.
enum RngStream : std::uint64_t { kInitStream = 1, kSampleStream = 2, kBenchStream = 3 };

/// uniform: every parameter U(-scale, scale), as char-rnn does. normal: weights N(0, scale), biases 0, as min-char-rnn
/// does. Then, for LSTM, the forget gate's rows of bias_ih become forget_bias; bias_hh's stay as drawn.
/// @param arena  [layout.arena_size()], overwritten; padding becomes 0
void initialize_parameters(const ParameterLayout& layout, const ModelConfig& model, std::uint64_t seed,
                           std::span<float> arena);

}  // namespace charrnn
