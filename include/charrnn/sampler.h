// Drawing characters from logits.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "charrnn/network_shape.h"
#include "charrnn/vocabulary.h"

namespace charrnn {

class Network;

struct SampleSettings {
  std::int64_t length = 2000;  // characters to draw, besides the prime
  double temperature = 1.0;    // > 0; logits are divided by it
  int top_k = 0;               // draw among the k likeliest; 0: all
  bool greedy = false;         // the likeliest each time (temperature -> 0)
  std::string prime;           // fed first; empty: the first character is drawn uniformly (char-rnn's way)
  std::string stop;            // a text ends when it ends with this; empty: never
  std::uint64_t seed = 1;
  int count = 1;  // texts, drawn as one batch. Text i takes the same random numbers whatever the count, and is the same
                  // but where rounding tips a draw: other numbers of lanes are multiplied in other orders
};

/// One draw. `random` in [0, 1). Pure: tests hold it to the distribution.
TokenId draw(const float* logits, int vocabulary, const SampleSettings& settings, double random);

/// Draws texts from a network. `emit(i, bytes)` receives the characters of text i as they come (the prime first).
/// @returns the texts, prime included
/// @throws DataError if the prime holds a character outside the vocabulary; ConfigError for settings out of range
std::vector<std::string> sample_texts(Network& network, const Vocabulary& vocabulary, const SampleSettings& settings,
                                      const std::function<void(int text, std::string_view bytes)>& emit = {},
                                      const std::function<bool()>& cancelled = {});

/// Texts from a checkpoint: `Sampler::load("runs/shakespeare").draw_texts({.length = 300, .prime = "\n"})`.
class Sampler {
 public:
  /// @param run_or_checkpoint, device, threads  as Rnn::load takes them
  /// @throws FormatError, DeviceError, ConfigError
  static Sampler load(const std::filesystem::path& run_or_checkpoint, const std::string& device = "auto",
                      int threads = 0);

  ~Sampler();
  Sampler(const Sampler&) = delete;
  Sampler& operator=(const Sampler&) = delete;
  Sampler(Sampler&&) noexcept;
  Sampler& operator=(Sampler&&) noexcept;

  /// sample_texts() of its network. Not safe for concurrent calls.
  std::vector<std::string> draw_texts(const SampleSettings& settings,
                                      const std::function<void(int text, std::string_view bytes)>& emit = {});
  const Vocabulary& vocabulary() const noexcept;

 private:
  struct Parts;
  explicit Sampler(std::unique_ptr<Parts> parts);
  std::unique_ptr<Parts> parts_;
};

}  // namespace charrnn
