// Weights, gradients and moments in main memory, and the packed copies of the weights that products read.
#pragma once

#include <array>
#include <memory>
#include <vector>

#include "backend/backend.h"
#include "cpu/lane_sampler.h"
#include "cpu/matmul.h"
#include "cpu/row_ops.h"
#include "cpu/thread_pool.h"
#include "kernels/gate_map.h"

namespace charrnn::cpu {

/// One layer's weights as products read them. Block i of `input_forward` makes the gate columns of gate_map().input[i].
struct PackedLayer {
  std::vector<std::unique_ptr<PackedWeights>> input_forward;   // [D, rows]; empty for layer 0, which is a gather
  std::vector<std::unique_ptr<PackedWeights>> input_backward;  // [rows, D]
  std::unique_ptr<PackedWeights> hidden_forward;               // [H, G H]
  std::unique_ptr<PackedWeights> hidden_backward;              // [G H, H]
  HostBuffer bias;                                             // [W] both biases where they can be summed
};

class CpuNetwork final : public Network {
 public:
  /// @param precision  fp32, or bf16: activations and operands of products in 16 bits; all that the arenas hold, cell
  ///                   states and sums are fp32 in both
  CpuNetwork(const NetworkShape& shape, Precision precision, std::shared_ptr<ThreadPool> pool);

  const ParameterLayout& layout() const override { return layout_; }
  Precision precision() const override { return precision_; }
  void read(Arena which, std::span<float> to) override;
  void write(Arena which, std::span<const float> from) override;
  UpdateState update_state() override { return {.updates = updates_}; }
  void set_update_state(const UpdateState& state) override { updates_ = state.updates; }
  StepResult update(const UpdateSettings& settings) override;
  std::unique_ptr<Session> open(const SessionShape& shape) override;

  static std::size_t memory_bytes(const NetworkShape& shape);

  // For sessions.
  const NetworkShape& shape() const { return layout_.shape(); }
  const GateMap& gates() const { return gates_; }
  ThreadPool& pool() { return *pool_; }
  float* arena(Arena which) { return arenas_[static_cast<std::size_t>(which)].data(); }

  /// Brings packed copies, the table and the summed biases up to date with the parameters, if they changed.
  void refresh();
  /// Made and packed when first asked for, and packed again after the parameters changed.
  /// @throws DeviceError when memory is short
  LaneSampler& lane_sampler();
  PackedLayer& packed(int layer) { return packed_[static_cast<std::size_t>(layer)]; }
  PackedWeights& head_forward() { return *head_forward_; }    // [H,V]
  PackedWeights& head_backward() { return *head_backward_; }  // [V,H]
  /// [V,W]: for each character the whole pre-activation that layer 0 starts from: its column of W_ih and both biases.
  /// W_ih times a 1-of-k vector is a column of W_ih, so this row is what the article's product would give.
  const float* table() const { return table_.data(); }

 private:
  void refresh_table(int part, int parts);
  void refresh_bias(int layer);

  ParameterLayout layout_;
  Precision precision_;
  GateMap gates_;
  std::shared_ptr<ThreadPool> pool_;
  std::array<HostBuffer, 4> arenas_;
  std::vector<PackedLayer> packed_;
  std::unique_ptr<PackedWeights> head_forward_, head_backward_;
  std::vector<PackedWeights*> all_packed_;
  HostBuffer table_;
  std::vector<double> squares_;  // of the gradients, chunk by chunk
  std::int64_t updates_ = 0;
  std::unique_ptr<LaneSampler> lane_sampler_;
  std::int64_t version_ = 1;                  // counts changes of the parameters
  std::int64_t refreshed_ = 0, in_lane_ = 0;  // the versions that packed copies and the lane sampler have
};

}  // namespace charrnn::cpu
