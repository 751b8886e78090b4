// The stand-in of cuDNN's recurrent networks against src/reference, what it refuses, and the misuse that it reports.
#include <cudnn.h>

#include <cmath>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "host_cuda/device_array.h"
#include "host_cuda/host_cuda.h"
#include "host_cuda/library_support.h"
#include "reference/cells.h"
#include "support/catch.h"

using namespace host_cuda;
namespace ref = charrnn::reference;

namespace {

void ok(cudnnStatus_t status) {
  char text[200] = {};
  cudnnGetLastErrorString(text, sizeof text);
  INFO(cudnnGetErrorString(status) << ": " << text);
  REQUIRE(status == CUDNN_STATUS_SUCCESS);
}

cudnnDataType_t type_of(Element element) {
  switch (element) {
    case Element::kFloat: return CUDNN_DATA_FLOAT;
    case Element::kHalf: return CUDNN_DATA_HALF;
    case Element::kBfloat16: return CUDNN_DATA_BFLOAT16;
  }
  return CUDNN_DATA_FLOAT;
}

struct Shape {
  cudnnRNNMode_t cell = CUDNN_LSTM;
  int layers = 2, inputs = 5, hidden = 7, steps = 3, batch = 4;
  std::vector<int> lengths{};  // empty: all of `steps`
  cudnnRNNDataLayout_t layout = CUDNN_RNN_DATA_LAYOUT_SEQ_MAJOR_UNPACKED;
  Element element = Element::kFloat;
  cudnnDataType_t precision = CUDNN_DATA_FLOAT;
  cudnnRNNBiasMode_t bias = CUDNN_RNN_DOUBLE_BIAS;
  cudnnRNNAlgo_t algo = CUDNN_RNN_ALGO_STANDARD;
  cudnnDirectionMode_t direction = CUDNN_UNIDIRECTIONAL;
  cudnnRNNInputMode_t input = CUDNN_LINEAR_INPUT;
  unsigned flags = CUDNN_RNN_PADDED_IO_ENABLED;
  int projection = 0;   // 0: as hidden
  bool carried = true;  // hx and cx given, and derivatives at the end

  int gates() const { return cell == CUDNN_LSTM ? 4 : cell == CUDNN_GRU ? 3 : 1; }
  int inputs_of(int layer) const { return layer == 0 ? inputs : hidden; }
  int length(int lane) const { return lengths.empty() ? steps : lengths[static_cast<std::size_t>(lane)]; }
  std::vector<int> all_lengths() const {
    return lengths.empty() ? std::vector<int>(static_cast<std::size_t>(batch), steps) : lengths;
  }
  std::size_t states() const { return static_cast<std::size_t>(layers * batch * hidden); }
  bool packed() const { return layout == CUDNN_RNN_DATA_LAYOUT_SEQ_MAJOR_PACKED; }
  std::size_t row(int t, int lane) const {
    if (!packed()) return static_cast<std::size_t>(t * batch + lane);
    std::size_t row = 0;
    for (int s = 0; s <= t; ++s) {
      for (int b = 0; b < (s < t ? batch : lane); ++b) row += s < length(b) ? 1 : 0;
    }
    return row;
  }
  std::size_t rows() const { return packed() ? row(steps, 0) : static_cast<std::size_t>(steps * batch); }
};

/// Handle and descriptors of a shape.
struct Objects {
  cudnnHandle_t handle = nullptr;
  cudnnDropoutDescriptor_t dropout = nullptr;
  cudnnRNNDescriptor_t net = nullptr;
  cudnnRNNDataDescriptor_t x = nullptr, y = nullptr;
  cudnnTensorDescriptor_t state = nullptr, matrix = nullptr, bias = nullptr;

  Objects() {
    ok(cudnnCreate(&handle));
    ok(cudnnCreateDropoutDescriptor(&dropout));
    ok(cudnnSetDropoutDescriptor(dropout, handle, 0, nullptr, 0, 0));
    ok(cudnnCreateRNNDescriptor(&net));
    for (auto* data : {&x, &y}) ok(cudnnCreateRNNDataDescriptor(data));
    for (auto* tensor : {&state, &matrix, &bias}) ok(cudnnCreateTensorDescriptor(tensor));
  }
  ~Objects() {
    for (auto* tensor : {state, matrix, bias}) cudnnDestroyTensorDescriptor(tensor);
    for (auto* data : {x, y}) cudnnDestroyRNNDataDescriptor(data);
    cudnnDestroyRNNDescriptor(net);
    cudnnDestroyDropoutDescriptor(dropout);
    cudnnDestroy(handle);
  }
  Objects(const Objects&) = delete;
  Objects& operator=(const Objects&) = delete;

