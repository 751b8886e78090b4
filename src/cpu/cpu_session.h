// Windows of T steps through the network on the CPU. The lanes are dealt to slices, one a thread; each slice runs
// forward and backward through all layers and steps on its own, and threads meet only where gradients of weights are
// summed.
#pragma once

#include <deque>
#include <vector>

#include "cpu/cpu_network.h"

namespace charrnn::cpu {

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

  /// Bytes that a session of this shape allocates, summed over its slices.
  static std::size_t memory_bytes(const NetworkShape& network, const SessionShape& shape);

 private:
  struct Layer {
    HostBuffer gates;     // [T,b,W] activations, then the gradients of pre-activations
    HostBuffer h;         // [T+1,b,H] slot 0: the state that the window starts from
    HostBuffer c;         // [T+1,b,H] LSTM
    HostBuffer dropped;   // [T,b,H] h after dropout: what is read above; unused without dropout
    HostBuffer bias_sum;  // [W] sums of the gates' gradients over t and b
  };
  struct Slice {
    int first = 0, lanes = 0;  // b lanes from this one on
    std::vector<Layer> layers;
    HostBuffer inference_gates;  // [T,b,W] shared by all layers when nothing is kept for backward
    HostBuffer logits;           // [T,b,V] then their gradients
    HostBuffer dh, dh_below;     // [T,b,H]
    HostBuffer dc;               // [b,H]
    HostBuffer head_bias_sum;    // [V]
    HostBuffer step_sum;         // [max(V, W)] of the rows of one step
    ProductCache products;
    WindowLoss loss;
  };
  struct Input {                   // what layer 0 reads: ids, or dense vectors
    std::span<const TokenId> ids;  // [T,B]
    std::span<const float> dense;  // [T,B,V]
  };

  /// Calls copy(own, given, count) for each slice's part of each layer's state.
  template <class Floats, class Copy>
  void copy_state(Floats h, Floats c, const Copy& copy);
  void start_lanes(Slice& slice, std::span<const std::uint8_t> reset);
  void run_forward(Slice& slice, int steps, const Input& input, const DropoutKey& dropout);
  void first_layer_input(Slice& slice, int steps, const Input& input, float* gates);
  void upper_layer_input(Slice& slice, int layer, int steps, const float* x, float* gates);
  void drop_out(Slice& slice, int layer, int steps, const DropoutKey& dropout, const float* from, float* to) const;
  void run_head(Slice& slice, int steps, const DropoutKey& dropout);
  void run_loss(Slice& slice, const Window& window, bool want_gradient);
  void run_backward(Slice& slice, int steps, const DropoutKey& dropout);
  static void add_sum(Slice& slice, float* to, const float* rows, std::int64_t n);
  void copy_logits(const Slice& slice, int steps, std::span<float> logits) const;
  void finish_lanes(Slice& slice, int steps);

  // Gradients of weights: worker `part` of the pool's makes its share of the rows of every matrix.
  void weight_gradients(const Window& window, int part, const DropoutKey& dropout);
  template <class A, class X>
  void sum_products(int part, std::int64_t steps, std::int64_t m, std::int64_t width, const A& a_of, const X& x_of,
                    float* to);
  void matrix_gradient(int part, std::int64_t steps, const GateBlock& block, int layer, bool of_input,
                       const DropoutKey& dropout);
  void table_gradient(const Window& window, int part);
  void head_gradient(int part, std::int64_t steps, const DropoutKey& dropout);
  void bias_gradients();

  /// What the layer above (or the head) reads of a layer: h, or h after dropout. [T,b,H]
  float* output_of(Slice& slice, int layer, bool dropped) const;
  float* gates_of(Slice& slice, int layer) const;

  CpuNetwork& network_;
  SessionShape shape_;
  std::deque<Slice> slices_;                    // not movable: products hold addresses
  std::deque<ProductCache> gradient_products_;  // one a worker
  HostBuffer table_gradient_;                   // [V,W]
  std::deque<StepResult> results_;
};

}  // namespace charrnn::cpu
