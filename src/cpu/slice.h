// Some lanes of a session on one thread: all layers and steps, forward and backward, free of the other slices. What it
// leaves behind (activations, gradients of pre-activations) is what gradients of weights are summed from.
#pragma once

#include <span>
#include <vector>

#include "cpu/cpu_network.h"

namespace charrnn::cpu {

/// What layer 0 reads: characters, or dense vectors.
struct LayerInput {
  std::span<const TokenId> ids;  // [T,B] of all lanes of the session
  std::span<const float> dense;  // [T,B,V]; used if not empty
};

/// E: the type of activations, float or Bf16. b lanes of the session's B, W columns of a row of gates.
template <class E>
class Slice {
 public:
  Slice(CpuNetwork& network, const SessionShape& shape, Range lanes);
  static std::size_t memory_bytes(const NetworkShape& n, const SessionShape& s, std::int64_t b);

  int first() const { return first_; }
  int lanes() const { return lanes_; }

  /// States that the next window starts from: h [L,B,H], c [L,B,H] or empty, of all lanes of the session.
  void zero_state();
  void get_state(std::span<float> h, std::span<float> c) const;
  void set_state(std::span<const float> h, std::span<const float> c);

  /// In this order, on any one thread. backward() needs a session for training.
  void start(std::span<const std::uint8_t> reset);
  void forward(int steps, const LayerInput& input, const DropoutKey& dropout);
  void head(int steps);
  std::span<const float> logits(int step, int lane) const {  // [V], after head()
    return {logits_.data() + (std::int64_t{step} * lanes_ + lane) * V_, static_cast<std::size_t>(V_)};
  }
  void copy_logits(int steps, std::span<float> logits) const;  // into [T,B,V], after head()
  WindowLoss loss(const Window& window, bool want_gradient);   // instead of copy_logits(): spoils the logits
  void backward(int steps);
  void finish(int steps);  // the window's last state becomes the next one's first

  // After backward().
  const E* gate_gradients(int layer) const { return at(layer).gates.data(); }     // [T,b,W] of pre-activations
  const E* hidden_before(int layer) const { return at(layer).h.data(); }          // [T,b,H] h_prev of each step
  const E* output(int layer) const;                                               // [T,b,H] as the layer above reads it
  const E* logit_gradients() { return gradients_of_logits().data(); }             // [T,b,V]
  const float* bias_sums(int layer) const { return at(layer).bias_sums.data(); }  // [W] of gate_gradients
  const float* head_bias_sums() const { return head_bias_sums_.data(); }          // [V]

 private:
  struct Layer {
    HostArray<E> gates;    // [T,b,W] activations, then gradients of pre-activations
    HostArray<E> h;        // [T+1,b,H] slot 0: the state that the window starts from
    HostBuffer c;          // [T+1,b,H] LSTM
    HostArray<E> dropped;  // [T,b,H] h after dropout
    HostBuffer bias_sums;  // [W]
  };
  Layer& at(int layer) { return layers_[static_cast<std::size_t>(layer)]; }
  const Layer& at(int layer) const { return layers_[static_cast<std::size_t>(layer)]; }

  HostArray<E>& gradients_of_logits();
  void layer_forward(int layer, int steps, const LayerInput& input, const DropoutKey& dropout);
  void layer_backward(int layer, int steps);
  void upper_input(int layer, std::int64_t first_step, std::int64_t steps);
  void dense_input(std::int64_t step, std::span<const float> dense);

  CpuNetwork& network_;
  SessionShape shape_;
  int first_ = 0, lanes_ = 0;
  std::int64_t H_ = 0, V_ = 0, W_ = 0, recurrent_width_ = 0, input_steps_ = 0;
  bool dropping_ = false;  // in the window at hand
  float dropout_scale_ = 1.0F;
  std::vector<Layer> layers_;
  HostBuffer recurrent_;          // [b, G H] of one step
  HostBuffer input_;              // [input_steps,b,W] products of the layer below, some steps ahead
  HostBuffer logits_;             // [T,b,V]
  HostArray<E> logit_gradients_;  // [T,b,V]; empty if E is float: they take the logits' place
  HostArray<E> dy_, dy_below_;    // [T,b,H]
  HostArray<E> without_gaps_;     // [b, G H] of one step's gates; GRU
  HostBuffer dh_, dc_;            // [b,H] from the step behind
  HostBuffer sums_;               // [max(V,W)] of one step
  HostBuffer head_bias_sums_;     // [V]
  ProductCache products_;
};

}  // namespace charrnn::cpu