  cudnnStatus_t set_net(const Shape& s) {
    return cudnnSetRNNDescriptor_v8(net, s.algo, s.cell, s.bias, s.direction, s.input, type_of(s.element), s.precision,
                                    CUDNN_DEFAULT_MATH, s.inputs, s.hidden, s.projection == 0 ? s.hidden : s.projection,
                                    s.layers, dropout, s.flags);
  }
  cudnnStatus_t set_data(cudnnRNNDataDescriptor_t desc, const Shape& s, int width, void* fill = nullptr) {
    const std::vector<int> lengths = s.all_lengths();
    return cudnnSetRNNDataDescriptor(desc, type_of(s.element), s.layout, s.steps, s.batch, width, lengths.data(), fill);
  }
  void set_state(const Shape& s) {
    const int dims[] = {s.layers, s.batch, s.hidden}, strides[] = {s.batch * s.hidden, s.hidden, 1};
    ok(cudnnSetTensorNdDescriptor(state, type_of(s.element), 3, dims, strides));
  }
  void set(const Shape& s) {
    ok(set_net(s));
    ok(set_data(x, s, s.inputs));
    ok(set_data(y, s, s.hidden));
    set_state(s);
  }
};

/// A training run of one window through the stand-in: its arrays, filled with noise.
struct Run {
  Shape shape;
  Objects o;
  Stream stream;
  std::size_t weight_bytes = 0, work_bytes = 0, reserve_bytes = 0;
  DeviceArray x, y, dx, dy, hx, hy, cx, cy, dhx, dhy, dcx, dcy;
  DeviceArray weights, dweights, work, reserve;

  explicit Run(const Shape& s)
      : shape(s),
        x(s.element, noise(s.rows() * static_cast<std::size_t>(s.inputs), 1)),
        y(s.element, s.rows() * static_cast<std::size_t>(s.hidden)),
        dx(s.element, x.count()),
        dy(s.element, noise(y.count(), 2)),
        hx(s.element, noise(s.states(), 3)),
        hy(s.element, s.states()),
        cx(s.element, noise(s.states(), 4)),
        cy(s.element, s.states()),
        dhx(s.element, s.states()),
        dhy(s.element, noise(s.states(), 5)),
        dcx(s.element, s.states()),
        dcy(s.element, noise(s.states(), 6)),
        weights(s.element, sizes_first(s) / bytes_of(s.element)),
        dweights(s.element, weights.count()),
        work(Element::kFloat, work_bytes / 4),
        reserve(Element::kFloat, reserve_bytes / 4) {
    dweights.put(noise(dweights.count(), 8));
    for (int layer = 0; layer < s.layers; ++layer) {
      for (int linear = 0; linear < 2 * s.gates(); ++linear) {
        for (const bool is_bias : {false, true}) {
          const Part part = find(layer, linear, is_bias, weights.at());
          write(part, noise(part.count, static_cast<std::uint64_t>(100 + 10 * layer + 2 * linear + (is_bias ? 1 : 0))));
        }
      }
    }
  }

  std::size_t sizes_first(const Shape& s) {
    o.set(s);
    ok(cudnnSetStream(o.handle, stream));
    ok(cudnnGetRNNWeightSpaceSize(o.handle, o.net, &weight_bytes));
    ok(cudnnGetRNNTempSpaceSizes(o.handle, o.net, CUDNN_FWD_MODE_TRAINING, o.x, &work_bytes, &reserve_bytes));
    return weight_bytes;
  }

  struct Part {
    void* at = nullptr;
    std::size_t count = 0;
    std::vector<int> dims{};
  };
  Part find(int layer, int linear, bool is_bias, void* space) {
    void *matrix_at = nullptr, *bias_at = nullptr;
    ok(cudnnGetRNNWeightParams(o.handle, o.net, layer, weight_bytes, space, linear, o.matrix, &matrix_at, o.bias,
                               &bias_at));
    int count = 0, dims[CUDNN_DIM_MAX] = {}, strides[CUDNN_DIM_MAX] = {};
    cudnnDataType_t type{};
    ok(cudnnGetTensorNdDescriptor(is_bias ? o.bias : o.matrix, CUDNN_DIM_MAX, &type, &count, dims, strides));
    Part part;
    part.at = is_bias ? bias_at : matrix_at;
    part.dims.assign(dims, dims + count);
    part.count = count == 0 ? 0 : static_cast<std::size_t>(dims[0] * dims[1] * dims[2]);
    return part;
  }
  void write(const Part& part, const std::vector<double>& values) {
    std::vector<std::byte> host(values.size() * bytes_of(shape.element));
    from_double(shape.element, values.data(), values.size(), host.data());
    if (!host.empty()) succeed(cudaMemcpy(part.at, host.data(), host.size(), cudaMemcpyHostToDevice));
  }
  /// Zeros where there is none.
  std::vector<double> read(const Part& part, std::size_t count) const {
    std::vector<double> values(count);
    if (part.count == 0) return values;
    std::vector<std::byte> host(part.count * bytes_of(shape.element));
    succeed(cudaMemcpy(host.data(), part.at, host.size(), cudaMemcpyDeviceToHost));
    to_double(shape.element, host.data(), part.count, values.data());
    return values;
  }

