// Windows of T steps through the network on a GPU. The training step is enqueued once as it is, then captured and
// replayed; the host runs ahead of the device and reads results dozens of steps later.
#pragma once

#include <deque>
#include <map>
#include <optional>
#include <tuple>

#include "cuda/layouts.h"
#include "cuda/recurrence.h"
#include "kernels/draw.h"
#include "kernels/softmax_xent.h"

namespace charrnn::cuda {

/// How many steps the host may be ahead of the results that it has read.
inline constexpr int kStepsInFlight = 32;

class CudaSession final : public Session {
 public:
  CudaSession(CudaNetwork& network, const SessionShape& shape);
  ~CudaSession() override;
  CudaSession(const CudaSession&) = delete;
  CudaSession& operator=(const CudaSession&) = delete;

  void reset() override;
  void get_state(std::span<float> h, std::span<float> c) override;
  void set_state(std::span<const float> h, std::span<const float> c) override;
  void forward(const Window& window, std::span<float> logits) override;
  void forward_dense(int steps, std::span<const float> x, std::span<float> logits) override;
  WindowLoss evaluate(const Window& window) override;
  WindowLoss gradients(const Window& window, const DropoutKey& dropout) override;
  void submit_step(const Window& window, const DropoutKey& dropout, const UpdateSettings& settings) override;
  StepResult next_result() override;
  bool hold_text(const TextWindows& windows) override;
  void submit_text_step(std::int64_t window, const DropoutKey& dropout, const UpdateSettings& settings) override;
  bool generate(int steps, std::span<const TokenId> ids, const DrawSettings& settings,
                std::span<TokenId> drawn) override;

  static std::size_t memory_bytes(const NetworkShape& network, Precision precision, const SessionShape& shape);

 private:
  /// Two places where windows arrive, each with its copy in pinned memory. The host fills one while the device reads
  /// the other.
  struct Arrival {
    PinnedBuffer<std::byte> host;
    DeviceBuffer<std::byte> device;
    Event copied;  // host -> device is done
    Event taken;   // the device has read it
  };
  /// What a captured step depends on besides device memory.
  using StepKey = std::tuple<int, bool, bool, OptimizerKind>;  // T, dropout, text on the device, optimizer
  struct HeldText {
    DeviceBuffer<std::uint8_t> text;
    DeviceBuffer<DeviceId> ids_of_bytes;
    std::int64_t stride = 0, windows_per_epoch = 0;
    int steps = 0;
  };

  // Layout of memory.
  StateLayout state_layout() const {
    return {network_.shape().layers, shape_.max_steps, lanes_, network_.shape().hidden};
  }
  std::int64_t slot() const { return state_layout().slot_size(); }
  /// Slot `at_slot` of a layer's hidden states. [lanes,H]
  void* h(int layer, std::int64_t at_slot) const;
  float* c(int layer) const;
  LaneStates states() const;
  /// What the layer above, or the head, reads of a layer.
  const void* output(int layer, bool dropout) const;
  ArrivedWindow arrived(std::byte* base) const;

  /// One way of running a window.
  struct Pass {
    int steps = 0;      // T
    bool keep = false;  // for backward
    bool dropout = false;
    bool dense = false;  // one_hot_ was filled with other vectors
  };

  void check_logits(int steps, std::size_t size, bool may_be_empty) const;
  /// Fills the pinned memory, copies it beside the stream, and makes the stream wait for the copy.
  void send(const Window& window, Arrival& to);
  /// A window of an operation that waits, into window_.
  void take(const Window& window);
  void refresh();
  WindowLoss read_sums();
  void read_logits(int steps, std::span<float> to);

  // Work on the stream, and on those of layers beside it.
  std::vector<Part> parts_of(const Pass& pass) const;
  bool side_by_side(const Pass& pass) const { return recurrence_->parts(pass.steps) > 1; }
  Track& track_of(int layer, const Pass& pass) { return network_.track(side_by_side(pass) ? layer % tracks_ : 0); }
  const Event& event(int layer, int part) const {
    return events_[static_cast<std::size_t>(layer * most_parts_ + part)];
  }
  void fork(const Pass& pass);
  void join(const Pass& pass);
  LayerWindow layer_window(int layer, const Pass& pass);
  void drop_out_part(int layer, const Pass& pass, const Part& part, const void* x, void* y);
  void enqueue_forward(const Pass& pass);
  void enqueue_head(const Pass& pass);
  void enqueue_loss(const Pass& pass);
  void enqueue_backward(const Pass& pass);
  void enqueue_step(const StepKey& key);
  void enqueue_draw();
  void run_step(const StepKey& key, const StepInputs& inputs);
  template <class F>
  void replay(std::optional<Graph>& graph, const F& enqueue);

  CudaNetwork& network_;
  SessionShape shape_;
  int lanes_ = 0;
  Element element_;
  std::unique_ptr<Recurrence> recurrence_;
  int tracks_ = 1;  // streams that layers run on: one for all, or one each
  int most_parts_ = 1;
  std::vector<Event> events_;  // [L,parts] a layer is done with a part
  Event forked_;
  std::vector<Event> joined_;  // [tracks]

  DeviceBuffer<std::byte> h_;                     // [L][T+1,lanes,H]
  DeviceBuffer<float> c_;                         // the same, LSTM
  std::vector<DeviceBuffer<std::byte>> dropped_;  // a layer: [T,lanes,H]; training only
  DeviceBuffer<std::byte> one_hot_;               // [T,lanes,one_hot_stride]
  DeviceBuffer<float> logits_;                    // [T,lanes,one_hot_stride] without the bias
  DeviceBuffer<float> full_logits_;               // [T,lanes,V] for the host
  DeviceBuffer<std::byte> dlogits_;               // as logits_
  std::vector<DeviceBuffer<std::byte>> dy_;       // a layer: [T,lanes,H] gradients of its hidden states
  DeviceBuffer<float> partial_;                   // of sums of columns
  DeviceBuffer<RowLoss> losses_;                  // [T,lanes]
  DeviceBuffer<WindowSums> sums_;
  DeviceBuffer<StepInputs> inputs_;

  DeviceBuffer<DeviceId> ids_, targets_;  // [T,lanes]
  DeviceBuffer<float> weights_;
  DeviceBuffer<std::uint8_t> reset_;
  DeviceBuffer<float> loss_scale_;
  Arrival arrivals_[2];
  WindowArrays window_{};
  std::optional<HeldText> text_;

  // Steps in flight.
  PinnedBuffer<StepRecord> ring_;
  std::vector<Event> begun_, done_;  // a slot of the ring
  std::deque<std::uint32_t> sent_;
  std::uint32_t next_slot_ = 0;
  std::optional<StepInputs> expected_;             // what inputs_ holds once all that is enqueued has run
  std::map<StepKey, std::optional<Graph>> steps_;  // empty: ran once as it is

  // Drawing.
  DeviceBuffer<DrawRule> draw_rule_;
  DeviceBuffer<int> draw_failed_;
  DeviceBuffer<DeviceId> drawn_;
  std::optional<Graph> draw_step_;
  bool has_drawn_ = false;
  bool captures_ = graphs_enabled();
};

}  // namespace charrnn::cuda
