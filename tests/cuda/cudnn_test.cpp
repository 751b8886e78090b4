// The recurrence by cuDNN, on a stand-in of it (tests/host_cuda/STAND_INS.md): each layer by itself against
// src/reference, which gets the numbers that the layer got, so that one rounding of each output is all that may differ.
#include "cuda/cudnn_recurrence.h"

#include <dlfcn.h>

#include <cmath>
#include <limits>
#include <random>

#include "host_cuda/host_cuda.h"
#include "reference/cells.h"
#include "support/approx.h"
#include "support/catch.h"

namespace charrnn::cuda {
namespace {

using Doubles = std::vector<double>;
using tests::Tolerance;

float stored(Element element, double value) {
  float result = 0;
  with_element(element, [&](auto real) { result = to_float(from_float<decltype(real)>(static_cast<float>(value))); });
  return result;
}

/// One rounding of an output, which may fall to the other side where the reference's sum took another order.
Tolerance one_rounding(Element element) {
  constexpr double kEps = std::numeric_limits<float>::epsilon();
  return {element == Element::kF32 ? kEps : element == Element::kF16 ? 0x1p-10 : 0x1p-7};
}

/// Numbers on the device in an element type, with the host's as doubles.
class Values {
 public:
  Values(Element element, std::size_t count) : element_(element), bytes_(count * size_of(element), "a test") {
    put(Doubles(count));
  }
  std::size_t count() const { return bytes_.size() / size_of(element_); }
  void* at(std::size_t i = 0) const { return bytes_.data() + i * size_of(element_); }
  void put(const Doubles& values, std::size_t from = 0) {
    with_element(element_, [&](auto real) {
      using Real = decltype(real);
      std::vector<Real> host;
      for (const double v : values) host.push_back(from_float<Real>(static_cast<float>(v)));
      check(cudaMemcpy(at(from), host.data(), host.size() * sizeof(Real), cudaMemcpyHostToDevice), "cudaMemcpy");
    });
  }
  Doubles get(std::size_t from, std::size_t n) const {
    Doubles values;
    with_element(element_, [&](auto real) {
      std::vector<decltype(real)> host(n);
      check(cudaMemcpy(host.data(), at(from), n * sizeof(real), cudaMemcpyDeviceToHost), "cudaMemcpy");
      for (const auto v : host) values.push_back(static_cast<double>(to_float(v)));
    });
    return values;
  }