  const void* if_carried(const DeviceArray& array) const { return shape.carried ? array.at() : nullptr; }
  cudnnStatus_t forward(cudnnForwardMode_t mode = CUDNN_FWD_MODE_TRAINING) {
    return cudnnRNNForward(o.handle, o.net, mode, nullptr, o.x, x.at(), o.y, y.at(), o.state, if_carried(hx), hy.at(),
                           o.state, if_carried(cx), cy.at(), weight_bytes, weights.at(), work_bytes, work.at(),
                           reserve_bytes, reserve.at());
  }
  cudnnStatus_t backward_data() {
    return cudnnRNNBackwardData_v8(o.handle, o.net, nullptr, o.y, y.at(), dy.at(), o.x, dx.at(), o.state,
                                   if_carried(hx), if_carried(dhy), dhx.at(), o.state, if_carried(cx), if_carried(dcy),
                                   dcx.at(), weight_bytes, weights.at(), work_bytes, work.at(), reserve_bytes,
                                   reserve.at());
  }
  cudnnStatus_t backward_weights(cudnnWgradMode_t mode = CUDNN_WGRAD_MODE_ADD) {
    return cudnnRNNBackwardWeights_v8(o.handle, o.net, mode, nullptr, o.x, x.at(), o.state, if_carried(hx), o.y, y.at(),
                                      weight_bytes, dweights.at(), work_bytes, work.at(), reserve_bytes, reserve.at());
  }
  void wait() const { stream.wait(); }
};

// The reference: the same window, one lane and one step at a time.

struct Arrays {
  std::vector<double> weight_ih, weight_hh, bias_ih, bias_hh;
};

struct Expected {
  std::vector<double> y, hy, cy, dx, dhx, dcx;
  std::vector<Arrays> gradients;
};

Expected expected_of(Run& run) {
  const Shape& s = run.shape;
  const auto at = [](int i) { return static_cast<std::size_t>(i); };
  std::vector<Arrays> weights(at(s.layers));
  Expected e{{}, {}, {}, {}, {}, {}, std::vector<Arrays>(at(s.layers))};
  for (int layer = 0; layer < s.layers; ++layer) {
    for (int linear = 0; linear < 2 * s.gates(); ++linear) {
      const bool recurrent = linear >= s.gates();
      const std::size_t cols = at(recurrent ? s.hidden : s.inputs_of(layer)), rows = at(s.hidden);
      Arrays& w = weights[at(layer)];
      const auto append = [](std::vector<double>& to, const std::vector<double>& values) {
        to.insert(to.end(), values.begin(), values.end());
      };
      append(recurrent ? w.weight_hh : w.weight_ih,
             run.read(run.find(layer, linear, false, run.weights.at()), rows * cols));
      append(recurrent ? w.bias_hh : w.bias_ih, run.read(run.find(layer, linear, true, run.weights.at()), rows));
    }
    const Arrays& w = weights[at(layer)];
    e.gradients[at(layer)] = {std::vector<double>(w.weight_ih.size()), std::vector<double>(w.weight_hh.size()),
                              std::vector<double>(w.bias_ih.size()), std::vector<double>(w.bias_hh.size())};
  }

  const std::vector<double> x = run.x.read(), dy = run.dy.read();
  const auto carried = [&](const DeviceArray& a) { return s.carried ? a.read() : std::vector<double>(s.states()); };
  const std::vector<double> hx = carried(run.hx), cx = carried(run.cx), dhy = carried(run.dhy), dcy = carried(run.dcy);
  const auto slice = [](const std::vector<double>& v, std::size_t index, int width) {
    const auto begin = v.begin() + static_cast<std::ptrdiff_t>(index) * width;
    return std::vector<double>(begin, begin + width);
  };
  const auto paste = [&](std::vector<double>& v, std::size_t index, const std::vector<double>& values) {
    std::copy(values.begin(), values.end(), v.begin() + static_cast<std::ptrdiff_t>(index * values.size()));
  };
  e.y.resize(run.y.count());
  e.dx.resize(run.x.count());
  e.hy = e.cy = e.dhx = e.dcx = std::vector<double>(s.states());

  for (int lane = 0; lane < s.batch; ++lane) {
    const int steps = s.length(lane);
    std::vector<std::vector<ref::CellStep>> cells(at(s.layers));
    std::vector<std::vector<double>> values;  // what the layer at work reads
    for (int t = 0; t < steps; ++t) values.push_back(slice(x, s.row(t, lane), s.inputs));
    for (int layer = 0; layer < s.layers; ++layer) {
      const Arrays& a = weights[at(layer)];
      const ref::CellWeights w{s.inputs_of(layer), s.hidden,         a.weight_ih.data(),
                               a.weight_hh.data(), a.bias_ih.data(), a.bias_hh.data()};
      std::vector<double> h = slice(hx, at(layer * s.batch + lane), s.hidden);
      std::vector<double> c = slice(cx, at(layer * s.batch + lane), s.hidden);
      for (int t = 0; t < steps; ++t) {
        cells[at(layer)].push_back(s.cell == CUDNN_LSTM ? ref::lstm_forward(w, values[at(t)], h, c)
                                   : s.cell == CUDNN_GRU
                                       ? ref::gru_forward(w, values[at(t)], h)
                                       : ref::rnn_forward(w, s.cell == CUDNN_RNN_RELU, values[at(t)], h));
        h = cells[at(layer)].back().h;
        c = cells[at(layer)].back().c;
        values[at(t)] = h;
      }
      paste(e.hy, at(layer * s.batch + lane), h);
      if (s.cell == CUDNN_LSTM) paste(e.cy, at(layer * s.batch + lane), c);
    }
    for (int t = 0; t < steps; ++t) paste(e.y, s.row(t, lane), values[at(t)]);

    std::vector<std::vector<double>> derivatives;  // by what the layer at work gives
    for (int t = 0; t < steps; ++t) derivatives.push_back(slice(dy, s.row(t, lane), s.hidden));
    for (int layer = s.layers - 1; layer >= 0; --layer) {
      const Arrays& a = weights[at(layer)];
      const ref::CellWeights w{s.inputs_of(layer), s.hidden,         a.weight_ih.data(),
                               a.weight_hh.data(), a.bias_ih.data(), a.bias_hh.data()};
      Arrays& g = e.gradients[at(layer)];
      const ref::CellGradients gradients{g.weight_ih.data(), g.weight_hh.data(), g.bias_ih.data(), g.bias_hh.data()};
      std::vector<double> dh = slice(dhy, at(layer * s.batch + lane), s.hidden);
      std::vector<double> dc = slice(dcy, at(layer * s.batch + lane), s.hidden);
      for (int t = steps - 1; t >= 0; --t) {
        for (int j = 0; j < s.hidden; ++j) dh[at(j)] += derivatives[at(t)][at(j)];
        const ref::CellStep& step = cells[at(layer)][at(t)];
        ref::CellDerivatives d = s.cell == CUDNN_LSTM ? ref::lstm_backward(w, step, dh, dc, gradients)
                                 : s.cell == CUDNN_GRU
                                     ? ref::gru_backward(w, step, dh, gradients)
                                     : ref::rnn_backward(w, s.cell == CUDNN_RNN_RELU, step, dh, gradients);
        dh = std::move(d.dh_prev);
        dc = std::move(d.dc_prev);
        derivatives[at(t)] = std::move(d.dx);
      }
      paste(e.dhx, at(layer * s.batch + lane), dh);
      if (s.cell == CUDNN_LSTM) paste(e.dcx, at(layer * s.batch + lane), dc);
    }
    for (int t = 0; t < steps; ++t) paste(e.dx, s.row(t, lane), derivatives[at(t)]);
  }
  return e;
}

/// Both are sums of doubles, in another order, and rounded once: equal but for a rounding that fell the other way.
/// Below 2^-14 fp16 is 2^-24 fine.
void check_equal(const char* what, Element element, const std::vector<double>& actual,
                 const std::vector<double>& expected) {
  const double ulp = element == Element::kFloat ? 0x1p-23 : element == Element::kHalf ? 0x1p-10 : 0x1p-7;
  const double floor = element == Element::kHalf ? 0x1p-24 : 1e-12;
  REQUIRE(actual.size() == expected.size());
  for (std::size_t i = 0; i < actual.size(); ++i) {
    const double value = rounded(element, expected[i]);
    if (std::abs(actual[i] - value) <= ulp * std::abs(value) + floor) continue;
    INFO(what << "[" << i << "]");
    CHECK(actual[i] == value);
    return;
  }
}

/// Rows of lanes that have ended are set to zero: nothing is said about them.
void clear_padding(const Shape& s, std::vector<double>& rows, int width) {
  for (int t = 0; t < s.steps && !s.packed(); ++t) {
    for (int lane = 0; lane < s.batch; ++lane) {
      if (t < s.length(lane)) continue;
      std::fill_n(rows.begin() + static_cast<std::ptrdiff_t>(s.row(t, lane)) * width, width, 0.0);
    }
  }
}

void check(const Shape& shape) {
  {
    Run run(shape);
    const std::vector<double> unwritten(run.y.count());
    if (!shape.lengths.empty()) {  // so that padding may be read here
      run.y.put(unwritten);
      run.dx.put(std::vector<double>(run.dx.count()));
    }
    const std::vector<double> before = run.dweights.read();
    ok(run.forward());
    ok(run.backward_data());
    ok(run.backward_weights());
    run.wait();
    const Expected e = expected_of(run);
    std::vector<double> y = run.y.read(), dx = run.dx.read();
    clear_padding(shape, y, shape.hidden);
    clear_padding(shape, dx, shape.inputs);
    check_equal("y", shape.element, y, e.y);
    check_equal("hy", shape.element, run.hy.read(), e.hy);
    check_equal("dx", shape.element, dx, e.dx);
    check_equal("dhx", shape.element, run.dhx.read(), e.dhx);
    if (shape.cell == CUDNN_LSTM) {
      check_equal("cy", shape.element, run.cy.read(), e.cy);
      check_equal("dcx", shape.element, run.dcx.read(), e.dcx);
    }

    // Gradients are added, and nothing between the parts changes.
    std::vector<double> after = before;
    for (int layer = 0; layer < shape.layers; ++layer) {
      for (int linear = 0; linear < 2 * shape.gates(); ++linear) {
        for (const bool is_bias : {false, true}) {
          const Run::Part part = run.find(layer, linear, is_bias, run.dweights.at());
          const bool recurrent = linear >= shape.gates();
          const Arrays& g = e.gradients[static_cast<std::size_t>(layer)];
          const std::vector<double>& gradient =
              is_bias ? (recurrent ? g.bias_hh : g.bias_ih) : (recurrent ? g.weight_hh : g.weight_ih);
          const auto gate = static_cast<std::size_t>(recurrent ? linear - shape.gates() : linear);
          const std::size_t offset =
              part.count == 0
                  ? 0
                  : static_cast<std::size_t>(static_cast<char*>(part.at) - static_cast<char*>(run.dweights.at())) /
                        bytes_of(shape.element);
          for (std::size_t i = 0; i < part.count; ++i) after[offset + i] += gradient[gate * part.count + i];
        }
      }
    }
    check_equal("dweights", shape.element, run.dweights.read(), after);
  }
  for (const Report& report : take_reports()) {
    INFO(report.kind << ": " << report.text);
    CHECK(false);
  }
  CHECK(library_objects().empty());
}

void expect_report(const std::string& kind, const std::string& words) {
  const std::vector<Report> reports = take_reports();
  REQUIRE(reports.size() == 1);
  INFO(reports[0].text);
  CHECK(reports[0].kind == kind);
  CHECK(reports[0].text.find(words) != std::string::npos);
}

struct Fresh {
  Fresh() { reset(Settings{}); }
};

const cudnnRNNMode_t kCells[] = {CUDNN_RNN_RELU, CUDNN_RNN_TANH, CUDNN_LSTM, CUDNN_GRU};

}  // namespace

