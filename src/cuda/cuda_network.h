// Weights, gradients and moments in device memory, and the copies of the weights that kernels read.
#pragma once

#include <array>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "backend/backend.h"
#include "cuda/memory.h"
#include "cuda/products.h"
#include "cuda/stream.h"
#include "kernels/parameters.h"
#include "kernels/step_state.h"

namespace charrnn::cuda {

/// One GPU, and what all networks on it share. Work is enqueued on `stream`; `copies` brings windows in beside it.
struct Device {
  int index = 0;
  Implementation implementation = Implementation::kAuto;  // as asked for
  int compute_major = 0, compute_minor = 0;
  int multiprocessors = 0;
  Stream stream, copies;
  std::int64_t launches_a_step = 0;  // of the step that was built last
  std::vector<std::string> notes;    // sentences that the log has not told yet

  /// Makes this GPU the calling thread's own: CUDA has a current one for each thread. First in what the seam calls.
  void use() const { check(cudaSetDevice(index), "cudaSetDevice"); }

  /// A sentence for the log. Told once, however many networks and sessions say it.
  void note(const std::string& sentence) {
    if (told_.insert(sentence).second) notes.push_back(sentence);
  }

 private:
  std::set<std::string> told_;
};

/// How a precision is stored and multiplied.
struct Format {
  Precision precision = Precision::kFp32;
  Element element = Element::kF32;  // of activations, and of the weights that products read
  Arithmetic arithmetic = Arithmetic::kExact;
};
Format format_of(Precision precision);

/// A stream and the products that run on it: they share a workspace, so each stream has its own.
struct Track {
  cudaStream_t stream = nullptr;
  Products* products = nullptr;
};

inline constexpr int kMostTracks = 4;  // that layers are dealt to

class CudaNetwork final : public Network {
 public:
  CudaNetwork(const NetworkShape& shape, Precision precision, std::shared_ptr<Device> device);

  const ParameterLayout& layout() const override { return layout_; }
  Precision precision() const override { return format_.precision; }
  void read(Arena which, std::span<float> to) override;
  void write(Arena which, std::span<const float> from) override;
  UpdateState update_state() override;
  void set_update_state(const UpdateState& state) override;
  StepResult update(const UpdateSettings& settings) override;
  std::unique_ptr<Session> open(const SessionShape& shape) override;

  /// With what the first stream's products work in.
  static std::size_t memory_bytes(const NetworkShape& shape, Precision precision);
  /// Bytes that ought to stay free beside this network's sessions: a run makes a second network to score its test text,
  /// with `batch` lanes and windows of thousands of characters.
  std::size_t reserve_bytes(int batch) const;

  // For sessions and recurrences.
  const NetworkShape& shape() const { return layout_.shape(); }
  const Format& format() const { return format_; }
  const GateBlocks& gates() const { return gates_; }
  Device& device() { return *device_; }
  const Device& device() const { return *device_; }
  cudaStream_t stream() const { return device_->stream.get(); }
  /// Track 0 is the network's own stream. The others join it again within each operation. Made at first use, which must
  /// not be within a capture.
  Track& track(int index);
  Products& products() { return *track(0).products; }

  float* arena(Arena which) const { return arenas_[static_cast<std::size_t>(which)].data(); }
  float* gradient(const ParameterTensor& tensor) const { return arena(Arena::kGradients) + tensor.offset; }
  const float* parameter(const ParameterTensor& tensor) const { return arena(Arena::kParameters) + tensor.offset; }
  /// A tensor of the weights in format().element: the parameters themselves in fp32 and tf32, else their copy.
  const void* weight(const ParameterTensor& tensor) const;
  const float* table() const { return table_.data(); }                                // [V,W] of layer 0
  const float* bias(int layer) const { return bias_.data() + layer * gates_.width; }  // [W]
  const DeviceUpdateState* device_update_state() const { return state_.data(); }
  const UpdateDecision* decision() const { return decision_.data(); }

  /// Moves whenever the parameters change: what made copies of them makes them anew.
  std::int64_t version() const { return version_; }
  /// A step was enqueued whose update changes the parameters, and this network's own copies with them.
  void updated_by_step() { refreshed_ = ++version_; }
  /// Table, biases and 16-bit copies, if version() moved since the last call.
  void refresh();
  void enqueue_refresh();

  /// Gradients as the seam has them, of fp16's scaled ones.
  void unscale_gradients();
  /// Tells the log, once a device, why the recurrence is another than the one that was asked for; empty: it is not.
  void note_fallback(const std::string& why);

  /// Norm, decision, update and the 16-bit copies, as work on the stream. `window` may be null.
  void enqueue_update(OptimizerKind optimizer, const WindowSums* window, StepInputs* inputs, StepRecord* ring,
                      std::uint32_t ring_size);

 private:
  int largest_batch(SessionShape session);

  ParameterLayout layout_;
  Format format_;
  GateBlocks gates_;
  std::shared_ptr<Device> device_;
  struct OwnedTrack {
    std::unique_ptr<Stream> stream;  // null: the network's own
    std::unique_ptr<Products> products;
    Track track;
  };
  std::vector<std::unique_ptr<OwnedTrack>> tracks_;
  std::array<DeviceBuffer<float>, 4> arenas_;
  DeviceBuffer<std::byte> copy_;  // of the parameters in 16 bits
  DeviceBuffer<float> table_, bias_;
  DeviceBuffer<double> squares_;
  DeviceBuffer<DeviceUpdateState> state_;
  DeviceBuffer<UpdateDecision> decision_;
  DeviceBuffer<StepInputs> update_inputs_;  // of update() alone
  PinnedBuffer<StepRecord> update_record_;
  std::int64_t version_ = 1, refreshed_ = 0;
};

UpdateRule rule_of(const UpdateSettings& settings);

}  // namespace charrnn::cuda
