// A trained network, a step at a time: y = rnn.step(x), after Karpathy, "The Unreasonable Effectiveness of Recurrent
// Neural Networks" (2015).
#pragma once

#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "charrnn/network_shape.h"
#include "charrnn/vocabulary.h"

namespace charrnn {

class Rnn {
 public:
  struct State {
    std::vector<float> h, c;  // [L,H] each; c empty for cells without it
  };

  /// @param run_or_checkpoint  a checkpoint's folder, or a run's (its best, else its newest checkpoint)
  /// @param device             auto | cpu | cuda | cuda:N
  /// @throws FormatError, DeviceError, ConfigError
  static Rnn load(const std::filesystem::path& run_or_checkpoint, const std::string& device = "auto", int threads = 0);

  ~Rnn();
  Rnn(const Rnn&) = delete;
  Rnn& operator=(const Rnn&) = delete;
  Rnn(Rnn&&) noexcept;
  Rnn& operator=(Rnn&&) noexcept;

  /// @param x   id of the current character, in [0, V)
  /// @return    logits [V], unnormalised; the view is valid until the next call on this object
  /// @throws    ShapeError if x is outside [0, V), state unchanged
  /// Cost: one pass over the weights (memory-bound). Waits for the result. Not safe for concurrent calls.
  std::span<const float> step(TokenId x);

  /// The same for a dense vector x [V] in place of a 1-of-k one, so that y = rnn2.step(rnn1.step(x)) works.
  std::span<const float> step(std::span<const float> x);

  void reset();
  State state() const;
  void set_state(const State& state);  // @throws ShapeError

  const NetworkShape& shape() const noexcept;
  const Vocabulary& vocabulary() const noexcept;

 private:
  struct Parts;
  explicit Rnn(std::unique_ptr<Parts> parts);
  std::unique_ptr<Parts> parts_;
};

}  // namespace charrnn