TEST_CASE_METHOD(Fresh, "every cell equals the reference, forward and backward, with carried state and from zero") {
  for (const auto cell : kCells) {
    for (const bool carried : {true, false}) {
      for (const int layers : {1, 2, 3}) {
        Shape s;
        s.cell = cell;
        s.carried = carried;
        s.layers = layers;
        INFO("cell " << cell << " layers " << layers << " carried " << carried);
        check(s);
      }
    }
  }
}

TEST_CASE_METHOD(Fresh, "one step, one lane, one unit, one input are right") {
  for (const auto cell : kCells) {
    Shape s;
    s.cell = cell;
    s.steps = 1;
    check(s);
    s.batch = 1;
    check(s);
    s.hidden = s.inputs = 1;
    check(s);
  }
}

TEST_CASE_METHOD(Fresh, "each bias mode has the biases that it names, and no other") {
  for (const auto cell : kCells) {
    for (const auto bias : {CUDNN_RNN_NO_BIAS, CUDNN_RNN_SINGLE_INP_BIAS, CUDNN_RNN_SINGLE_REC_BIAS}) {
      Shape s;
      s.cell = cell;
      s.bias = bias;
      check(s);
      Run run(s);
      const int gates = s.gates();
      CHECK((run.find(1, 0, true, run.weights.at()).count > 0) == (bias == CUDNN_RNN_SINGLE_INP_BIAS));
      CHECK((run.find(1, gates, true, run.weights.at()).count > 0) == (bias == CUDNN_RNN_SINGLE_REC_BIAS));
    }
  }
}