 private:
  Element element_;
  DeviceBuffer<std::byte> bytes_;
};

struct Setting {
  Cell cell = Cell::kLstm;
  Precision precision = Precision::kFp32;
  int layers = 2, hidden = 13, vocabulary = 11, lanes = 5, max_steps = 4;
  int compute_major = 9, compute_minor = 0, multiprocessors = 132;
};

std::shared_ptr<Device> make_device(const Setting& s) {
  auto device = std::make_shared<Device>();
  device->compute_major = s.compute_major;
  device->compute_minor = s.compute_minor;
  device->multiprocessors = s.multiprocessors;
  return device;
}

CudaNetwork make_network(const Setting& s) {
  return CudaNetwork({s.cell, s.layers, s.hidden, s.vocabulary}, s.precision, make_device(s));
}

/// A layer over a window by the reference. Arrays as in LayerWindow, without slot 0.
struct LayerReference {
  Doubles y, c_end, dx, weight_ih, weight_hh, bias_ih, bias_hh;
};
struct LayerInput {
  int steps = 0, lanes = 0, inputs = 0, hidden = 0;
  Doubles x, h, c, dy;  // dy empty: no backward
  Doubles weight_ih, weight_hh, bias_ih, bias_hh;
};

Doubles row_of(const Doubles& array, int row, int width) {
  const auto begin = array.begin() + std::ptrdiff_t{row} * width;
  return {begin, begin + width};
}

LayerReference compute(Cell cell, const LayerInput& in) {
  using namespace reference;
  const int rows = in.steps * in.lanes, H = in.hidden;
  const CellWeights w{in.inputs, H, in.weight_ih.data(), in.weight_hh.data(), in.bias_ih.data(), in.bias_hh.data()};
  LayerReference r{Doubles(static_cast<std::size_t>(rows * H)), in.c, Doubles(in.x.size()), {}, {}, {}, {}};
  r.weight_ih.resize(in.weight_ih.size());
  r.weight_hh.resize(in.weight_hh.size());
  r.bias_ih.resize(in.bias_ih.size());
  r.bias_hh.resize(in.bias_hh.size());
  const CellGradients g{r.weight_ih.data(), r.weight_hh.data(), r.bias_ih.data(), r.bias_hh.data()};
  const bool relu = cell == Cell::kRnnRelu;
  for (int lane = 0; lane < in.lanes; ++lane) {
    Doubles h = row_of(in.h, lane, H), c = has_cell_state(cell) ? row_of(in.c, lane, H) : Doubles{};
    std::vector<CellStep> steps;
    for (int t = 0; t < in.steps; ++t) {
      const Doubles x = row_of(in.x, t * in.lanes + lane, in.inputs);
      steps.push_back(cell == Cell::kLstm  ? lstm_forward(w, x, h, c)
                      : cell == Cell::kGru ? gru_forward(w, x, h)
                                           : rnn_forward(w, relu, x, h));
      h = steps.back().h;
      c = steps.back().c;
      std::copy(h.begin(), h.end(), r.y.begin() + std::ptrdiff_t{t * in.lanes + lane} * H);
    }
    std::copy(c.begin(), c.end(), r.c_end.begin() + std::ptrdiff_t{lane} * static_cast<std::ptrdiff_t>(c.size()));
    if (in.dy.empty()) continue;
    Doubles dh(static_cast<std::size_t>(H)), dc(c.size());
    for (int t = in.steps; t-- > 0;) {
      const Doubles dy = row_of(in.dy, t * in.lanes + lane, H);
      for (std::size_t i = 0; i < dh.size(); ++i) dh[i] += dy[i];
      const CellStep& step = steps[static_cast<std::size_t>(t)];
      const CellDerivatives d = cell == Cell::kLstm  ? lstm_backward(w, step, dh, dc, g)
                                : cell == Cell::kGru ? gru_backward(w, step, dh, g)
                                                     : rnn_backward(w, relu, step, dh, g);
      std::copy(d.dx.begin(), d.dx.end(), r.dx.begin() + std::ptrdiff_t{t * in.lanes + lane} * in.inputs);
      dh = d.dh_prev;
      dc = d.dc_prev;
    }
  }
  return r;
}

/// A network with all arrays that a session would hold for one recurrence.
class Bench {
 public:
  explicit Bench(const Setting& s, bool training = true)
      : setting_(s),
        network_(make_network(s)),
        element_(network_.format().element),
        stride_(one_hot_stride(s.vocabulary)),
        slot_(static_cast<std::size_t>(s.lanes * s.hidden)),
        layer_stride_(slot_ * static_cast<std::size_t>(s.max_steps + 1)),
        vectors_(element_, static_cast<std::size_t>(s.max_steps * s.lanes * stride_)),
        h_(element_, layer_stride_ * static_cast<std::size_t>(s.layers)),
        c_(Element::kF32, layer_stride_ * static_cast<std::size_t>(s.layers)),
        dy_(element_, layer_stride_ * static_cast<std::size_t>(s.layers)) {
    new_parameters();
    h_.put(noise(h_.count(), 1));
    c_.put(noise(c_.count(), 1));
    first_call_ = host_cuda::calls();
    recurrence_ = make_cudnn_recurrence(network_, {s.lanes, s.max_steps, training});
  }

  CudaNetwork& network() { return network_; }
  Recurrence& recurrence() { return *recurrence_; }
  /// How many calls of CUDA came before those of the recurrence.
  std::int64_t first_call() const { return first_call_; }

