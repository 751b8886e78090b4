// Windows of T steps through the network on the CPU. The lanes are dealt to slices, one a thread; each slice runs
// forward and backward through all layers and steps on its own, and threads meet only where gradients of weights are
// summed.
#pragma once

#include <deque>
#include <optional>
#include <vector>

#include "cpu/slice.h"
#include "cpu/weight_gradients.h"

namespace charrnn::cpu {

/// E: the type of activations, float or Bf16.
template <class E>
class CpuSession final : public Session {
 public:
  CpuSession(CpuNetwork& network, const SessionShape& shape);

  void reset() override;
  void get_state(std::span<float> h, std::span<float> c) override;
  void set_state(std::span<const float> h, std::span<const float> c) override;
  void forward(const Window& window, std::span<float> logits) override;
  void forward_dense(int steps, std::span<const float> x, std::span<float> logits) override;
  WindowLoss evaluate(const Window& window) override;
  WindowLoss gradients(const Window& window, const DropoutKey& dropout) override;
  void submit_step(const Window& window, const DropoutKey& dropout, const UpdateSettings& settings) override;
  StepResult next_result() override;
  bool generate(int steps, std::span<const TokenId> ids, const DrawSettings& settings,
                std::span<TokenId> drawn) override;

  /// Bytes that a session of this shape allocates, summed over its slices.
  static std::size_t memory_bytes(const NetworkShape& n, const SessionShape& s, int threads);

 private:
  template <class Work>
  void run_slices(const Work& work);
  WindowLoss loss() const;
  void generate_one(TokenId first, const DrawSettings& settings, std::span<TokenId> drawn);
  void generate_slice(Slice<E>& slice, int steps, std::span<const TokenId> ids, const DrawSettings& settings,
                      std::span<TokenId> drawn);

  CpuNetwork& network_;
  SessionShape shape_;
  std::deque<Slice<E>> slices_;     // not movable: products hold addresses
  std::vector<WindowLoss> losses_;  // of the window at hand, one a slice
  std::optional<WeightGradients<E>> weight_gradients_;
  std::vector<float> lane_h_, lane_c_;  // [L,H] of a session of one lane that draws
  std::vector<StepResult> results_;     // submitted and not yet asked for, the oldest first
};

}  // namespace charrnn::cpu