TEST_CASE_METHOD(Fresh, "16-bit data round once at the outputs") {
  for (const auto cell : kCells) {
    for (const Element element : {Element::kHalf, Element::kBfloat16}) {
      Shape s;
      s.cell = cell;
      s.element = element;
      check(s);
    }
  }
}

TEST_CASE_METHOD(Fresh, "sequences of different lengths, unpacked and packed, equal the reference") {
  for (const auto cell : kCells) {
    for (const auto layout : {CUDNN_RNN_DATA_LAYOUT_SEQ_MAJOR_UNPACKED, CUDNN_RNN_DATA_LAYOUT_SEQ_MAJOR_PACKED}) {
      Shape s;
      s.cell = cell;
      s.layout = layout;
      if (s.packed()) s.flags = 0;
      check(s);
      s.lengths = {3, 2, 2, 1};
      check(s);
    }
  }
}

TEST_CASE_METHOD(Fresh, "persistent algorithms compute the same where there is a kernel") {
  for (const auto cell : kCells) {
    Shape s;
    s.cell = cell;
    s.algo = CUDNN_RNN_ALGO_PERSIST_STATIC_SMALL_H;
    check(s);
    s.algo = CUDNN_RNN_ALGO_PERSIST_STATIC;
    s.element = Element::kHalf;
    s.hidden = 256;
    s.steps = 2;
    s.batch = 1;
    check(s);
  }
}

TEST_CASE_METHOD(Fresh, "padding of the output is filled with the symbol of its descriptor") {
  Shape s;
  s.lengths = {1, 3, 3, 2};
  Run run(s);
  float fill = 9;
  ok(run.o.set_data(run.o.y, s, s.hidden, &fill));
  ok(run.forward());
  run.wait();
  const std::vector<double> y = run.y.read();
  CHECK(y[s.row(1, 0) * 7] == 9);
  CHECK(y[s.row(2, 3) * 7 + 6] == 9);
  CHECK(std::abs(y[s.row(2, 2) * 7]) < 1);
  CHECK(take_reports().empty());
}

