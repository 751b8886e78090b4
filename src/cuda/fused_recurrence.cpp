// The recurrence from own kernels and cuBLASLt: one product and one kernel a step, everything that does not wait for
// the step before as one product over a part of the window, or all of it. Layers work at the same time, each a part
// behind the one below: one layer's step fills a fraction of a large GPU.
#include <algorithm>

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
  int parts(int steps) const override;
  void forward(const LayerWindow& w, const Part& part) override;
  void backward(const LayerWindow& w, const Part& part) override;
  void input_gradient(const LayerWindow& w, const Part& part, Track& below) override;
  void weight_gradients(const LayerWindow& w) override;

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
  /// What a layer needs for itself, since layers work at the same time.
  struct Layer {
    DeviceBuffer<std::byte> gates;  // [T,lanes,W] activations, then gradients
    DeviceBuffer<float> input;      // [part,lanes,W] products of what the layer reads; not for a gather alone
    DeviceBuffer<float> recurrent;  // [lanes, G H] products of one step
    DeviceBuffer<float> dh, dc;     // [lanes,H] on their way back
    DeviceBuffer<float> partial;    // of sums of columns
  };
  Layer& layer(const LayerWindow& w) { return layers_[static_cast<std::size_t>(w.layer)]; }

  std::size_t longest_part() const;
  Matrix input_of(const LayerWindow& w, const Part& part) const;
  void input_products(const LayerWindow& w, const Part& part);
  void bias_gradients(const LayerWindow& w);

  CudaNetwork& network_;
  RecurrenceShape shape_;
  Element element_;
  std::int64_t lanes_, hidden_, width_;
  std::vector<Layer> layers_;
};

/// Layers begin one part after the one below: more parts idle less, and give smaller products. Not measured yet.
constexpr int kParts = 8, kShortestPart = 4;

FusedRecurrence::FusedRecurrence(CudaNetwork& network, const RecurrenceShape& shape)
    : network_(network),
      shape_(shape),
      element_(network.format().element),
      lanes_(shape.lanes),
      hidden_(network.shape().hidden),
      width_(network.gates().width) {
  const auto lanes = static_cast<std::size_t>(lanes_), hidden = static_cast<std::size_t>(hidden_);
  const auto width = static_cast<std::size_t>(width_);
  const std::size_t rows = static_cast<std::size_t>(shape.max_steps) * lanes;
  for (int l = 0; l < network.shape().layers; ++l) {
    Layer& to = layers_.emplace_back();
    to.recurrent =
        DeviceBuffer<float>(lanes * static_cast<std::size_t>(network.gates().hidden.rows), "a step's products");
    if (l > 0) to.input = DeviceBuffer<float>(longest_part() * lanes * width, kInputProducts);
    if (!shape.training) continue;
    to.gates = DeviceBuffer<std::byte>(rows * width * size_of(element_), "the gates of a layer");
    to.dh = DeviceBuffer<float>(lanes * hidden, "gradients of the hidden state");
    if (has_cell_state(network.shape().cell)) to.dc = DeviceBuffer<float>(lanes * hidden, "gradients of the cell");
    to.partial = DeviceBuffer<float>(static_cast<std::size_t>(sum_chunks(static_cast<std::int64_t>(rows))) * width,
                                     "gradients of biases");
  }
}

int FusedRecurrence::parts(int steps) const {
  if (network_.shape().layers == 1) return 1;
  return std::clamp(steps / kShortestPart, 1, kParts);
}

/// Of any window that the session may run: one of T steps is cut to parts of at most this many.
std::size_t FusedRecurrence::longest_part() const {
  int longest = 0;
  for (int steps = 1; steps <= shape_.max_steps; ++steps) {
    const int count = parts(steps);
    longest = std::max(longest, (steps + count - 1) / count);
  }
  return static_cast<std::size_t>(longest);
}