  Doubles noise(std::size_t count, double size) {
    std::uniform_real_distribution<double> draw(-size, size);
    Doubles values(count);
    for (double& v : values) v = draw(generator_);
    return values;
  }

  void new_parameters() {
    const Doubles values = noise(network_.layout().arena_size(), 0.5);
    parameters_.assign(values.begin(), values.end());
    network_.write(Arena::kParameters, parameters_);
  }

  /// Vectors of the first layer, whose padding is not zero: weights of it are. And derivatives of the last one's h.
  void new_inputs(int steps) {
    vectors_.put(noise(static_cast<std::size_t>(steps * setting_.lanes * stride_), 1));
    dy_.put(noise(slot_ * static_cast<std::size_t>(steps), 1), dy_at(setting_.layers - 1));
  }

  void enqueue(int steps, bool keep) {
    for (int l = 0; l < setting_.layers; ++l) recurrence_->forward(layer(l, steps, keep), {0, steps});
    if (!keep) return;
    for (int l = setting_.layers; l-- > 0;) {
      recurrence_->backward(layer(l, steps, keep), {0, steps});
      recurrence_->weight_gradients(layer(l, steps, keep));
    }
  }

  void run(int steps, bool keep) {
    recurrence_->refresh();
    enqueue(steps, keep);
    network_.device().stream.wait();
  }

  void check_layers(int steps, bool keep) {
    std::vector<float> gradients(network_.layout().arena_size());
    network_.read(Arena::kGradients, gradients);
    for (int l = 0; l < setting_.layers; ++l) check_layer(l, steps, keep, gradients);
  }

  /// Slot 0 becomes slot `steps`.
  void carry(int steps) {
    for (int l = 0; l < setting_.layers; ++l) {
      h_.put(h_.get(h_at(l, steps), slot_), h_at(l, 0));
      c_.put(c_.get(h_at(l, steps), slot_), h_at(l, 0));
    }
  }

  Doubles outputs(int steps) const {
    return h_.get(h_at(setting_.layers - 1, 1), slot_ * static_cast<std::size_t>(steps));
  }

 private:
  std::size_t h_at(int layer, int slot) const {
    return static_cast<std::size_t>(layer) * layer_stride_ + static_cast<std::size_t>(slot) * slot_;
  }
  std::size_t dy_at(int layer) const { return static_cast<std::size_t>(layer) * layer_stride_; }

  LayerWindow layer(int l, int steps, bool keep) const {
    LayerWindow w;
    w.layer = l;
    w.steps = steps;
    w.keep = keep;
    w.one_hot = vectors_.at();
    w.x = l == 0 ? nullptr : h_.at(h_at(l - 1, 1));
    w.h = h_.at(h_at(l, 0));
    w.c = has_cell_state(setting_.cell) ? static_cast<float*>(c_.at(h_at(l, 0))) : nullptr;
    w.dy = dy_.at(dy_at(l));
    w.dx = l == 0 ? nullptr : dy_.at(dy_at(l - 1));
    return w;
  }

  Doubles parameter(const ParameterTensor& tensor) const {
    Doubles values;
    for (std::size_t i = 0; i < tensor.count(); ++i) {
      values.push_back(static_cast<double>(stored(element_, static_cast<double>(parameters_[tensor.offset + i]))));
    }
    return values;
  }

  /// The vectors without their padding.
  Doubles characters(int steps) const {
    const Doubles padded = vectors_.get(0, static_cast<std::size_t>(steps * setting_.lanes * stride_));
    Doubles values;
    for (int row = 0; row < steps * setting_.lanes; ++row) {
      const auto begin = padded.begin() + std::ptrdiff_t{row} * stride_;
      values.insert(values.end(), begin, begin + setting_.vocabulary);
    }
    return values;
  }