TEST_CASE_METHOD(Fresh, "inference needs no reserve space and equals training") {
  Shape s;
  Run run(s);
  ok(run.forward());
  run.wait();
  const std::vector<double> trained = run.y.read();
  std::size_t work = 0, reserve = 1;
  ok(cudnnGetRNNTempSpaceSizes(run.o.handle, run.o.net, CUDNN_FWD_MODE_INFERENCE, run.o.x, &work, &reserve));
  CHECK(reserve == 0);
  CHECK(work < run.work_bytes);
  run.y.put(std::vector<double>(run.y.count()));
  ok(cudnnRNNForward(run.o.handle, run.o.net, CUDNN_FWD_MODE_INFERENCE, nullptr, run.o.x, run.x.at(), run.o.y,
                     run.y.at(), run.o.state, run.hx.at(), nullptr, run.o.state, run.cx.at(), nullptr, run.weight_bytes,
                     run.weights.at(), work, run.work.at(), 0, nullptr));
  run.wait();
  CHECK(run.y.read() == trained);
  CHECK(take_reports().empty());
}

TEST_CASE_METHOD(
    Fresh,
    "weight parameters are the matrices of each gate, apart from each other, and what is not there has no dimensions") {
  Shape s;
  Run run(s);
  CHECK(run.find(0, 3, false, run.weights.at()).dims == std::vector<int>{1, s.hidden, s.inputs});
  CHECK(run.find(0, 4, false, run.weights.at()).dims == std::vector<int>{1, s.hidden, s.hidden});
  CHECK(run.find(1, 0, true, run.weights.at()).dims == std::vector<int>{1, s.hidden, 1});
  const Run::Part projection = run.find(0, 8, false, run.weights.at());
  CHECK(projection.dims.empty());
  CHECK(projection.at == nullptr);
  std::size_t used = 0;
  for (int layer = 0; layer < s.layers; ++layer) {
    for (int linear = 0; linear < 8; ++linear) {
      for (const bool is_bias : {false, true}) used += run.find(layer, linear, is_bias, run.weights.at()).count;
    }
  }
  CHECK(used < run.weights.count());  // gaps
  const auto* first = static_cast<char*>(run.find(0, 0, false, run.weights.at()).at);
  const auto* second = static_cast<char*>(run.find(0, 1, false, run.weights.at()).at);
  CHECK(second != first + 4 * static_cast<std::ptrdiff_t>(s.hidden * s.inputs));
  CHECK(take_reports().empty());
}

TEST_CASE_METHOD(Fresh, "what cuDNN refuses is refused without a report, so that a caller may ask") {
  const auto refused = [](const Shape& s, cudnnForwardMode_t mode = CUDNN_FWD_MODE_TRAINING) {
    Objects o;
    auto status = o.set_net(s);
    if (status == CUDNN_STATUS_SUCCESS) {
      ok(o.set_data(o.x, s, s.inputs));
      std::size_t work = 0, reserve = 0;
      status = cudnnGetRNNTempSpaceSizes(o.handle, o.net, mode, o.x, &work, &reserve);
    }
    CHECK(take_reports().empty());
    return status == CUDNN_STATUS_NOT_SUPPORTED;
  };
  for (const auto algo : {CUDNN_RNN_ALGO_PERSIST_STATIC, CUDNN_RNN_ALGO_PERSIST_STATIC_SMALL_H}) {
    Shape good;
    good.algo = algo;
    good.element = Element::kHalf;
    good.hidden = algo == CUDNN_RNN_ALGO_PERSIST_STATIC ? 512 : 192;
    CHECK_FALSE(refused(good));
    Shape s = good;
    s.bias = CUDNN_RNN_SINGLE_INP_BIAS;
    CHECK(refused(s));
    s = good;
    s.precision = CUDNN_DATA_HALF;
    CHECK(refused(s));
    s = good;
    s.element = Element::kBfloat16;
    CHECK(refused(s));
    s = good;
    s.lengths = {3, 3, 2, 3};
    CHECK(refused(s));
    s = good;
    s.hidden = 193;
    CHECK(refused(s));
  }
  Shape s;
  s.algo = CUDNN_RNN_ALGO_PERSIST_STATIC;
  s.hidden = 128;
  CHECK(refused(s));
  CHECK_FALSE(refused(s, CUDNN_FWD_MODE_INFERENCE));
  s.algo = CUDNN_RNN_ALGO_PERSIST_DYNAMIC;
  CHECK(refused(s));
  s = Shape{};
  s.precision = CUDNN_DATA_HALF;  // with data of fp32
  CHECK(refused(s));
  s.element = Element::kHalf;
  CHECK_FALSE(refused(s));

  Objects o;
  o.set(Shape{});
  CHECK(cudnnBuildRNNDynamic(o.handle, o.net, 4) == CUDNN_STATUS_NOT_SUPPORTED);
  CHECK(take_reports().empty());
}

TEST_CASE_METHOD(Fresh, "a refused algorithm is refused by the run too, not only by the question before it") {
  Shape s;
  Run run(s);
  s.algo = CUDNN_RNN_ALGO_PERSIST_STATIC;
  ok(run.o.set_net(s));
  CHECK(run.forward() == CUDNN_STATUS_NOT_SUPPORTED);
  CHECK(take_reports().empty());
}

