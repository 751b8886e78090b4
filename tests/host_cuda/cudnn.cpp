// cuDNN 9's recurrent networks on the CPU: definitions of the functions of cudnn_adv.h that training and sampling need,
// from their documented semantics, in double precision and rounded once at each output. It proves how cuDNN is called,
// not cuDNN: sizes, order of calls, the same weights and the same reserve space on the way back, memory that is there,
// initialised and ordered. What cuDNN refuses is refused (STAND_INS.md says what and on which ground).
//
// The reserve space holds a header, then what forward kept and what backward made of it, as doubles. The header says
// what a backward call must match.
#include <algorithm>
#include <cstring>
#include <numeric>
#include <utility>

#include "host_cuda/cudnn_objects.h"
#include "host_cuda/host_cuda.h"

using namespace host_cuda::dnn;
using host_cuda::Access;
using host_cuda::byte_offset;
using host_cuda::call_must_fail;
using host_cuda::Element;
using host_cuda::object_lives;

namespace {

namespace rnn = host_cuda::rnn;

using Doubles = std::vector<double>;

/// What ran last on a reserve space.
enum class Stage : std::uint64_t { kForward = 1, kBackwardData = 2 };

struct ReserveHeader {
  static constexpr std::uint64_t kTag = 0x72657365727665aaU;
  std::uint64_t tag = kTag;
  Stage stage = Stage::kForward;
  // Checksums of what the calls must have in common.
  std::uint64_t problem = 0, weights = 0, x = 0, hx = 0, cx = 0, y = 0, kept = 0;
};

std::uint64_t checksum_of(const Doubles& values) {
  return host_cuda::checksum(values.size(), values.data(), values.size() * sizeof(double));
}

// Which kernels there are. What is known is for LSTM; the other cells are held to the same.

constexpr int kPersistentSizes[] = {128, 256, 512, 768, 896, 1024, 1280, 1536};
constexpr int kPersistentForwardOnly = 128;
constexpr int kLargestSmallH = 192;

cudnnStatus_t check_kernels(const char* function, const cudnnRNNStruct& net, const cudnnRNNDataStruct& x,
                            cudnnForwardMode_t mode) {
  if (net.algo == CUDNN_RNN_ALGO_STANDARD) return CUDNN_STATUS_SUCCESS;
  const std::string persistent = "a persistent algorithm";
  if (!x.equal_lengths()) return not_supported(function, "_variableSeqLength_ && algo != STANDARD");
  if (net.type == CUDNN_DATA_BFLOAT16) return not_supported(function, persistent + " with bf16");
  if (net.algo == CUDNN_RNN_ALGO_PERSIST_STATIC_SMALL_H && net.hidden > kLargestSmallH) {
    return not_supported(function, persistent + " for small H with H = " + std::to_string(net.hidden));
  }
  if (net.algo == CUDNN_RNN_ALGO_PERSIST_STATIC) {
    const auto* end = std::end(kPersistentSizes);
    if (std::find(std::begin(kPersistentSizes), end, net.hidden) == end ||
        (mode == CUDNN_FWD_MODE_TRAINING && net.hidden == kPersistentForwardOnly)) {
      return not_supported(function, persistent + " with H = " + std::to_string(net.hidden));
    }
  }
  return CUDNN_STATUS_SUCCESS;
}

rnn::Sizes sizes_of(const cudnnRNNStruct& net, const cudnnRNNDataStruct& x) {
  const auto size = [](int value) { return static_cast<std::size_t>(value); };
  return {cell_of(net.cell),
          size(net.layers),
          size(net.inputs),
          size(net.hidden),
          size(x.steps),
          size(x.batch),
          {x.lengths.begin(), x.lengths.end()}};
}

std::size_t workspace_bytes(const cudnnRNNDataStruct& x, cudnnForwardMode_t mode) {
  constexpr std::size_t kUnit = 256;  // the amount means nothing; that it varies with all of these does
  return kUnit * (1 + static_cast<std::size_t>(x.batch)) * (mode == CUDNN_FWD_MODE_TRAINING ? 2 : 1);
}

std::size_t reserve_doubles(const rnn::Sizes& sizes) {
  return sizes.layers * sizes.rows() * (sizes.kept() + sizes.derived());
}
std::size_t reserve_bytes(const rnn::Sizes& sizes) {
  return sizeof(ReserveHeader) + reserve_doubles(sizes) * sizeof(double);
}

/// A buffer of a call. Its name stands in reports.
struct Buffer {
  const char* name = nullptr;
  const void* memory = nullptr;  // or null: not given
  std::size_t bytes = 0;
  bool written = false;
};

/// A call whose arguments were found good, and what its turn on the stream needs: copies, since descriptors may be set
/// anew before that.
struct Call {
  const char* function = nullptr;
  cudnnStatus_t status = CUDNN_STATUS_SUCCESS;  // of the checks
  bool training = false;
  cudnnRNNStruct net{};
  cudnnRNNDataStruct x_desc{}, y_desc{};
  rnn::Sizes sizes{};
  const std::int32_t* device_lengths = nullptr;
  const void *x = nullptr, *y = nullptr, *dy = nullptr, *hx = nullptr, *cx = nullptr, *dhy = nullptr, *dcy = nullptr;
  const void* weights = nullptr;
  void *y_out = nullptr, *hy = nullptr, *cy = nullptr, *dx = nullptr, *dhx = nullptr, *dcx = nullptr;
  void *dweights = nullptr, *workspace = nullptr, *reserve = nullptr;

