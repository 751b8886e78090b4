#include "cuda/cudnn_recurrence.h"

#if defined(CHARRNN_NO_CUDNN)

#include "cuda/check.h"

namespace charrnn::cuda {

bool cudnn_can(const CudaNetwork&, std::string* why) {
  *why = cudnn_status();
  return false;
}
int cudnn_lanes(const CudaNetwork&, int batch) { return batch; }
std::unique_ptr<Recurrence> make_cudnn_recurrence(CudaNetwork&, const RecurrenceShape&) {
  throw DeviceError(cudnn_status());
}

}  // namespace charrnn::cuda

#else

#include <algorithm>
#include <limits>

namespace charrnn::cuda {

namespace {

// A layer's part of weights_ begins where any type may.
constexpr std::size_t kAlignment = 256;

cudnnRNNMode_t mode_of(Cell cell) {
  switch (cell) {
    case Cell::kLstm: return CUDNN_LSTM;
    case Cell::kGru: return CUDNN_GRU;
    case Cell::kRnnTanh: return CUDNN_RNN_TANH;
    case Cell::kRnnRelu: break;
  }
  return CUDNN_RNN_RELU;
}

cudnnDataType_t data_type(Element element) {
  switch (element) {
    case Element::kF16: return CUDNN_DATA_HALF;
    case Element::kBf16: return CUDNN_DATA_BFLOAT16;
    case Element::kF32: break;
  }
  return CUDNN_DATA_FLOAT;
}

/// 16 bits: tensor cores. TF32: whatever cuDNN takes for floats, which it rounds where it has tensor cores. fp32:
/// never.
cudnnMathType_t math_type(const Format& format) {
  if (format.element != Element::kF32) return CUDNN_TENSOR_OP_MATH;
  return format.arithmetic == Arithmetic::kTf32 ? CUDNN_DEFAULT_MATH : CUDNN_FMA_MATH;
}

int inputs_of(const NetworkShape& shape, int layer) {
  return layer == 0 ? one_hot_stride(shape.vocabulary) : shape.hidden;
}

std::size_t aligned(std::size_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

/// Calls copy(first, count) for all runs, at most as many at once as a grid has rows.
template <class Copy>
void in_grids(std::size_t first, std::size_t count, const Copy& copy) {
  constexpr std::size_t kMost = 65535;
  for (const std::size_t end = first + count; first < end; first += kMost) {
    copy(first, static_cast<int>(std::min(kMost, end - first)));
  }
}

DeviceBuffer<Run> upload(const std::vector<Run>& table, const Stream& stream) {
  const PinnedBuffer<Run> host(table.size(), "cuDNN's packing");
  std::copy(table.begin(), table.end(), host.data());
  DeviceBuffer<Run> device(table.size(), "cuDNN's packing");
  check(cudaMemcpyAsync(device.data(), host.data(), device.bytes(), cudaMemcpyHostToDevice, stream.get()),
        "cudaMemcpyAsync");
  stream.wait();
  return device;
}

LayerOnGpu layer_of(const CudaNetwork& network, int layer, int lanes) {
  const NetworkShape& shape = network.shape();
  const Device& device = network.device();
  return {shape.cell, network.format().element, inputs_of(shape, layer), shape.hidden,
          lanes,      device.compute_major,     device.compute_minor,    device.multiprocessors};
}

}  // namespace

bool persistent_suits(const LayerOnGpu& layer) {
  if (layer.element != Element::kF16) return false;
  if (layer.compute_major < 8 || layer.multiprocessors < 98) return false;
  if (layer.compute_major == 8 && layer.compute_minor == 6) return false;
  // Of the multiples of 128 there are kernels for these. 128 itself has one for forward alone.
  constexpr int kHidden[] = {256, 512, 768, 896, 1024};
  if (std::find(std::begin(kHidden), std::end(kHidden), layer.hidden) == std::end(kHidden)) return false;
  if (layer.inputs % 128 != 0 || layer.lanes % 8 != 0 || layer.lanes > 128) return false;
  switch (layer.cell) {
    case Cell::kLstm: return true;
    case Cell::kGru: return false;
    case Cell::kRnnTanh:
    case Cell::kRnnRelu: break;
  }
  return layer.lanes < 96 || layer.hidden < 896;
}

bool cudnn_can(const CudaNetwork& network, std::string* why) {
  const CudnnLibrary& library = cudnn_library();
  const Device& device = network.device();
  if (!library.problem.empty()) {
    *why = library.problem;
    return false;
  }
  if (network.format().element == Element::kBf16 && device.compute_major < 8) {
    *why = "cuDNN: bf16 needs a GPU of compute capability 8.0, this one has " + std::to_string(device.compute_major) +
           "." + std::to_string(device.compute_minor);
    return false;
  }
  constexpr std::size_t kFirstWithBf16 = 91300;
  if (network.format().element == Element::kBf16 && library.functions.cudnnGetVersion() < kFirstWithBf16) {
    *why = "cuDNN " + cudnn_status() + " has no bf16 RNN, 9.13 has";
    return false;
  }
  return true;
}

int cudnn_lanes(const CudaNetwork& network, int batch) {
  const int padded = (batch + 7) / 8 * 8;
  for (int l = 0; l < network.shape().layers; ++l) {
    if (persistent_suits(layer_of(network, l, padded))) return padded;
  }
  return batch;
}

std::unique_ptr<Recurrence> make_cudnn_recurrence(CudaNetwork& network, const RecurrenceShape& shape) {
  std::string why;
  if (!cudnn_can(network, &why)) throw DeviceError(why);
  return std::make_unique<CudnnRecurrence>(network, shape);
}

CudnnRecurrence::CudnnRecurrence(CudaNetwork& network, const RecurrenceShape& shape)
    : network_(network),
      shape_(shape),
      cudnn_(cudnn_library().functions),
      handle_(make_cudnn<CudnnHandle>(cudnn_.cudnnCreate, "cudnnCreate")),
      no_dropout_(make_cudnn<CudnnDropout>(cudnn_.cudnnCreateDropoutDescriptor, "cudnnCreateDropoutDescriptor")),
      state_(make_cudnn<CudnnTensor>(cudnn_.cudnnCreateTensorDescriptor, "cudnnCreateTensorDescriptor")),
      layers_(static_cast<std::size_t>(network.shape().layers)) {
  check(cudnn_.cudnnSetStream(handle_.get(), network_.stream()), "cudnnSetStream");
  check(cudnn_.cudnnSetDropoutDescriptor(no_dropout_.get(), handle_.get(), 0, nullptr, 0, 0),
        "cudnnSetDropoutDescriptor");
  describe_state();
  for (int l = 0; l < network_.shape().layers; ++l) describe_layer(l);
  allocate_spaces();
  find_weights();
}

void CudnnRecurrence::describe_state() {
  const int lanes = shape_.lanes, hidden = network_.shape().hidden;
  if (std::int64_t{lanes} * hidden > std::numeric_limits<int>::max()) {
    throw DeviceError("cudnn: a batch of " + std::to_string(lanes) + " with " + std::to_string(hidden) +
                      " hidden units is more than its descriptors count; use a smaller train.batch");
  }
  const int dims[] = {1, lanes, hidden}, strides[] = {lanes * hidden, hidden, 1};
  check(cudnn_.cudnnSetTensorNdDescriptor(state_.get(), data_type(network_.format().element), 3, dims, strides),
        "cudnnSetTensorNdDescriptor");
}

/// Sets layer.rnn and layer.temp.
void CudnnRecurrence::describe(Layer& layer, cudnnRNNAlgo_t algorithm) {
  const NetworkShape& shape = network_.shape();
  check(cudnn_.cudnnSetRNNDescriptor_v8(layer.rnn.get(), algorithm, mode_of(shape.cell), CUDNN_RNN_DOUBLE_BIAS,
                                        CUDNN_UNIDIRECTIONAL, CUDNN_LINEAR_INPUT, data_type(network_.format().element),
                                        CUDNN_DATA_FLOAT, math_type(network_.format()), layer.inputs, shape.hidden,
                                        shape.hidden, 1, no_dropout_.get(), CUDNN_RNN_PADDED_IO_ENABLED),
        "cudnnSetRNNDescriptor_v8");
  layer.temp = temp_bytes(layer, describe_sequences(shape_.max_steps, layer.inputs));
}

void CudnnRecurrence::describe_layer(int l) {
  Layer& to = layer(l);
  to.inputs = inputs_of(network_.shape(), l);
  to.rnn = make_cudnn<CudnnRnn>(cudnn_.cudnnCreateRNNDescriptor, "cudnnCreateRNNDescriptor");
  if (persistent_suits(layer_of(network_, l, shape_.lanes))) {
    try {
      return describe(to, CUDNN_RNN_ALGO_PERSIST_STATIC);
    } catch (const DeviceError& e) {
      network_.device().note("layer " + std::to_string(l + 1) + " takes cuDNN's standard kernels, for it refused " +
                             "the persistent ones: " + e.what());
    }
  }
  describe(to, CUDNN_RNN_ALGO_STANDARD);
}

CudnnData CudnnRecurrence::describe_sequences(int steps, int width) const {
  auto data = make_cudnn<CudnnData>(cudnn_.cudnnCreateRNNDataDescriptor, "cudnnCreateRNNDataDescriptor");
  const std::vector<int> lengths(static_cast<std::size_t>(shape_.lanes), steps);
  check(cudnn_.cudnnSetRNNDataDescriptor(data.get(), data_type(network_.format().element),
                                         CUDNN_RNN_DATA_LAYOUT_SEQ_MAJOR_UNPACKED, steps, shape_.lanes, width,
                                         lengths.data(), nullptr),
        "cudnnSetRNNDataDescriptor");
  return data;
}

CudnnRecurrence::Sequences& CudnnRecurrence::sequences(int steps) {
  const auto found = sequences_.find(steps);
  if (found != sequences_.end()) return found->second;
  Sequences made{describe_sequences(steps, one_hot_stride(network_.shape().vocabulary)),
                 describe_sequences(steps, network_.shape().hidden)};
  for (int l = 0; l < network_.shape().layers; ++l) {  // memory was taken for max_steps
    const TempBytes needed = temp_bytes(layer(l), input_of(l, made));
    if (needed.work > work_.bytes() || needed.reserve > layer(l).reserve.bytes()) {
      throw DeviceError("cudnn: " + std::to_string(steps) + " steps need more memory than the " +
                        std::to_string(shape_.max_steps) + " that it was taken for");
    }
  }
  return sequences_.emplace(steps, std::move(made)).first->second;
}

/// What this recurrence will do with such sequences: inference, and training if it was made for that.
CudnnRecurrence::TempBytes CudnnRecurrence::temp_bytes(const Layer& layer, const CudnnData& input) const {
  TempBytes most;
  const auto ask = [&](cudnnForwardMode_t mode) {
    TempBytes bytes;
    check(cudnn_.cudnnGetRNNTempSpaceSizes(handle_.get(), layer.rnn.get(), mode, input.get(), &bytes.work,
                                           &bytes.reserve),
          "cudnnGetRNNTempSpaceSizes");
    most = {std::max(most.work, bytes.work), std::max(most.reserve, bytes.reserve)};
  };
  ask(CUDNN_FWD_MODE_INFERENCE);
  if (shape_.training) ask(CUDNN_FWD_MODE_TRAINING);
  return most;
}

void CudnnRecurrence::allocate_spaces() {
  const NetworkShape& shape = network_.shape();
  const std::size_t element = size_of(network_.format().element);
  const std::size_t state_bytes =
      static_cast<std::size_t>(shape_.lanes) * static_cast<std::size_t>(shape.hidden) * element;
  const bool converts_c = has_cell_state(shape.cell) && is_narrow();
  std::size_t all_weights = 0, work = 0;
  for (Layer& l : layers_) {
    check(cudnn_.cudnnGetRNNWeightSpaceSize(handle_.get(), l.rnn.get(), &l.weight_bytes), "cudnnGetRNNWeightSpaceSize");
    l.weights_at = all_weights;
    all_weights += aligned(l.weight_bytes);
    work = std::max(work, l.temp.work);
    l.reserve = DeviceBuffer<std::byte>(l.temp.reserve, "cuDNN's reserve space");
    if (converts_c) l.c_before = DeviceBuffer<std::byte>(state_bytes, "the cell's state for cuDNN");
  }
  work_ = DeviceBuffer<std::byte>(work, "cuDNN's work space");
  if (converts_c) c_after_ = DeviceBuffer<std::byte>(state_bytes, "the cell's state from cuDNN");
  weights_ = DeviceBuffer<std::byte>(all_weights, "the weights as cuDNN packs them");
  weights_.zero(network_.stream());  // padding stays so
  if (!shape_.training) return;
  gradients_ = DeviceBuffer<std::byte>(all_weights, "the gradients as cuDNN packs them");
  dx_ = DeviceBuffer<std::byte>(static_cast<std::size_t>(shape_.max_steps) * static_cast<std::size_t>(shape_.lanes) *
                                    static_cast<std::size_t>(one_hot_stride(shape.vocabulary)) * element,
                                "the gradient of cuDNN's input");
}

/// Where a matrix or bias of a layer begins in weights_, in elements. What cuDNN says of it must be what we expect.
std::int64_t CudnnRecurrence::position(const Layer& layer, const void* address, const CudnnTensor& tensor, int rows,
                                       int cols) const {
  constexpr int kDims = 3;
  int dims[kDims]{}, strides[kDims]{}, count = 0;
  cudnnDataType_t type{};
  check(cudnn_.cudnnGetTensorNdDescriptor(tensor.get(), kDims, &type, &count, dims, strides),
        "cudnnGetTensorNdDescriptor");
  const auto element = static_cast<std::int64_t>(size_of(network_.format().element));
  const std::int64_t at = static_cast<const std::byte*>(address) - weights_.data();
  const auto begin = static_cast<std::int64_t>(layer.weights_at);
  const std::int64_t end = begin + static_cast<std::int64_t>(layer.weight_bytes);
  const bool fits =
      address != nullptr && at % element == 0 && at >= begin && at + std::int64_t{rows} * cols * element <= end;
  if (!fits || count != kDims || type != data_type(network_.format().element) || dims[1] != rows || dims[2] != cols ||
      strides[1] != cols) {
    throw DeviceError("cudnn: cudnnGetRNNWeightParams gives a tensor of [" + std::to_string(dims[1]) + ", " +
                      std::to_string(dims[2]) + "], expected [" + std::to_string(rows) + ", " + std::to_string(cols) +
                      "] within the weight space");
  }
  return at / element;
}

/// cuDNN numbers its matrices as PyTorch orders gates: i f g o, or r z n, of the input; then the same of the
/// recurrence.
void CudnnRecurrence::find_weights(int l, const CudnnTensor& matrix, const CudnnTensor& bias, std::vector<Run>& table) {
  Layer& to = layer(l);
  const ParameterLayout& layout = network_.layout();
  const int hidden = network_.shape().hidden, gates = gate_count(network_.shape().cell);
  std::vector<PackedGate> parts;
  for (int id = 0; id < 2 * gates; ++id) {
    const bool recurrent = id >= gates;
    const ParameterTensor& w = recurrent ? layout.weight_hh(l) : layout.weight_ih(l);
    const ParameterTensor& b = recurrent ? layout.bias_hh(l) : layout.bias_ih(l);
    const std::size_t row = static_cast<std::size_t>(id % gates) * static_cast<std::size_t>(hidden);
    const int columns = recurrent ? hidden : to.inputs;
    void *weight_address = nullptr, *bias_address = nullptr;
    check(cudnn_.cudnnGetRNNWeightParams(handle_.get(), to.rnn.get(), 0, to.weight_bytes,
                                         weights_.data() + to.weights_at, id, matrix.get(), &weight_address, bias.get(),
                                         &bias_address),
          "cudnnGetRNNWeightParams");
    parts.push_back({static_cast<std::int64_t>(w.offset + row * w.cols), static_cast<std::int64_t>(b.offset + row),
                     static_cast<std::int64_t>(w.cols), position(to, weight_address, matrix, hidden, columns),
                     position(to, bias_address, bias, hidden, 1), columns});
  }
  to.runs = add_layer(table, parts, hidden);
}

void CudnnRecurrence::find_weights() {
  const auto matrix = make_cudnn<CudnnTensor>(cudnn_.cudnnCreateTensorDescriptor, "cudnnCreateTensorDescriptor");
  const auto bias = make_cudnn<CudnnTensor>(cudnn_.cudnnCreateTensorDescriptor, "cudnnCreateTensorDescriptor");
  std::vector<Run> table;
  for (int l = 0; l < network_.shape().layers; ++l) find_weights(l, matrix, bias, table);
  pack_runs_ = upload(table, network_.device().stream);
  if (!shape_.training) return;
  for (Run& run : table) std::swap(run.from, run.to);
  unpack_runs_ = upload(table, network_.device().stream);
}

void CudnnRecurrence::refresh() {
  if (packed_ == network_.version()) return;
  enqueue_refresh();
  packed_ = network_.version();
}

void CudnnRecurrence::enqueue_refresh() {
  const auto copy = [&](const Runs& runs) {
    in_grids(runs.first, runs.count, [&](std::size_t first, int count) {
      pack(pack_runs_.data() + first, count, runs.longest, network_.arena(Arena::kParameters), weights_.data(),
           network_.format().element, network_.stream());
    });
  };
  Runs blocks = layers_.front().runs.blocks;  // all layers' follow one another
  for (std::size_t l = 1; l < layers_.size(); ++l) {
    blocks.count += layers_[l].runs.blocks.count;
    blocks.longest = std::max(blocks.longest, layers_[l].runs.blocks.longest);
  }
  copy(layers_.front().runs.rows);
  copy(blocks);
}

/// Slot t of [T+1,lanes,H] elements.
std::byte* CudnnRecurrence::slot(void* states, int t) const {
  const std::size_t bytes = static_cast<std::size_t>(shape_.lanes) * static_cast<std::size_t>(network_.shape().hidden) *
                            size_of(network_.format().element);
  return static_cast<std::byte*>(states) + static_cast<std::size_t>(t) * bytes;
}

void CudnnRecurrence::forward(const LayerWindow& w, const Part& /*part*/) {
  Layer& l = layer(w.layer);
  const Sequences& s = sequences(w.steps);
  const std::int64_t state = std::int64_t{shape_.lanes} * network_.shape().hidden;
  const Element element = network_.format().element;
  const bool has_c = has_cell_state(network_.shape().cell);
  const void* cx = has_c ? w.c : nullptr;
  float* const c_end = has_c ? w.c + w.steps * state : nullptr;
  void* cy = c_end;
  if (has_c && is_narrow()) {
    convert(w.c, l.c_before.data(), element, state, network_.stream());
    cx = l.c_before.data();
    cy = c_after_.data();
  }
  check(cudnn_.cudnnRNNForward(handle_.get(), l.rnn.get(), w.keep ? CUDNN_FWD_MODE_TRAINING : CUDNN_FWD_MODE_INFERENCE,
                               nullptr, input_of(w.layer, s).get(), w.layer == 0 ? w.one_hot : w.x, s.hidden.get(),
                               slot(w.h, 1), state_.get(), w.h, nullptr, has_c ? state_.get() : nullptr, cx, cy,
                               l.weight_bytes, weights_.data() + l.weights_at, work_.bytes(), work_.data(),
                               w.keep ? l.reserve.bytes() : 0, w.keep ? l.reserve.data() : nullptr),
        "cudnnRNNForward");
  if (has_c && is_narrow()) convert_back(c_after_.data(), element, c_end, state, network_.stream());
}

void CudnnRecurrence::backward(const LayerWindow& w, const Part& /*part*/) {
  Layer& l = layer(w.layer);
  const Sequences& s = sequences(w.steps);
  const bool has_c = has_cell_state(network_.shape().cell);
  const void* const cx = !has_c ? nullptr : is_narrow() ? static_cast<const void*>(l.c_before.data()) : w.c;
  void* const dx = w.layer == 0 ? dx_.data() : w.dx;  // cuDNN takes no null here
  check(cudnn_.cudnnRNNBackwardData_v8(handle_.get(), l.rnn.get(), nullptr, s.hidden.get(), slot(w.h, 1), w.dy,
                                       input_of(w.layer, s).get(), dx, state_.get(), w.h, nullptr, nullptr,
                                       has_c ? state_.get() : nullptr, cx, nullptr, nullptr, l.weight_bytes,
                                       weights_.data() + l.weights_at, work_.bytes(), work_.data(), l.reserve.bytes(),
                                       l.reserve.data()),
        "cudnnRNNBackwardData_v8");
}

void CudnnRecurrence::weight_gradients(const LayerWindow& w) {
  Layer& l = layer(w.layer);
  const Sequences& s = sequences(w.steps);
  const void* const x = w.layer == 0 ? w.one_hot : w.x;
  std::byte* const gradients = gradients_.data() + l.weights_at;
  // CUDNN_WGRAD_MODE_SET is in the header, and is refused.
  check(cudaMemsetAsync(gradients, 0, l.weight_bytes, network_.stream()), "cudaMemsetAsync");
  check(cudnn_.cudnnRNNBackwardWeights_v8(handle_.get(), l.rnn.get(), CUDNN_WGRAD_MODE_ADD, nullptr,
                                          input_of(w.layer, s).get(), x, state_.get(), w.h, s.hidden.get(),
                                          slot(w.h, 1), l.weight_bytes, gradients, work_.bytes(), work_.data(),
                                          l.reserve.bytes(), l.reserve.data()),
        "cudnnRNNBackwardWeights_v8");
  for (const Runs& runs : {l.runs.rows, l.runs.blocks}) {
    in_grids(runs.first, runs.count, [&](std::size_t first, int count) {
      unpack(unpack_runs_.data() + first, count, runs.longest, gradients_.data(), network_.format().element,
             network_.arena(Arena::kGradients), network_.stream());
    });
  }
}

}  // namespace charrnn::cuda

#endif
