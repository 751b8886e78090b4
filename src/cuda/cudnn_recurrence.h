// The recurrence by cuDNN: each layer is a network of one layer to it. So dropout between layers is ours, with the
// masks of every other backend, and cuDNN's persistent kernels, which know one layer, can be chosen.
#pragma once

#include "cuda/recurrence.h"

#if !defined(CHARRNN_NO_CUDNN)

#include <map>

#include "cuda/cudnn_library.h"
#include "cuda/layouts.h"

namespace charrnn::cuda {

/// A layer, and the GPU for it.
struct LayerOnGpu {
  Cell cell = Cell::kLstm;
  Element element = Element::kF32;
  int inputs = 0, hidden = 0, lanes = 0;  // D, H
  int compute_major = 0, compute_minor = 0, multiprocessors = 0;
};
/// Whether cuDNN's persistent kernels are worth asking for. They hold the recurrent weights on the chip over all T
/// steps. The conditions are PyTorch's (aten/src/ATen/native/cudnn/RNN.cpp), and the sizes that 9.19 has kernels for.
bool persistent_suits(const LayerOnGpu& layer);

class CudnnRecurrence final : public Recurrence {
 public:
  /// @throws DeviceError if cuDNN refuses the shape or the precision
  CudnnRecurrence(CudaNetwork& network, const RecurrenceShape& shape);

  bool wants_one_hot() const override { return true; }
  void refresh() override;
  void enqueue_refresh() override;
  int parts(int /*steps*/) const override { return 1; }  // its kernels fill the GPU, or follow each other by themselves
  void forward(const LayerWindow& w, const Part& part) override;
  void backward(const LayerWindow& w, const Part& part) override;
  void input_gradient(const LayerWindow&, const Part&, Track&) override {}  // backward() has made it
  void weight_gradients(const LayerWindow& w) override;

 private:
  struct TempBytes {
    std::size_t work = 0;     // scratch of one call
    std::size_t reserve = 0;  // from forward to backward
  };
  struct Layer {
    int inputs = 0;  // D, for layer 0 with the padding of the vectors
    CudnnRnn rnn;
    TempBytes temp;
    std::size_t weights_at = 0, weight_bytes = 0;  // in weights_, and of its gradients in gradients_
    DeviceBuffer<std::byte> reserve;
    DeviceBuffer<std::byte> c_before;  // [lanes,H] 16 bits, LSTM: what cuDNN reads for slot 0 of c
    LayerRuns runs;                    // in the tables
  };
  /// Descriptions of all lanes over T steps.
  struct Sequences {
    CudnnData vectors;  // [T,lanes,one_hot_stride]
    CudnnData hidden;   // [T,lanes,H]
  };

  Layer& layer(int l) { return layers_[static_cast<std::size_t>(l)]; }
  bool is_narrow() const { return network_.format().element != Element::kF32; }
  std::byte* slot(void* states, int t) const;

  void describe_state();
  void describe(Layer& layer, cudnnRNNAlgo_t algorithm);
  void describe_layer(int l);
  CudnnData describe_sequences(int steps, int width) const;
  Sequences& sequences(int steps);
  const CudnnData& input_of(int l, const Sequences& s) const { return l == 0 ? s.vectors : s.hidden; }
  TempBytes temp_bytes(const Layer& layer, const CudnnData& input) const;
  void allocate_spaces();
  void find_weights();
  void find_weights(int l, const CudnnTensor& matrix, const CudnnTensor& bias, std::vector<Run>& table);
  std::int64_t position(const Layer& layer, const void* address, const CudnnTensor& tensor, int rows, int cols) const;

  CudaNetwork& network_;
  RecurrenceShape shape_;
  const CudnnFunctions& cudnn_;
  CudnnHandle handle_;
  CudnnDropout no_dropout_;
  CudnnTensor state_;  // [1,lanes,H]
  std::vector<Layer> layers_;
  std::map<int, Sequences> sequences_;  // by T

  DeviceBuffer<std::byte> weights_;    // of all layers, as cuDNN packs them
  DeviceBuffer<std::byte> gradients_;  // the same
  DeviceBuffer<Run> pack_runs_;        // from the arena to weights_
  DeviceBuffer<Run> unpack_runs_;      // from gradients_ to the arena
  DeviceBuffer<std::byte> work_;       // of all layers, which follow one another
  DeviceBuffer<std::byte> c_after_;    // [lanes,H] 16 bits, LSTM
  DeviceBuffer<std::byte> dx_;         // [T,lanes,one_hot_stride] gradient of the vectors, which nobody reads
  std::int64_t packed_ = 0;            // version of the parameters in weights_
};

}  // namespace charrnn::cuda
#endif