  void forward() const;
  void backward_data() const;
  void backward_weights() const;

  Element element() const { return element_of(net.type); }
  bool has_c() const { return net.cell == CUDNN_LSTM; }
  std::size_t element_bytes() const { return bytes_of(element()); }
  std::size_t state_count() const { return sizes.layers * sizes.batch * sizes.hidden; }
  std::size_t state_bytes() const { return state_count() * element_bytes(); }
  std::size_t data_bytes(const cudnnRNNDataStruct& desc) const {
    return memory_rows(desc) * static_cast<std::size_t>(desc.width) * element_bytes();
  }
  std::size_t memory_rows(const cudnnRNNDataStruct& desc) const {
    if (!desc.packed()) return sizes.rows();
    return std::accumulate(sizes.lengths.begin(), sizes.lengths.end(), std::size_t{0});
  }

 private:
  bool touch(const void* memory, std::size_t bytes, Access access, const char* what) const {
    const std::string text = std::string(function) + " " + what;
    return host_cuda::touch(memory, bytes, access, text.c_str());
  }
  void found(const std::string& text) const { host_cuda::report("misuse", std::string(function) + ": " + text); }

  template <class Visit>
  void each_row(const cudnnRNNDataStruct& desc, Visit visit) const;
  bool touch_rows(const cudnnRNNDataStruct& desc, const void* memory, Access access, const char* what) const;
  bool load_rows(const cudnnRNNDataStruct& desc, const void* memory, const char* what, Doubles& rows) const;
  bool store_rows(const cudnnRNNDataStruct& desc, const Doubles& rows, void* memory, const char* what) const;
  bool load_state(const void* h, const void* c, const char* what_h, const char* what_c, rnn::State& state) const;
  bool store_state(const rnn::State& state, void* h, void* c, const char* what_h, const char* what_c) const;
  bool load_weights(std::vector<rnn::Layer>& layers) const;