/// What the layer reads in a part, as one matrix.
Matrix FusedRecurrence::input_of(const LayerWindow& w, const Part& part) const {
  const std::int64_t rows = part.steps * lanes_, first = part.first * lanes_;
  if (w.layer > 0) return matrix(at(w.x, first * hidden_), rows, hidden_, hidden_);
  const int vocabulary = network_.shape().vocabulary, stride = one_hot_stride(vocabulary);
  return matrix(at(w.one_hot, first * stride), rows, vocabulary, stride);
}

/// x W_ih^T over the part, block by block of the row of gates.
void FusedRecurrence::input_products(const LayerWindow& w, const Part& part) {
  DeviceBuffer<float>& to = layer(w).input;
  if (to.size() == 0) {  // vectors into layer 0: never in a step that is captured
    const std::size_t rows = static_cast<std::size_t>(shape_.max_steps) * static_cast<std::size_t>(lanes_);
    to = DeviceBuffer<float>(rows * static_cast<std::size_t>(width_), kInputProducts);
  }
  const Matrix x = input_of(w, part);
  const void* const weight = network_.weight(network_.layout().weight_ih(w.layer));
  for (const GateBlock& block : network_.gates().input) {
    if (block.rows == 0) continue;
    const Matrix rows = matrix(at(weight, block.weight_row * x.columns), block.rows, x.columns, x.columns);
    w.track->products->run({.a = x, .b = transposed(rows), .to = to.data() + block.gate_column, .stride = width_},
                           w.track->stream);
  }
}

void FusedRecurrence::forward(const LayerWindow& w, const Part& part) {
  const ParameterLayout& layout = network_.layout();
  const std::int64_t slot = lanes_ * hidden_, recurrent_rows = network_.gates().hidden.rows;
  const bool gathers = w.layer == 0 && w.ids != nullptr;
  if (!gathers) input_products(w, part);
  const Matrix recurrent = matrix(network_.weight(layout.weight_hh(w.layer)), recurrent_rows, hidden_, hidden_);
  float* const products = layer(w).recurrent.data();
  for (std::int64_t t = part.first; t < part.end(); ++t) {
    w.track->products->run({.a = matrix(at(w.h, t * slot), lanes_, hidden_, hidden_),
                            .b = transposed(recurrent),
                            .to = products,
                            .stride = recurrent_rows},
                           w.track->stream);
    CellForward s{.cell = network_.shape().cell,
                  .element = element_,
                  .lanes = static_cast<int>(lanes_),
                  .hidden = static_cast<int>(hidden_),
                  .recurrent = products};
    if (gathers) {
      s.input = network_.table();
      s.ids = w.ids + t * lanes_;
    } else {
      s.input = layer(w).input.data() + (t - part.first) * lanes_ * width_;
      s.bias = network_.bias(w.layer);
    }
    if (w.keep) s.gates = at(layer(w).gates.data(), t * lanes_ * width_);
    s.h_prev = at(w.h, t * slot);
    s.h = at(w.h, (t + 1) * slot);
    if (w.c != nullptr) {
      s.c_prev = w.c + t * slot;
      s.c = w.c + (t + 1) * slot;
    }
    cell_forward(s, w.track->stream);
  }
}