  void check_layer(int l, int steps, bool keep, const std::vector<float>& gradients) const {
    const ParameterLayout& layout = network_.layout();
    const std::size_t window = slot_ * static_cast<std::size_t>(steps);
    const bool has_c = has_cell_state(setting_.cell);
    LayerInput in{steps,
                  setting_.lanes,
                  l == 0 ? setting_.vocabulary : setting_.hidden,
                  setting_.hidden,
                  {},
                  {},
                  {},
                  {},
                  {},
                  {},
                  {},
                  {}};
    in.x = l == 0 ? characters(steps) : h_.get(h_at(l - 1, 1), window);
    in.h = h_.get(h_at(l, 0), slot_);
    if (has_c) in.c = c_.get(h_at(l, 0), slot_);
    for (double& c : in.c) c = static_cast<double>(stored(element_, c));
    if (keep) in.dy = dy_.get(dy_at(l), window);
    in.weight_ih = parameter(layout.weight_ih(l));
    in.weight_hh = parameter(layout.weight_hh(l));
    in.bias_ih = parameter(layout.bias_ih(l));
    in.bias_hh = parameter(layout.bias_hh(l));
    const LayerReference expected = compute(setting_.cell, in);

    const Tolerance tolerance = one_rounding(element_);
    INFO("layer " << l << ", T = " << steps);
    CHECK_ALL_CLOSE(h_.get(h_at(l, 1), window), expected.y, tolerance);
    if (has_c) CHECK_ALL_CLOSE(c_.get(h_at(l, steps), slot_), expected.c_end, tolerance);
    if (!keep) return;
    if (l > 0) CHECK_ALL_CLOSE(dy_.get(dy_at(l - 1), window), expected.dx, tolerance);
    const auto gradient = [&](const ParameterTensor& t) {
      const auto begin = gradients.begin() + static_cast<std::ptrdiff_t>(t.offset);
      return Doubles(begin, begin + static_cast<std::ptrdiff_t>(t.count()));
    };
    CHECK_ALL_CLOSE(gradient(layout.weight_ih(l)), expected.weight_ih, tolerance);
    CHECK_ALL_CLOSE(gradient(layout.weight_hh(l)), expected.weight_hh, tolerance);
    CHECK_ALL_CLOSE(gradient(layout.bias_ih(l)), expected.bias_ih, tolerance);
    CHECK_ALL_CLOSE(gradient(layout.bias_hh(l)), expected.bias_hh, tolerance);
  }