  bool begin() const;  // checks that all calls share
  std::uint64_t problem() const;
  Doubles as_stored(const Doubles& values) const;
  bool read_reserve(Stage expected, ReserveHeader& header, Doubles& kept, Doubles& derived) const;
  bool same(const char* what, std::uint64_t now, std::uint64_t before) const;
};

/// visit(row in memory, row t * B + b) for each step of each lane that runs.
template <class Visit>
void Call::each_row(const cudnnRNNDataStruct& desc, Visit visit) const {
  std::size_t packed_row = 0;
  for (std::size_t t = 0; t < sizes.steps; ++t) {
    for (std::size_t lane = 0; lane < sizes.batch; ++lane) {
      if (t >= sizes.lengths[lane]) continue;
      const std::size_t row = t * sizes.batch + lane;
      visit(desc.packed() ? packed_row++ : row, row);
    }
  }
}

bool Call::touch_rows(const cudnnRNNDataStruct& desc, const void* memory, Access access, const char* what) const {
  if (desc.packed() || desc.equal_lengths()) return touch(memory, data_bytes(desc), access, what);
  const std::size_t row_bytes = static_cast<std::size_t>(desc.width) * element_bytes();
  bool good = true;
  each_row(desc, [&](std::size_t at, std::size_t) {
    good = good && touch(byte_offset(memory, at * row_bytes), row_bytes, access, what);
  });
  return good;
}

bool Call::load_rows(const cudnnRNNDataStruct& desc, const void* memory, const char* what, Doubles& rows) const {
  if (!touch_rows(desc, memory, Access::kRead, what)) return false;
  const auto width = static_cast<std::size_t>(desc.width);
  rows.assign(sizes.rows() * width, 0);
  each_row(desc, [&](std::size_t at, std::size_t row) {
    to_double(element(), byte_offset(memory, at * width * element_bytes()), width, &rows[row * width]);
  });
  return true;
}

bool Call::store_rows(const cudnnRNNDataStruct& desc, const Doubles& rows, void* memory, const char* what) const {
  const bool fill = !desc.packed() && !desc.padding_fill.empty() && !desc.equal_lengths();
  const auto width = static_cast<std::size_t>(desc.width);
  if (fill) {
    if (!touch(memory, data_bytes(desc), Access::kWrite, what)) return false;
    for (std::size_t i = 0; i < sizes.rows() * width; ++i) {
      std::memcpy(byte_offset(memory, i * element_bytes()), desc.padding_fill.data(), element_bytes());
    }
  } else if (!touch_rows(desc, memory, Access::kWrite, what)) {
    return false;
  }
  each_row(desc, [&](std::size_t at, std::size_t row) {
    from_double(element(), &rows[row * width], width, byte_offset(memory, at * width * element_bytes()));
  });
  return true;
}

bool Call::load_state(const void* h, const void* c, const char* what_h, const char* what_c, rnn::State& state) const {
  const auto load = [&](const void* memory, const char* what, Doubles& values) {
    values.assign(state_count(), 0);
    if (memory == nullptr) return true;
    if (!touch(memory, state_bytes(), Access::kRead, what)) return false;
    to_double(element(), memory, state_count(), values.data());
    return true;
  };
  return load(h, what_h, state.h) && (!has_c() || load(c, what_c, state.c));
}

bool Call::store_state(const rnn::State& state, void* h, void* c, const char* what_h, const char* what_c) const {
  const auto store = [&](const Doubles& values, void* memory, const char* what) {
    if (memory == nullptr) return true;
    if (!touch(memory, state_bytes(), Access::kWrite, what)) return false;
    from_double(element(), values.data(), state_count(), memory);
    return true;
  };
  return store(state.h, h, what_h) && (!has_c() || store(state.c, c, what_c));
}

/// The place of a part in a layer's arrays.
double* place_of(const WeightPart& part, std::size_t gates, rnn::Layer& layer) {
  const bool recurrent = part.linear >= gates;
  const std::size_t first = (recurrent ? part.linear - gates : part.linear) * part.count();
  if (part.is_bias) return (recurrent ? layer.bias_h : layer.bias_x).data() + first;
  return (recurrent ? layer.weight_h : layer.weight_x).data() + first;
}

bool Call::load_weights(std::vector<rnn::Layer>& layers) const {
  const std::size_t width = sizes.gates() * sizes.hidden;
  for (std::size_t layer = 0; layer < sizes.layers; ++layer) {
    layers.push_back(
        {Doubles(width * sizes.inputs_of(layer)), Doubles(width * sizes.hidden), Doubles(width), Doubles(width)});
  }
  for (const WeightPart& part : weight_parts(net)) {
    const void* memory = byte_offset(weights, part.offset_bytes);
    const char* what = part.is_bias ? "biases" : "weights";
    if (!touch(memory, part.count() * element_bytes(), Access::kRead, what)) return false;
    to_double(element(), memory, part.count(), place_of(part, sizes.gates(), layers[part.layer]));
  }
  return true;
}

std::uint64_t checksum_of(const std::vector<rnn::Layer>& layers) {
  std::uint64_t sum = 0;
  for (const rnn::Layer& layer : layers) {
    for (const Doubles* values : {&layer.weight_x, &layer.weight_h, &layer.bias_x, &layer.bias_h}) {
      sum = host_cuda::checksum(sum, values->data(), values->size() * sizeof(double));
    }
  }
  return sum;
}

std::uint64_t Call::problem() const {
  const std::int64_t fields[] = {net.algo,      net.cell,     net.bias,     net.type,     net.precision,
                                 net.math,      net.inputs,   net.hidden,   net.layers,   net.flags,
                                 x_desc.layout, x_desc.steps, x_desc.batch, y_desc.layout};
  const std::uint64_t sum = host_cuda::checksum(0, fields, sizeof fields);
  return host_cuda::checksum(sum, x_desc.lengths.data(), x_desc.lengths.size() * sizeof(int));
}

Doubles Call::as_stored(const Doubles& values) const {
  std::vector<std::byte> stored(values.size() * element_bytes());
  from_double(element(), values.data(), values.size(), stored.data());
  Doubles result(values.size());
  to_double(element(), stored.data(), values.size(), result.data());
  return result;
}

bool Call::begin() const {
  const std::size_t bytes = workspace_bytes(x_desc, training ? CUDNN_FWD_MODE_TRAINING : CUDNN_FWD_MODE_INFERENCE);
  if (!touch(workspace, bytes, Access::kWrite, "workspace")) return false;
  std::memset(workspace, 0xff, bytes);  // whoever keeps something there shall notice
  if (device_lengths == nullptr) return true;
  if (!touch(device_lengths, sizes.batch * sizeof *device_lengths, Access::kRead, "devSeqLengths")) return false;
  if (std::equal(x_desc.lengths.begin(), x_desc.lengths.end(), device_lengths)) return true;
  found("devSeqLengths differ from the lengths in xDesc");
  return false;
}

void Call::forward() const {
  std::vector<rnn::Layer> layers;
  Doubles inputs;
  rnn::State start;
  if (!begin() || !load_weights(layers) || !load_rows(x_desc, x, "x", inputs) ||
      !load_state(hx, cx, "hx", "cx", start)) {
    return;
  }
  const std::size_t rows = sizes.layers * sizes.rows();
  Doubles kept(rows * sizes.kept());
  const rnn::State end = rnn::forward(sizes, layers, inputs, start, kept.data());
  Doubles outputs(sizes.rows() * sizes.hidden);
  const double* top = kept.data() + (rows - sizes.rows()) * sizes.kept();
  each_row(y_desc, [&](std::size_t, std::size_t row) {
    std::copy_n(top + (row + 1) * sizes.kept() - sizes.hidden, sizes.hidden, &outputs[row * sizes.hidden]);
  });
  if (!store_rows(y_desc, outputs, y_out, "y") || !store_state(end, hy, cy, "hy", "cy") || !training) return;

  ReserveHeader header;
  header.problem = problem();
  header.weights = checksum_of(layers);
  header.x = checksum_of(inputs);
  header.hx = checksum_of(start.h);
  header.cx = checksum_of(start.c);
  header.y = checksum_of(as_stored(outputs));
  header.kept = checksum_of(kept);
  if (!touch(reserve, reserve_bytes(sizes), Access::kWrite, "reserve space")) return;
  std::memset(reserve, 0xff, reserve_bytes(sizes));  // NaN where backward has still to write
  std::memcpy(reserve, &header, sizeof header);
  std::memcpy(byte_offset(reserve, sizeof header), kept.data(), kept.size() * sizeof(double));
}

bool Call::same(const char* what, std::uint64_t now, std::uint64_t before) const {
  if (now != before) found(std::string(what) + " changed since cudnnRNNForward filled the reserve space");
  return now == before;
}

bool Call::read_reserve(Stage expected, ReserveHeader& header, Doubles& kept, Doubles& derived) const {
  if (!touch(reserve, reserve_bytes(sizes), Access::kRead, "reserve space")) return false;
  std::memcpy(&header, reserve, sizeof header);
  if (header.tag != ReserveHeader::kTag) {
    found("the reserve space holds nothing of cudnnRNNForward in training mode");
    return false;
  }
  if (!same("network or sizes", problem(), header.problem)) return false;
  if (header.stage != expected) {
    found(expected == Stage::kForward ? "the reserve space was used for a backward pass already"
                                      : "cudnnRNNBackwardData_v8 has to come first");
    return false;
  }
  const std::size_t rows = sizes.layers * sizes.rows();
  kept.resize(rows * sizes.kept());
  derived.resize(rows * sizes.derived());
  const void* values = byte_offset(static_cast<const void*>(reserve), sizeof header);
  std::memcpy(kept.data(), values, kept.size() * sizeof(double));
  std::memcpy(derived.data(), byte_offset(values, kept.size() * sizeof(double)), derived.size() * sizeof(double));
  return same("the reserve space", checksum_of(kept), header.kept);
}

void Call::backward_data() const {
  ReserveHeader header;
  Doubles kept, derived, outputs, doutputs;
  std::vector<rnn::Layer> layers;
  rnn::State start, dend;
  if (!begin() || !read_reserve(Stage::kForward, header, kept, derived) || !load_weights(layers) ||
      !same("weights", checksum_of(layers), header.weights) || !load_state(hx, cx, "hx", "cx", start) ||
      !same("hx", checksum_of(start.h), header.hx) || !same("cx", checksum_of(start.c), header.cx) ||
      !load_rows(y_desc, y, "y", outputs) || !same("y", checksum_of(outputs), header.y) ||
      !load_rows(y_desc, dy, "dy", doutputs) || !load_state(dhy, dcy, "dhy", "dcy", dend)) {
    return;
  }
  std::fill(derived.begin(), derived.end(), 0);
  const rnn::Derivatives d = rnn::backward_data(sizes, layers, start, kept.data(), doutputs, dend, derived.data());
  if (!store_rows(x_desc, d.dx, dx, "dx") || !store_state(d.dstart, dhx, dcx, "dhx", "dcx")) return;
  if (!touch(reserve, reserve_bytes(sizes), Access::kWrite, "reserve space")) return;
  header.stage = Stage::kBackwardData;
  std::memcpy(reserve, &header, sizeof header);
  std::memcpy(byte_offset(reserve, sizeof header + kept.size() * sizeof(double)), derived.data(),
              derived.size() * sizeof(double));
}

void Call::backward_weights() const {
  ReserveHeader header;
  Doubles kept, derived, inputs, outputs;
  rnn::State start;
  if (!begin() || !read_reserve(Stage::kBackwardData, header, kept, derived) || !load_rows(x_desc, x, "x", inputs) ||
      !same("x", checksum_of(inputs), header.x) || !load_rows(y_desc, y, "y", outputs) ||
      !same("y", checksum_of(outputs), header.y)) {
    return;
  }
  // This call is given hx but not cx: the derivatives of the gates' sums hold all that c had to say.
  start.h.assign(state_count(), 0);
  if (hx != nullptr) {
    if (!touch(hx, state_bytes(), Access::kRead, "hx")) return;
    to_double(element(), hx, state_count(), start.h.data());
  }
  if (!same("hx", checksum_of(start.h), header.hx)) return;
  std::vector<rnn::Layer> gradients;
  for (std::size_t layer = 0; layer < sizes.layers; ++layer) {
    gradients.push_back(rnn::backward_weights(sizes, layer, inputs, start, kept.data(), derived.data()));
  }
  for (const WeightPart& part : weight_parts(net)) {
    void* memory = byte_offset(dweights, part.offset_bytes);
    const std::size_t bytes = part.count() * element_bytes();
    if (!touch(memory, bytes, Access::kRead, "dweightSpace") || !touch(memory, bytes, Access::kWrite, "dweightSpace")) {
      return;
    }
    Doubles sum(part.count());
    to_double(element(), memory, part.count(), sum.data());
    const double* gradient = place_of(part, sizes.gates(), gradients[part.layer]);
    for (std::size_t i = 0; i < sum.size(); ++i) sum[i] += gradient[i];
    from_double(element(), sum.data(), part.count(), memory);
  }
}

// Checks of arguments at the call. Each returns what the call has to return if it is not success.

cudnnStatus_t check_data(const char* function, const cudnnRNNStruct& net, cudnnRNNDataDescriptor_t desc, int width,
                         const char* name) {
  if (!object_lives(kData, desc) || !desc->set) return misuse(function, std::string(name) + " is not alive or not set");
  if (desc->type != net.type) return misuse(function, std::string(name) + " is of another type than the network");
  if (desc->width != width) {
    return misuse(function, std::string(name) + " has vectors of " + std::to_string(desc->width) + ", expected " +
                                std::to_string(width));
  }
  if (!desc->packed() && (net.flags & CUDNN_RNN_PADDED_IO_ENABLED) == 0) {
    return misuse(function, std::string(name) + " is unpacked, without CUDNN_RNN_PADDED_IO_ENABLED");
  }
  return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t check_network(const char* function, cudnnHandle_t handle, cudnnRNNDescriptor_t desc) {
  if (!object_lives(kHandle, handle)) return misuse(function, "no such handle");
  if (!object_lives(kRnn, desc) || !desc->set) return misuse(function, "rnnDesc is not alive or not set");
  if (!object_lives(kDropout, desc->dropout)) return misuse(function, "the dropout descriptor of rnnDesc is gone");
  return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t check_state(const char* function, const Call& call, cudnnTensorDescriptor_t desc, const char* name) {
  if (!object_lives(kTensor, desc)) return misuse(function, std::string(name) + " is not alive");
  const int layers = call.net.layers, batch = call.x_desc.batch, hidden = call.net.hidden;
  const std::vector<int> dims{layers, batch, hidden}, strides{batch * hidden, hidden, 1};
  if (desc->type != call.net.type || desc->dims != dims || desc->strides != strides) {
    return misuse(function, std::string(name) + " is not a packed tensor [" + std::to_string(layers) + ", " +
                                std::to_string(batch) + ", " + std::to_string(hidden) + "] of the network's type");
  }
  return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t check_buffers(const char* function, const Call& call, const std::vector<Buffer>& buffers) {
  const auto address = [](const Buffer& b) { return reinterpret_cast<std::size_t>(b.memory); };
  for (const Buffer& b : buffers) {
    if (address(b) % call.element_bytes() != 0) {
      return misuse(function, std::string(b.name) + " is not aligned to its elements");
    }
    for (const Buffer& other : buffers) {
      if (&b == &other || !b.written || b.memory == nullptr || other.memory == nullptr) continue;
      if (address(b) < address(other) + other.bytes && address(other) < address(b) + b.bytes) {
        return misuse(function, std::string(b.name) + " overlaps " + other.name);
      }
    }
  }
  return CUDNN_STATUS_SUCCESS;
}

struct Spaces {
  std::size_t weight_bytes = 0, workspace_bytes = 0, reserve_bytes = 0;
};

/// All that a call of any of the three has in common: descriptors, kernels, sizes of the spaces.
Call prepare(const char* function, cudnnHandle_t handle, cudnnRNNDescriptor_t net, cudnnForwardMode_t mode,
             cudnnRNNDataDescriptor_t x, cudnnRNNDataDescriptor_t y, const Spaces& spaces) {
  Call call;
  call.function = function;
  const auto check = [&call](cudnnStatus_t status) {
    call.status = status;
    return status == CUDNN_STATUS_SUCCESS;
  };
  if (!check(check_network(function, handle, net)) || !check(check_data(function, *net, x, net->inputs, "xDesc")) ||
      !check(check_data(function, *net, y, net->hidden, "yDesc"))) {
    return call;
  }
  if (x->steps != y->steps || x->lengths != y->lengths || x->layout != y->layout) {
    call.status = misuse(function, "xDesc and yDesc differ in steps, lengths or layout");
    return call;
  }
  if (!check(check_kernels(function, *net, *x, mode))) return call;
  call.training = mode == CUDNN_FWD_MODE_TRAINING;
  call.net = *net;
  call.x_desc = *x;
  call.y_desc = *y;
  call.sizes = sizes_of(*net, *x);
  const struct {
    const char* name;
    std::size_t given, needed;
  } space[] = {{"weight space", spaces.weight_bytes, weight_space_bytes(*net)},
               {"workspace", spaces.workspace_bytes, workspace_bytes(*x, mode)},
               {"reserve space", spaces.reserve_bytes, call.training ? reserve_bytes(call.sizes) : 0}};
  for (const auto& s : space) {
    if (s.given >= s.needed) continue;
    call.status = misuse(function, std::string("the ") + s.name + " has " + std::to_string(s.given) +
                                       " bytes, needed are " + std::to_string(s.needed));
    return call;
  }
  return call;
}

/// The last checks, then the queue.
cudnnStatus_t submit(cudnnHandle_t handle, Call call, cudnnTensorDescriptor_t h, cudnnTensorDescriptor_t c,
                     bool needs_c_desc, const std::vector<Buffer>& required, const std::vector<Buffer>& optional,
                     void (Call::*work)() const) {
  auto status = check_state(call.function, call, h, "hDesc");
  if (status == CUDNN_STATUS_SUCCESS && needs_c_desc) status = check_state(call.function, call, c, "cDesc");
  if (status != CUDNN_STATUS_SUCCESS) return status;
  for (const Buffer& b : required) {
    if (b.memory == nullptr) return misuse(call.function, std::string(b.name) + " is null");
  }
  std::vector<Buffer> all = required;
  all.insert(all.end(), optional.begin(), optional.end());
  status = check_buffers(call.function, call, all);
  if (status != CUDNN_STATUS_SUCCESS) return status;
  const char* function = call.function;
  const auto error = host_cuda::enqueue(handle->stream, function, [call = std::move(call), work] { (call.*work)(); });
  return error == cudaSuccess ? CUDNN_STATUS_SUCCESS : CUDNN_STATUS_EXECUTION_FAILED;
}

}  // namespace

cudnnStatus_t cudnnGetRNNTempSpaceSizes(cudnnHandle_t handle, cudnnRNNDescriptor_t net, cudnnForwardMode_t mode,
                                        cudnnRNNDataDescriptor_t x, size_t* workspace, size_t* reserve) {
  const char* function = "cudnnGetRNNTempSpaceSizes";
  if (call_must_fail(function)) return CUDNN_STATUS_INTERNAL_ERROR;
  auto status = check_network(function, handle, net);
  if (status == CUDNN_STATUS_SUCCESS) status = check_data(function, *net, x, net->inputs, "xDesc");
  if (status == CUDNN_STATUS_SUCCESS) status = check_kernels(function, *net, *x, mode);
  if (status != CUDNN_STATUS_SUCCESS) return status;
  if (workspace != nullptr) *workspace = workspace_bytes(*x, mode);
  if (reserve != nullptr) *reserve = mode == CUDNN_FWD_MODE_TRAINING ? reserve_bytes(sizes_of(*net, *x)) : 0;
  return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnGetRNNWeightSpaceSize(cudnnHandle_t handle, cudnnRNNDescriptor_t net, size_t* bytes) {
  const char* function = "cudnnGetRNNWeightSpaceSize";
  if (call_must_fail(function)) return CUDNN_STATUS_INTERNAL_ERROR;
  const auto status = check_network(function, handle, net);
  if (status != CUDNN_STATUS_SUCCESS) return status;
  if (bytes == nullptr) return misuse(function, "no place for the result");
  *bytes = weight_space_bytes(*net);
  return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnGetRNNWeightParams(cudnnHandle_t handle, cudnnRNNDescriptor_t net, int32_t layer, size_t bytes,
                                      const void* weights, int32_t linear, cudnnTensorDescriptor_t matrix,
                                      void** matrix_address, cudnnTensorDescriptor_t bias, void** bias_address) {
  const char* function = "cudnnGetRNNWeightParams";
  if (call_must_fail(function)) return CUDNN_STATUS_INTERNAL_ERROR;
  const auto status = check_network(function, handle, net);
  if (status != CUDNN_STATUS_SUCCESS) return status;
  if (!object_lives(kTensor, matrix) || !object_lives(kTensor, bias) || matrix_address == nullptr ||
      bias_address == nullptr || weights == nullptr) {
    return misuse(function, "a null pointer, or a tensor descriptor that is not alive");
  }
  if (bytes < weight_space_bytes(*net)) return misuse(function, "the weight space is too small");
  const int linear_count = 2 * static_cast<int>(gates_of(*net));
  const bool projection = net->cell == CUDNN_LSTM && linear == linear_count;
  if (layer < 0 || layer >= net->layers || linear < 0 || (linear >= linear_count && !projection)) {
    return misuse(function, "no layer " + std::to_string(layer) + " or no linLayerID " + std::to_string(linear));
  }

  // What does not exist has no dimensions and no address.
  *matrix = *bias = {net->type, {}, {}};
  *matrix_address = *bias_address = nullptr;
  for (const WeightPart& part : weight_parts(*net)) {
    if (part.layer != static_cast<std::size_t>(layer) || part.linear != static_cast<std::size_t>(linear)) continue;
    const int rows = static_cast<int>(part.rows), cols = static_cast<int>(part.cols);
    (part.is_bias ? *bias : *matrix) = {net->type, {1, rows, cols}, {rows * cols, cols, 1}};
    *(part.is_bias ? bias_address : matrix_address) = byte_offset(const_cast<void*>(weights), part.offset_bytes);
  }
  return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnRNNForward(cudnnHandle_t handle, cudnnRNNDescriptor_t net, cudnnForwardMode_t mode,
                              const int32_t lengths[], cudnnRNNDataDescriptor_t x_desc, const void* x,
                              cudnnRNNDataDescriptor_t y_desc, void* y, cudnnTensorDescriptor_t h, const void* hx,
                              void* hy, cudnnTensorDescriptor_t c, const void* cx, void* cy, size_t weight_bytes,
                              const void* weights, size_t workspace_bytes, void* workspace, size_t reserve_bytes,
                              void* reserve) {
  const char* function = "cudnnRNNForward";
  if (call_must_fail(function)) return CUDNN_STATUS_EXECUTION_FAILED;
  Call call = prepare(function, handle, net, mode, x_desc, y_desc, {weight_bytes, workspace_bytes, reserve_bytes});
  if (call.status != CUDNN_STATUS_SUCCESS) return call.status;
  call.device_lengths = lengths;
  call.x = x;
  call.y_out = y;
  call.hx = hx;
  call.hy = hy;
  call.cx = call.has_c() ? cx : nullptr;
  call.cy = call.has_c() ? cy : nullptr;
  call.weights = weights;
  call.workspace = workspace;
  call.reserve = call.training ? reserve : nullptr;
  std::vector<Buffer> required{{"x", x, call.data_bytes(call.x_desc), false},
                               {"y", y, call.data_bytes(call.y_desc), true},
                               {"weightSpace", weights, weight_space_bytes(call.net), false},
                               {"workSpace", workspace, workspace_bytes, true}};
  if (call.training) required.push_back({"reserveSpace", reserve, reserve_bytes, true});
  const std::size_t state_bytes = call.state_bytes();
  const std::vector<Buffer> optional{{"hx", hx, state_bytes, false},
                                     {"hy", hy, state_bytes, true},
                                     {"cx", call.cx, state_bytes, false},
                                     {"cy", call.cy, state_bytes, true}};
  const bool has_c = call.has_c();
  return submit(handle, std::move(call), h, c, has_c, required, optional, &Call::forward);
}

cudnnStatus_t cudnnRNNBackwardData_v8(cudnnHandle_t handle, cudnnRNNDescriptor_t net, const int32_t lengths[],
                                      cudnnRNNDataDescriptor_t y_desc, const void* y, const void* dy,
                                      cudnnRNNDataDescriptor_t x_desc, void* dx, cudnnTensorDescriptor_t h,
                                      const void* hx, const void* dhy, void* dhx, cudnnTensorDescriptor_t c,
                                      const void* cx, const void* dcy, void* dcx, size_t weight_bytes,
                                      const void* weights, size_t workspace_bytes, void* workspace,
                                      size_t reserve_bytes, void* reserve) {
  const char* function = "cudnnRNNBackwardData_v8";
  if (call_must_fail(function)) return CUDNN_STATUS_EXECUTION_FAILED;
  Call call = prepare(function, handle, net, CUDNN_FWD_MODE_TRAINING, x_desc, y_desc,
                      {weight_bytes, workspace_bytes, reserve_bytes});
  if (call.status != CUDNN_STATUS_SUCCESS) return call.status;
  call.device_lengths = lengths;
  call.y = y;
  call.dy = dy;
  call.dx = dx;
  call.hx = hx;
  call.dhy = dhy;
  call.dhx = dhx;
  call.cx = call.has_c() ? cx : nullptr;
  call.dcy = call.has_c() ? dcy : nullptr;
  call.dcx = call.has_c() ? dcx : nullptr;
  call.weights = weights;
  call.workspace = workspace;
  call.reserve = reserve;
  const std::vector<Buffer> required{
      {"y", y, call.data_bytes(call.y_desc), false},   {"dy", dy, call.data_bytes(call.y_desc), false},
      {"dx", dx, call.data_bytes(call.x_desc), true},  {"weightSpace", weights, weight_space_bytes(call.net), false},
      {"workSpace", workspace, workspace_bytes, true}, {"reserveSpace", reserve, reserve_bytes, true}};
  const std::size_t state_bytes = call.state_bytes();
  const std::vector<Buffer> optional{{"hx", hx, state_bytes, false},        {"dhy", dhy, state_bytes, false},
                                     {"dhx", dhx, state_bytes, true},       {"cx", call.cx, state_bytes, false},
                                     {"dcy", call.dcy, state_bytes, false}, {"dcx", call.dcx, state_bytes, true}};
  const bool has_c = call.has_c();
  return submit(handle, std::move(call), h, c, has_c, required, optional, &Call::backward_data);
}

cudnnStatus_t cudnnRNNBackwardWeights_v8(cudnnHandle_t handle, cudnnRNNDescriptor_t net, cudnnWgradMode_t mode,
                                         const int32_t lengths[], cudnnRNNDataDescriptor_t x_desc, const void* x,
                                         cudnnTensorDescriptor_t h, const void* hx, cudnnRNNDataDescriptor_t y_desc,
                                         const void* y, size_t weight_bytes, void* dweights, size_t workspace_bytes,
                                         void* workspace, size_t reserve_bytes, void* reserve) {
  const char* function = "cudnnRNNBackwardWeights_v8";
  if (call_must_fail(function)) return CUDNN_STATUS_EXECUTION_FAILED;
  if (mode != CUDNN_WGRAD_MODE_ADD) return not_modelled(function, "a mode other than CUDNN_WGRAD_MODE_ADD");
  Call call = prepare(function, handle, net, CUDNN_FWD_MODE_TRAINING, x_desc, y_desc,
                      {weight_bytes, workspace_bytes, reserve_bytes});
  if (call.status != CUDNN_STATUS_SUCCESS) return call.status;
  call.device_lengths = lengths;
  call.x = x;
  call.hx = hx;
  call.y = y;
  call.dweights = dweights;
  call.workspace = workspace;
  call.reserve = reserve;
  const std::vector<Buffer> required{{"x", x, call.data_bytes(call.x_desc), false},
                                     {"y", y, call.data_bytes(call.y_desc), false},
                                     {"dweightSpace", dweights, weight_space_bytes(call.net), true},
                                     {"workSpace", workspace, workspace_bytes, true},
                                     {"reserveSpace", reserve, reserve_bytes, true}};
  const std::vector<Buffer> optional{{"hx", hx, call.state_bytes(), false}};
  return submit(handle, std::move(call), h, nullptr, false, required, optional, &Call::backward_weights);
}