void FusedRecurrence::backward(const LayerWindow& w, const Part& part) {
  const Cell cell = network_.shape().cell;
  const std::int64_t slot = lanes_ * hidden_, row = lanes_ * width_;
  const GateBlock& recurrent = network_.gates().hidden;
  Layer& own = layer(w);
  void* const gates = own.gates.data();
  const Matrix weight_hh =
      matrix(network_.weight(network_.layout().weight_hh(w.layer)), recurrent.rows, hidden_, hidden_);
  for (std::int64_t t = part.end() - 1; t >= part.first; --t) {
    CellBackward s{.cell = cell,
                   .element = element_,
                   .lanes = static_cast<int>(lanes_),
                   .hidden = static_cast<int>(hidden_),
                   .last = t == w.steps - 1,
                   .gates = at(gates, t * row),
                   .h_prev = at(w.h, t * slot),
                   .h = at(w.h, (t + 1) * slot),
                   .dy = at(w.dy, t * slot),
                   .dh = own.dh.data(),
                   .dc = own.dc.data()};
    if (w.c != nullptr) {
      s.c_prev = w.c + t * slot;
      s.c = w.c + (t + 1) * slot;
    }
    cell_backward(s, w.track->stream);
    if (t == 0) break;  // truncated: nothing goes back behind the window
    w.track->products->run({.a = matrix(at(gates, t * row + recurrent.gate_column), lanes_, recurrent.rows, width_),
                            .b = weight_hh,
                            .to = own.dh.data(),
                            .stride = hidden_,
                            .accumulate = cell == Cell::kGru},
                           w.track->stream);
  }
}

void FusedRecurrence::input_gradient(const LayerWindow& w, const Part& part, Track& below) {
  const void* const weight = network_.weight(network_.layout().weight_ih(w.layer));
  const std::int64_t first = part.first * lanes_;
  const void* const gates = at(layer(w).gates.data(), first * width_);
  bool accumulate = false;
  for (const GateBlock& block : network_.gates().input) {
    if (block.rows == 0) continue;
    below.products->run({.a = matrix(at(gates, block.gate_column), part.steps * lanes_, block.rows, width_),
                         .b = matrix(at(weight, block.weight_row * hidden_), block.rows, hidden_, hidden_),
                         .to = at(w.dx, first * hidden_),
                         .element = element_,
                         .stride = hidden_,
                         .accumulate = accumulate},
                        below.stream);
    accumulate = true;
  }
}

/// dgates^T times what the product read, over all T at once.
void FusedRecurrence::weight_gradients(const LayerWindow& w) {
  const ParameterLayout& layout = network_.layout();
  const std::int64_t rows = w.steps * lanes_;
  const void* const gates = layer(w).gates.data();
  const auto gradient = [&](const GateBlock& block, const Matrix& x, const ParameterTensor& tensor) {
    const Matrix dgates = matrix(at(gates, block.gate_column), rows, block.rows, width_);
    const auto columns = static_cast<std::int64_t>(tensor.cols);
    w.track->products->run({.a = transposed(dgates),
                            .b = x,
                            .to = network_.gradient(tensor) + block.weight_row * columns,
                            .stride = columns},
                           w.track->stream);
  };
  gradient(network_.gates().hidden, matrix(w.h, rows, hidden_, hidden_), layout.weight_hh(w.layer));
  for (const GateBlock& block : network_.gates().input) {
    if (block.rows != 0) gradient(block, input_of(w, {0, w.steps}), layout.weight_ih(w.layer));
  }
  bias_gradients(w);
}

void FusedRecurrence::bias_gradients(const LayerWindow& w) {
  const ParameterLayout& layout = network_.layout();
  ColumnSums sums{.element = element_,
                  .from = layer(w).gates.data(),
                  .rows = w.steps * lanes_,
                  .columns = static_cast<int>(width_),
                  .stride = static_cast<int>(width_),
                  .partial = layer(w).partial.data()};
  const auto target = [](float* to, const GateBlock& block) {
    return SumTarget{to + block.weight_row, static_cast<int>(block.gate_column), static_cast<int>(block.rows)};
  };
  for (int i = 0; i < 2; ++i) {
    sums.targets[i] = target(network_.gradient(layout.bias_ih(w.layer)), network_.gates().input[i]);
  }
  sums.targets[2] = target(network_.gradient(layout.bias_hh(w.layer)), network_.gates().hidden);
  column_sums(sums, w.track->stream);
}

}  // namespace

std::unique_ptr<Recurrence> make_fused_recurrence(CudaNetwork& network, const RecurrenceShape& shape) {
  return std::make_unique<FusedRecurrence>(network, shape);
}

}  // namespace charrnn::cuda