  Setting setting_;
  std::mt19937 generator_{20250521};
  CudaNetwork network_;
  Element element_;
  int stride_;
  std::size_t slot_, layer_stride_;
  std::vector<float> parameters_;
  Values vectors_, h_, c_, dy_;
  std::unique_ptr<Recurrence> recurrence_;
  std::int64_t first_call_ = 0;
};

void check_no_reports() {
  for (const host_cuda::Report& r : host_cuda::take_reports()) FAIL_CHECK(r.kind << ": " << r.text);
}

const Cell kCells[] = {Cell::kLstm, Cell::kGru, Cell::kRnnTanh, Cell::kRnnRelu};

TEST_CASE("cuDNN computes each layer as the reference does, forward and backward, over windows of any length") {
  host_cuda::reset(host_cuda::settings_from_environment());
  const Cell cell = GENERATE(from_range(std::begin(kCells), std::end(kCells)));
  const Precision precision = GENERATE(Precision::kFp32, Precision::kTf32, Precision::kFp16, Precision::kBf16);
  CAPTURE(cell, precision);
  {
    Setting setting;
    setting.cell = cell;
    setting.precision = precision;
    Bench bench(setting);
    for (const int steps : {3, 4, 1, 3}) {  // state goes on from one to the next
      bench.new_inputs(steps);
      bench.run(steps, true);
      bench.check_layers(steps, true);
      bench.carry(steps);
    }
  }
  check_no_reports();
  CHECK(host_cuda::leaks().empty());
}

TEST_CASE("cuDNN reads the weights that were written last") {
  host_cuda::reset(host_cuda::settings_from_environment());
  Bench bench({.cell = Cell::kGru});
  for (int round = 0; round < 2; ++round) {
    bench.new_inputs(2);
    bench.run(2, true);
    bench.check_layers(2, true);
    bench.new_parameters();
  }
  check_no_reports();
}

TEST_CASE("cuDNN's layers without padding, and a vocabulary of eights, are packed whole") {
  host_cuda::reset(host_cuda::settings_from_environment());
  Bench bench({.layers = 1, .hidden = 5, .vocabulary = 16, .lanes = 1});
  bench.new_inputs(2);
  bench.run(2, true);
  bench.check_layers(2, true);
  check_no_reports();
}

TEST_CASE("a recurrence of cuDNN that was not made for training runs forward") {
  host_cuda::reset(host_cuda::settings_from_environment());
  Bench bench({.precision = Precision::kBf16}, false);
  bench.new_inputs(4);
  bench.run(4, false);
  bench.check_layers(4, false);
  check_no_reports();
}

TEST_CASE("a captured step of cuDNN gives the same when it is replayed") {
  host_cuda::reset(host_cuda::settings_from_environment());
  Bench bench({.precision = Precision::kFp16});
  bench.new_inputs(3);
  bench.run(3, true);
  const Doubles expected = bench.outputs(3);
  const cudaStream_t stream = bench.network().stream();
  const Graph graph = Graph::capture(stream, [&] {
    bench.recurrence().enqueue_refresh();
    bench.enqueue(3, true);
  });
  bench.new_parameters();  // the graph packs what it finds
  for (int round = 0; round < 2; ++round) {
    bench.new_inputs(3);
    graph.launch(stream);
    bench.network().device().stream.wait();
    bench.check_layers(3, true);
  }
  CHECK(bench.outputs(3) != expected);
  check_no_reports();
}

TEST_CASE("cuDNN's persistent kernels are asked for where PyTorch would") {
  const LayerOnGpu layer{.element = Element::kF16,
                         .inputs = 512,
                         .hidden = 512,
                         .lanes = 104,
                         .compute_major = 9,
                         .compute_minor = 0,
                         .multiprocessors = 132};
  const auto suits = [&](const auto& change) {
    LayerOnGpu changed = layer;
    change(changed);
    return persistent_suits(changed);
  };
  CHECK(persistent_suits(layer));
  CHECK_FALSE(suits([](LayerOnGpu& l) { l.inputs = 96; }));
  CHECK_FALSE(suits([](LayerOnGpu& l) { l.lanes = 100; }));
  CHECK_FALSE(suits([](LayerOnGpu& l) { l.lanes = 136; }));
  CHECK_FALSE(suits([](LayerOnGpu& l) { l.element = Element::kBf16; }));
  CHECK_FALSE(suits([](LayerOnGpu& l) { l.cell = Cell::kGru; }));
  CHECK_FALSE(suits([](LayerOnGpu& l) { l.hidden = 640; }));
  CHECK_FALSE(suits([](LayerOnGpu& l) { l.multiprocessors = 97; }));
  CHECK_FALSE(suits([](LayerOnGpu& l) { l.compute_major = 7; }));
  CHECK(suits([](LayerOnGpu& l) { l.compute_major = 8; }));
  CHECK_FALSE(suits([](LayerOnGpu& l) { l.compute_major = 8, l.compute_minor = 6; }));
  CHECK(suits([](LayerOnGpu& l) { l.cell = Cell::kRnnTanh, l.hidden = 1024, l.lanes = 88; }));
  CHECK_FALSE(suits([](LayerOnGpu& l) { l.cell = Cell::kRnnTanh, l.hidden = 1024, l.lanes = 96; }));
}

TEST_CASE("lanes are padded for cuDNN where that buys its persistent kernels") {
  host_cuda::reset(host_cuda::settings_from_environment());
  Setting s{.cell = Cell::kRnnTanh, .precision = Precision::kFp16, .hidden = 256, .vocabulary = 96};
  {
    const CudaNetwork network = make_network(s);
    CHECK(cudnn_lanes(network, 100) == 104);
    CHECK(cudnn_lanes(network, 104) == 104);
    CHECK(cudnn_lanes(network, 130) == 130);
  }
  s.layers = 1;  // which reads vectors of 96
  CHECK(cudnn_lanes(make_network(s), 100) == 100);
  s.vocabulary = 121;  // of 128
  CHECK(cudnn_lanes(make_network(s), 100) == 104);
  s.precision = Precision::kBf16;
  CHECK(cudnn_lanes(make_network(s), 100) == 100);
}

TEST_CASE("each call that fails is named, or the standard kernels stand in for the persistent ones") {
  const Setting setting{.cell = Cell::kRnnTanh,
                        .precision = Precision::kFp16,
                        .layers = 1,
                        .hidden = 256,
                        .vocabulary = 123,
                        .lanes = 8,
                        .max_steps = 2};
  host_cuda::Settings settings = host_cuda::settings_from_environment();
  std::int64_t next = 0;  // the call to fail; 0 at first: none
  int notes = 0, errors = 0;
  for (bool done = false; !done; ++next) {
    settings.fail_at = next;
    host_cuda::reset(settings);
    try {
      Bench bench(setting);
      bench.new_inputs(2);
      bench.run(2, true);
      done = next > host_cuda::calls();
      if (next == 0) next = bench.first_call();
      if (!done) bench.check_layers(2, true);
      for (const std::string& note : bench.network().device().notes) {
        ++notes;
        CHECK(note.find("layer 1 takes cuDNN's standard kernels, for it refused the persistent ones: cudnn") == 0);
      }
    } catch (const DeviceError& e) {
      ++errors;
      CAPTURE(next, e.what());
      CHECK(std::string(e.what()).find("cud") == 0);
    }
    check_no_reports();
    CHECK(host_cuda::leaks().empty());
  }
  CHECK(notes >= 3);  // the descriptor, and the questions for memory
  CHECK(errors > 20);
}

TEST_CASE("cuDNN that is missing, old or incomplete is told in a sentence") {
  const auto found = [](const char* name) { return dlsym(RTLD_DEFAULT, name); };
  CHECK(read_cudnn(found).problem.empty());
  CHECK(cudnn_status() == read_cudnn(found).version);
  CHECK(cudnn_status().find("9.") == 0);

  CHECK(open_cudnn("libcharrnn_there_is_none.so").problem.find("cuDNN: libcharrnn_there_is_none.so: cannot open") == 0);

  const auto without = [&](const char* name) { return std::string(name) == "cudnnRNNForward" ? nullptr : found(name); };
  CHECK(read_cudnn(without).problem.find("no function cudnnRNNForward, expected one of version 9, found 9.") !=
        std::string::npos);

  const auto old = [&](const char* name) {
    std::size_t (*const version)() = [] { return std::size_t{8907}; };
    return std::string(name) == "cudnnGetVersion" ? reinterpret_cast<void*>(version) : found(name);
  };
  CHECK(read_cudnn(old).problem.find("expected 9") != std::string::npos);
}

TEST_CASE("cuDNN is refused bf16 on a GPU without it, in a sentence") {
  host_cuda::reset(host_cuda::settings_from_environment());
  std::string why;
  CHECK(cudnn_can(make_network({}), &why));
  CHECK_FALSE(cudnn_can(make_network({.precision = Precision::kBf16, .compute_major = 7, .compute_minor = 5}), &why));
  CHECK(why.find("compute capability 8.0, this one has 7.5") != std::string::npos);
}

}  // namespace
}  // namespace charrnn::cuda
