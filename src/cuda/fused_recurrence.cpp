// The recurrence from own kernels and cuBLASLt: one product and one kernel a step, everything that does not wait for
// the step before as one product over all T.
#include "cuda/recurrence.h"
#include "kernels/cell_steps.h"
#include "kernels/column_sums.h"

namespace charrnn::cuda {

namespace {

constexpr const char* kInputProducts = "products of a layer's input";

class FusedRecurrence final : public Recurrence {
 public:
  FusedRecurrence(CudaNetwork& network, const RecurrenceShape& shape);

  bool wants_one_hot() const override { return false; }
  void refresh() override {}          // reads the network's own copies
  void enqueue_refresh() override {}  // the same
  void forward(const LayerWindow& w) override;
  void backward(const LayerWindow& w) override;

 private:
  /// Element `i` of an array of the format's elements.
  const std::byte* at(const void* array, std::int64_t i) const {
    return static_cast<const std::byte*>(array) + i * static_cast<std::int64_t>(size_of(element_));
  }
  std::byte* at(void* array, std::int64_t i) const {
    return static_cast<std::byte*>(array) + i * static_cast<std::int64_t>(size_of(element_));
  }
  /// Row-major, of the format's elements.
  Matrix matrix(const void* data, std::int64_t rows, std::int64_t columns, std::int64_t stride) const {
    return {data, element_, rows, columns, stride, false};
  }
  static Matrix transposed(Matrix m) {
    m.transposed = true;
    return m;
  }
  void* gates_of(int layer) const { return gates_[static_cast<std::size_t>(layer)].data(); }

  Matrix input_of(const LayerWindow& w) const;
  void input_products(const LayerWindow& w);
  void weight_gradients(const LayerWindow& w);
  void bias_gradients(const LayerWindow& w);