TEST_CASE_METHOD(Fresh, "what is not modelled is refused with a report") {
  Objects o;
  Shape s;
  s.direction = CUDNN_BIDIRECTIONAL;
  CHECK(o.set_net(s) == CUDNN_STATUS_NOT_SUPPORTED);
  expect_report("misuse", "bidirectional");
  s = Shape{};
  s.input = CUDNN_SKIP_INPUT;
  CHECK(o.set_net(s) == CUDNN_STATUS_NOT_SUPPORTED);
  expect_report("misuse", "skipped input");
  s = Shape{};
  s.projection = s.hidden - 1;
  CHECK(o.set_net(s) == CUDNN_STATUS_NOT_SUPPORTED);
  expect_report("misuse", "projection");
  s.projection = s.hidden + 1;
  CHECK(o.set_net(s) == CUDNN_STATUS_BAD_PARAM);
  expect_report("misuse", "projSize is 8");
  s = Shape{};
  s.layout = CUDNN_RNN_DATA_LAYOUT_BATCH_MAJOR_UNPACKED;
  CHECK(o.set_data(o.x, s, s.inputs) == CUDNN_STATUS_NOT_SUPPORTED);
  expect_report("misuse", "batch-major");
  CHECK(cudnnSetDropoutDescriptor(o.dropout, o.handle, 0.5F, nullptr, 0, 1) == CUDNN_STATUS_NOT_SUPPORTED);
  expect_report("misuse", "dropout");
  Run run{Shape{}};
  CHECK(run.backward_weights(CUDNN_WGRAD_MODE_SET) == CUDNN_STATUS_NOT_SUPPORTED);
  expect_report("misuse", "CUDNN_WGRAD_MODE_ADD");
}

TEST_CASE_METHOD(Fresh, "calls out of order are reported") {
  Run run{Shape{}};
  run.reserve.put(std::vector<double>(run.reserve.count()));
  run.y.put(std::vector<double>(run.y.count()));
  ok(run.backward_data());
  run.wait();
  expect_report("misuse", "holds nothing of cudnnRNNForward");
  ok(run.forward(CUDNN_FWD_MODE_INFERENCE));
  ok(run.backward_data());
  run.wait();
  expect_report("misuse", "holds nothing of cudnnRNNForward");
  ok(run.forward());
  ok(run.backward_weights());
  run.wait();
  expect_report("misuse", "cudnnRNNBackwardData_v8 has to come first");
  ok(run.backward_data());
  ok(run.backward_weights());
  ok(run.backward_data());
  run.wait();
  expect_report("misuse", "used for a backward pass already");
}

TEST_CASE_METHOD(Fresh, "what changes between forward and backward is reported") {
  const auto spoil = [](const char* words, const auto& change) {
    for (const bool before_weights : {false, true}) {
      Run run{Shape{}};
      ok(run.forward());
      if (before_weights) ok(run.backward_data());
      run.wait();
      const bool matters_here = change(run, before_weights);
      ok(before_weights ? run.backward_weights() : run.backward_data());
      run.wait();
      if (matters_here) expect_report("misuse", words);
      CHECK(take_reports().empty());
    }
  };
  const auto bump = [](const DeviceArray& array, std::size_t index) {
    const float value = 0.125F;
    succeed(cudaMemcpy(array.at(index), &value, sizeof value, cudaMemcpyHostToDevice));
  };
  spoil("weights changed", [&](Run& run, bool before_weights) {
    bump(run.weights, static_cast<std::size_t>(static_cast<float*>(run.find(1, 2, false, run.weights.at()).at) -
                                               static_cast<float*>(run.weights.at())));
    return !before_weights;
  });
  spoil("hx changed", [&](Run& run, bool) {
    bump(run.hx, 3);
    return true;
  });
  spoil("cx changed", [&](Run& run, bool before_weights) {
    bump(run.cx, 3);
    return !before_weights;
  });
  spoil("y changed", [&](Run& run, bool) {
    bump(run.y, 3);
    return true;
  });
  spoil("x changed", [&](Run& run, bool before_weights) {
    bump(run.x, 3);
    return before_weights;
  });
  spoil("the reserve space changed", [&](Run& run, bool) {
    bump(run.reserve, 40);
    return true;
  });
  spoil("network or sizes changed", [&](Run& run, bool) {
    Shape other = run.shape;  // the same sizes of everything
    other.precision = CUDNN_DATA_FLOAT;
    ok(cudnnSetRNNDescriptor_v8(run.o.net, other.algo, other.cell, other.bias, other.direction, other.input,
                                CUDNN_DATA_FLOAT, CUDNN_DATA_FLOAT, CUDNN_FMA_MATH, other.inputs, other.hidden,
                                other.hidden, other.layers, run.o.dropout, other.flags));
    return true;
  });
}

