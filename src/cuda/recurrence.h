// What computes one recurrent layer over a window. Two ways, chosen by run.implementation: FusedRecurrence (own kernels
// and cuBLASLt), CudnnRecurrence. A persistent kernel would be a third.
//
// The session owns activations and the order of layers, dropout between them, the head and the loss; a recurrence owns
// what it keeps from forward to backward. Everything is enqueued on streams, waits for nothing and allocates nothing
// after it was made, so that it can be captured.
#pragma once

#include <memory>

#include "cuda/cuda_network.h"
#include "cuda/products.h"
#include "kernels/windows.h"

namespace charrnn::cuda {

/// Steps [first, first + steps) of a window, for layers that work on different parts at the same time.
struct Part {
  int first = 0, steps = 0;
  int end() const { return first + steps; }
};

/// One layer's work on a part of a window of T steps. Arrays are the window's, from its first step on. `lanes` counts
/// padding.
struct LayerWindow {
  int layer = 0;
  int steps = 0;                  // T
  bool keep = false;              // backward() follows
  Track* track = nullptr;         // the stream to enqueue on, and products that run there
  const DeviceId* ids = nullptr;  // [T,lanes] what layer 0 reads; null: the vectors of one_hot, which are not 1-of-k
  const void* one_hot = nullptr;  // the same as vectors [T,lanes,one_hot_stride], if wants_one_hot(), keep, or no ids
  const void* x = nullptr;        // [T,lanes,H] what other layers read: the layer below, dropped out
  void* h = nullptr;              // [T+1,lanes,H] slot 0 given, slots 1.. overwritten
  float* c = nullptr;             // [T+1,lanes,H] the same for LSTM; slots 1..T-1 need not be written
  const void* dy = nullptr;       // backward: [T,lanes,H] gradient of h's slots 1..
  void* dx = nullptr;             // backward: [T,lanes,H] gradient of x, overwritten; null for layer 0
};

/// What a session was opened for.
struct RecurrenceShape {
  int lanes = 0;      // B and padding
  int max_steps = 0;  // T
  bool training = false;
};

class Recurrence {
 public:
  virtual ~Recurrence() = default;

  /// Whether forward() of layer 0 reads one_hot instead of ids.
  virtual bool wants_one_hot() const = 0;
  /// Into how many parts a window of T steps is cut, so that a layer can work on one while the layer above works on the
  /// one before. 1: layers follow each other, on the network's own stream.
  virtual int parts(int steps) const = 0;

  /// Before each forward() outside a training step: brings copies of weights up to date, if network.version() moved.
  virtual void refresh() = 0;
  /// The same at the beginning of each training step, as work that is captured: always.
  virtual void enqueue_refresh() = 0;

  /// Parts in order.
  virtual void forward(const LayerWindow& w, const Part& part) = 0;
  /// Parts in the opposite order, each after the layer above has called input_gradient() for it.
  virtual void backward(const LayerWindow& w, const Part& part) = 0;
  /// dx of a part, after backward() of it; enqueued where the layer below will read it, on that layer's track.
  virtual void input_gradient(const LayerWindow& w, const Part& part, Track& below) = 0;
  /// After all parts: overwrites the gradients of the layer's four tensors in the network's arena, scaled as dy is.
  virtual void weight_gradients(const LayerWindow& w) = 0;
};

std::unique_ptr<Recurrence> make_fused_recurrence(CudaNetwork& network, const RecurrenceShape& shape);

/// Whether run.implementation leads to cuDNN for this network. *why: why not, where it was asked for by name.
bool wants_cudnn(const CudaNetwork& network, std::string* why);

/// Whether cuDNN is there and computes this network in its precision; else a sentence why not in *why.
bool cudnn_can(const CudaNetwork& network, std::string* why);
/// The lanes that cuDNN's persistent kernels want for a batch: `batch`, or the next multiple of 8 where that buys them.
int cudnn_lanes(const CudaNetwork& network, int batch);
/// @throws DeviceError if cuDNN refuses: the caller falls back to the fused one and notes it
std::unique_ptr<Recurrence> make_cudnn_recurrence(CudaNetwork& network, const RecurrenceShape& shape);
/// cuDNN's version as text, or a sentence why it cannot be used.
std::string cudnn_status();

}  // namespace charrnn::cuda