  CudaNetwork& network_;
  Element element_;
  std::int64_t lanes_, hidden_, width_;
  std::size_t max_rows_;
  std::vector<DeviceBuffer<std::byte>> gates_;  // a layer: [T,lanes,W] activations, then gradients
  DeviceBuffer<float> input_;                   // [T,lanes,W] products of a layer's input; not for a gather alone
  DeviceBuffer<float> recurrent_;               // [lanes, G H] products of one step
  DeviceBuffer<float> dh_, dc_;                 // [lanes,H] on their way back
  DeviceBuffer<float> partial_;                 // of sums of columns
};

FusedRecurrence::FusedRecurrence(CudaNetwork& network, const RecurrenceShape& shape)
    : network_(network),
      element_(network.format().element),
      lanes_(shape.lanes),
      hidden_(network.shape().hidden),
      width_(network.gates().width),
      max_rows_(static_cast<std::size_t>(shape.max_steps) * static_cast<std::size_t>(shape.lanes)) {
  const auto lanes = static_cast<std::size_t>(lanes_), hidden = static_cast<std::size_t>(hidden_);
  const auto width = static_cast<std::size_t>(width_);
  const std::size_t rows = max_rows_;
  recurrent_ = DeviceBuffer<float>(lanes * static_cast<std::size_t>(network.gates().hidden.rows), "products of a step");
  if (network.shape().layers > 1) input_ = DeviceBuffer<float>(rows * width, kInputProducts);
  if (!shape.training) return;
  for (int l = 0; l < network.shape().layers; ++l) {
    gates_.emplace_back(rows * width * size_of(element_), "the gates of a layer");
  }
  dh_ = DeviceBuffer<float>(lanes * hidden, "gradients of the hidden state");
  if (has_cell_state(network.shape().cell)) dc_ = DeviceBuffer<float>(lanes * hidden, "gradients of the cell");
  partial_ = DeviceBuffer<float>(static_cast<std::size_t>(sum_chunks(static_cast<std::int64_t>(rows))) * width,
                                 "gradients of biases");
}

/// What the layer reads, as one matrix over all T.
Matrix FusedRecurrence::input_of(const LayerWindow& w) const {
  const std::int64_t rows = w.steps * lanes_;
  const int vocabulary = network_.shape().vocabulary;
  return w.layer == 0 ? matrix(w.one_hot, rows, vocabulary, one_hot_stride(vocabulary))
                      : matrix(w.x, rows, hidden_, hidden_);
}

/// x W_ih^T over all T, block by block of the row of gates.
void FusedRecurrence::input_products(const LayerWindow& w) {
  if (input_.size() == 0) input_ = DeviceBuffer<float>(max_rows_ * static_cast<std::size_t>(width_), kInputProducts);
  const Matrix x = input_of(w);
  const void* const weight = network_.weight(network_.layout().weight_ih(w.layer));
  for (const GateBlock& block : network_.gates().input) {
    if (block.rows == 0) continue;
    const Matrix part = matrix(at(weight, block.weight_row * x.columns), block.rows, x.columns, x.columns);
    network_.products().run({.a = x, .b = transposed(part), .to = input_.data() + block.gate_column, .stride = width_},
                            network_.stream());
  }
}

void FusedRecurrence::forward(const LayerWindow& w) {
  const ParameterLayout& layout = network_.layout();
  const std::int64_t slot = lanes_ * hidden_, recurrent_rows = network_.gates().hidden.rows;
  const bool gathers = w.layer == 0 && w.ids != nullptr;
  if (!gathers) input_products(w);
  const Matrix recurrent = matrix(network_.weight(layout.weight_hh(w.layer)), recurrent_rows, hidden_, hidden_);
  for (std::int64_t t = 0; t < w.steps; ++t) {
    network_.products().run({.a = matrix(at(w.h, t * slot), lanes_, hidden_, hidden_),
                             .b = transposed(recurrent),
                             .to = recurrent_.data(),
                             .stride = recurrent_rows},
                            network_.stream());
    CellForward s{.cell = network_.shape().cell,
                  .element = element_,
                  .lanes = static_cast<int>(lanes_),
                  .hidden = static_cast<int>(hidden_),
                  .recurrent = recurrent_.data()};
    if (gathers) {
      s.input = network_.table();
      s.ids = w.ids + t * lanes_;
    } else {
      s.input = input_.data() + t * lanes_ * width_;
      s.bias = network_.bias(w.layer);
    }
    if (w.keep) s.gates = at(gates_of(w.layer), t * lanes_ * width_);
    s.h_prev = at(w.h, t * slot);
    s.h = at(w.h, (t + 1) * slot);
    if (w.c != nullptr) {
      s.c_prev = w.c + t * slot;
      s.c = w.c + (t + 1) * slot;
    }
    cell_forward(s, network_.stream());
  }
}

void FusedRecurrence::backward(const LayerWindow& w) {
  const ParameterLayout& layout = network_.layout();
  const Cell cell = network_.shape().cell;
  const std::int64_t slot = lanes_ * hidden_, row = lanes_ * width_;
  const GateBlock& recurrent = network_.gates().hidden;
  void* const gates = gates_of(w.layer);
  const Matrix weight_hh = matrix(network_.weight(layout.weight_hh(w.layer)), recurrent.rows, hidden_, hidden_);
  for (std::int64_t t = w.steps - 1; t >= 0; --t) {
    CellBackward s{.cell = cell,
                   .element = element_,
                   .lanes = static_cast<int>(lanes_),
                   .hidden = static_cast<int>(hidden_),
                   .last = t == w.steps - 1,
                   .gates = at(gates, t * row),
                   .h_prev = at(w.h, t * slot),
                   .h = at(w.h, (t + 1) * slot),
                   .dy = at(w.dy, t * slot),
                   .dh = dh_.data(),
                   .dc = dc_.data()};
    if (w.c != nullptr) {
      s.c_prev = w.c + t * slot;
      s.c = w.c + (t + 1) * slot;
    }
    cell_backward(s, network_.stream());
    if (t == 0) break;  // truncated: nothing goes back behind the window
    network_.products().run({.a = matrix(at(gates, t * row + recurrent.gate_column), lanes_, recurrent.rows, width_),
                             .b = weight_hh,
                             .to = dh_.data(),
                             .stride = hidden_,
                             .accumulate = cell == Cell::kGru},
                            network_.stream());
  }
  weight_gradients(w);
  bias_gradients(w);
  if (w.dx == nullptr) return;
  bool accumulate = false;
  for (const GateBlock& block : network_.gates().input) {
    if (block.rows == 0) continue;
    const void* const weight = network_.weight(layout.weight_ih(w.layer));
    network_.products().run({.a = matrix(at(gates, block.gate_column), w.steps * lanes_, block.rows, width_),
                             .b = matrix(at(weight, block.weight_row * hidden_), block.rows, hidden_, hidden_),
                             .to = w.dx,
                             .element = element_,
                             .stride = hidden_,
                             .accumulate = accumulate},
                            network_.stream());
    accumulate = true;
  }
}

/// dgates^T times what the product read, over all T at once.
void FusedRecurrence::weight_gradients(const LayerWindow& w) {
  const ParameterLayout& layout = network_.layout();
  const std::int64_t rows = w.steps * lanes_;
  const auto gradient = [&](const GateBlock& block, const Matrix& x, const ParameterTensor& tensor) {
    const Matrix dgates = matrix(at(gates_of(w.layer), block.gate_column), rows, block.rows, width_);
    const auto columns = static_cast<std::int64_t>(tensor.cols);
    network_.products().run({.a = transposed(dgates),
                             .b = x,
                             .to = network_.gradient(tensor) + block.weight_row * columns,
                             .stride = columns},
                            network_.stream());
  };
  gradient(network_.gates().hidden, matrix(w.h, rows, hidden_, hidden_), layout.weight_hh(w.layer));
  for (const GateBlock& block : network_.gates().input) {
    if (block.rows != 0) gradient(block, input_of(w), layout.weight_ih(w.layer));
  }
}

void FusedRecurrence::bias_gradients(const LayerWindow& w) {
  const ParameterLayout& layout = network_.layout();
  ColumnSums sums{.element = element_,
                  .from = gates_of(w.layer),
                  .rows = w.steps * lanes_,
                  .columns = static_cast<int>(width_),
                  .stride = static_cast<int>(width_),
                  .partial = partial_.data()};
  const auto target = [](float* to, const GateBlock& block) {
    return SumTarget{to + block.weight_row, static_cast<int>(block.gate_column), static_cast<int>(block.rows)};
  };
  for (int i = 0; i < 2; ++i) {
    sums.targets[i] = target(network_.gradient(layout.bias_ih(w.layer)), network_.gates().input[i]);
  }
  sums.targets[2] = target(network_.gradient(layout.bias_hh(w.layer)), network_.gates().hidden);
  column_sums(sums, network_.stream());
}

}  // namespace

std::unique_ptr<Recurrence> make_fused_recurrence(CudaNetwork& network, const RecurrenceShape& shape) {
  return std::make_unique<FusedRecurrence>(network, shape);
}

}  // namespace charrnn::cuda