TEST_CASE_METHOD(Fresh, "spaces that are too small, null, overlapping or of the wrong shape are reported") {
  Run run{Shape{}};
  const auto with = [&](std::size_t& bytes) {
    const std::size_t kept = bytes--;
    CHECK(run.forward() == CUDNN_STATUS_BAD_PARAM);
    bytes = kept;
  };
  with(run.weight_bytes);
  expect_report("misuse", "the weight space has");
  with(run.work_bytes);
  expect_report("misuse", "the workspace has");
  with(run.reserve_bytes);
  expect_report("misuse", "the reserve space has");

  const auto forward = [&](const void* x, void* y, const void* hx, void* hy) {
    return cudnnRNNForward(run.o.handle, run.o.net, CUDNN_FWD_MODE_TRAINING, nullptr, run.o.x, x, run.o.y, y,
                           run.o.state, hx, hy, run.o.state, nullptr, nullptr, run.weight_bytes, run.weights.at(),
                           run.work_bytes, run.work.at(), run.reserve_bytes, run.reserve.at());
  };
  CHECK(forward(nullptr, run.y.at(), nullptr, nullptr) == CUDNN_STATUS_BAD_PARAM);
  expect_report("misuse", "x is null");
  CHECK(forward(run.x.at(), run.y.at(), run.hx.at(), run.hx.at()) == CUDNN_STATUS_BAD_PARAM);
  expect_report("misuse", "hy overlaps hx");
  CHECK(forward(byte_offset(run.x.at(), 1), run.y.at(), nullptr, nullptr) == CUDNN_STATUS_BAD_PARAM);
  expect_report("misuse", "x is not aligned");

  Shape other;
  other.batch = 3;
  run.o.set_state(other);
  CHECK(run.forward() == CUDNN_STATUS_BAD_PARAM);
  expect_report("misuse", "hDesc is not a packed tensor [2, 4, 7]");
  ok(run.o.set_data(run.o.x, other, other.inputs));
  CHECK(run.forward() == CUDNN_STATUS_BAD_PARAM);
  expect_report("misuse", "xDesc and yDesc differ");
  ok(run.o.set_data(run.o.x, other, other.inputs + 1));
  CHECK(run.forward() == CUDNN_STATUS_BAD_PARAM);
  expect_report("misuse", "xDesc has vectors of 6, expected 5");
  Shape no_padding;
  no_padding.flags = CUDNN_RNN_PADDED_IO_DISABLED;
  run.o.set(no_padding);
  CHECK(run.forward() == CUDNN_STATUS_BAD_PARAM);
  expect_report("misuse", "CUDNN_RNN_PADDED_IO_ENABLED");
}

TEST_CASE_METHOD(Fresh, "memory that is too short or never written is reported by name") {
  Shape s;
  Run run(s);
  const DeviceArray shorter(s.element, noise(run.x.count() - 1, 1)), empty(s.element, run.x.count());
  for (const DeviceArray* x : {&shorter, &empty}) {
    ok(cudnnRNNForward(run.o.handle, run.o.net, CUDNN_FWD_MODE_INFERENCE, nullptr, run.o.x, x->at(), run.o.y,
                       run.y.at(), run.o.state, nullptr, nullptr, run.o.state, nullptr, nullptr, run.weight_bytes,
                       run.weights.at(), run.work_bytes, run.work.at(), 0, nullptr));
    run.wait();
    expect_report(x == &shorter ? "out of bounds" : "uninitialised", "cudnnRNNForward x");
  }
}

TEST_CASE_METHOD(Fresh, "lengths on the device must be those of the descriptor") {
  Shape s;
  Run run(s);
  DeviceArray lengths(Element::kFloat, static_cast<std::size_t>(s.batch));
  for (const int last : {3, 2}) {
    const int host[] = {3, 3, 3, last};
    succeed(cudaMemcpy(lengths.at(), host, sizeof host, cudaMemcpyHostToDevice));
    ok(cudnnRNNForward(run.o.handle, run.o.net, CUDNN_FWD_MODE_INFERENCE, static_cast<int*>(lengths.at()), run.o.x,
                       run.x.at(), run.o.y, run.y.at(), run.o.state, nullptr, nullptr, run.o.state, nullptr, nullptr,
                       run.weight_bytes, run.weights.at(), run.work_bytes, run.work.at(), 0, nullptr));
    run.wait();
    if (last == 2) expect_report("misuse", "devSeqLengths differ");
  }
  CHECK(take_reports().empty());
}

TEST_CASE_METHOD(Fresh, "descriptors are read at the call, and each use after destruction is reported") {
  Run run{Shape{}};
  ok(run.forward());
  Shape other;
  other.hidden = 3;
  ok(run.o.set_net(other));
  run.wait();
  CHECK(take_reports().empty());
  ok(run.o.set_net(run.shape));
  ok(cudnnDestroyDropoutDescriptor(std::exchange(run.o.dropout, nullptr)));
  CHECK(run.forward() == CUDNN_STATUS_BAD_PARAM);
  expect_report("misuse", "dropout");
}

TEST_CASE("the N-th call of a step fails when it is told to, with an error and nothing left") {
  for (std::int64_t n = 1;; ++n) {
    Settings settings;
    settings.fail_at = n;
    reset(settings);
    cudnnHandle_t handle = nullptr;
    cudnnRNNDescriptor_t net = nullptr;
    CHECK((cudnnCreate(&handle) == CUDNN_STATUS_SUCCESS) == (n != 1));
    CHECK((cudnnCreateRNNDescriptor(&net) == CUDNN_STATUS_SUCCESS) == (n != 2));
    if (handle != nullptr) CHECK(cudnnDestroy(handle) == CUDNN_STATUS_SUCCESS);
    if (net != nullptr) CHECK(cudnnDestroyRNNDescriptor(net) == CUDNN_STATUS_SUCCESS);
    CHECK(library_objects().empty());
    CHECK(take_reports().empty());
    if (n > calls()) break;
  }
  reset(Settings{});
}
