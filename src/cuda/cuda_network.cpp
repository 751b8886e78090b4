#include "cuda/cuda_network.h"

#include <algorithm>

#include "cuda/cuda_session.h"
#include "kernels/update.h"

namespace charrnn::cuda {

namespace {

/// fp16's scale at the start: the first steps halve it where it is too much.
constexpr float kFirstLossScale = 65536.0F;

LayerParameters layer_parameters(const CudaNetwork& n, int layer) {
  const ParameterLayout& layout = n.layout();
  return {n.parameter(layout.weight_ih(layer)), n.parameter(layout.bias_ih(layer)), n.parameter(layout.bias_hh(layer))};
}

}  // namespace

Format format_of(Precision precision) {
  switch (precision) {
    case Precision::kBf16: return {precision, Element::kBf16, Arithmetic::kExact};
    case Precision::kFp16: return {precision, Element::kF16, Arithmetic::kExact};
    case Precision::kTf32: return {precision, Element::kF32, Arithmetic::kTf32};
    case Precision::kAuto:
    case Precision::kFp32: break;
  }
  return {Precision::kFp32, Element::kF32, Arithmetic::kExact};
}

UpdateRule rule_of(const UpdateSettings& settings) {
  return {charrnn::rule_of(settings.optimizer), settings.clip.kind, settings.clip.threshold};
}

CudaNetwork::CudaNetwork(const NetworkShape& shape, Precision precision, std::shared_ptr<Device> device)
    : layout_(shape),
      format_(format_of(precision)),
      gates_(gate_blocks(shape.cell, shape.hidden)),
      device_(std::move(device)),
      table_(static_cast<std::size_t>(shape.vocabulary * gates_.width), "the table of the first layer"),
      bias_(static_cast<std::size_t>(shape.layers * gates_.width), "the biases"),
      squares_(static_cast<std::size_t>(square_chunks(static_cast<std::int64_t>(layout_.arena_size()))),
               "the norm of the gradients"),
      state_(1, "the state of the updates"),
      decision_(1, "the decision of an update"),
      update_inputs_(1, "the inputs of an update"),
      update_record_(1, "the result of an update") {
  for (auto& arena : arenas_) {
    arena = DeviceBuffer<float>(layout_.arena_size(), "weights, gradients and moments");
    arena.zero(stream());
  }
  if (format_.element != Element::kF32) {
    copy_ = DeviceBuffer<std::byte>(layout_.arena_size() * size_of(format_.element), "the weights in 16 bits");
  }
  decision_.zero(stream());  // its padding is copied with it
  set_update_state({.loss_scale = format_.precision == Precision::kFp16 ? kFirstLossScale : 1.0F});
}

void CudaNetwork::read(Arena which, std::span<float> to) {
  device_->use();
  if (to.size() != layout_.arena_size()) throw ShapeError("Network::read: the span has not the arena's size");
  device_->stream.wait();
  copy_to_host(to.data(), arena(which), to.size_bytes());
}

void CudaNetwork::write(Arena which, std::span<const float> from) {
  device_->use();
  if (from.size() != layout_.arena_size()) throw ShapeError("Network::write: the span has not the arena's size");
  device_->stream.wait();
  copy_to_device(arena(which), from.data(), from.size_bytes());
  if (which == Arena::kParameters) ++version_;
}

void CudaNetwork::unscale_gradients() {
  if (format_.precision != Precision::kFp16) return;
  unscale(arena(Arena::kGradients), static_cast<std::int64_t>(layout_.arena_size()), state_.data(), stream());
}

void CudaNetwork::note_fallback(const std::string& why) {
  if (why.empty()) return;
  device_->implementation = Implementation::kFused;  // for what comes after, too
  device_->note("the recurrence is computed by the fused kernels, not by cuDNN: " + why);
}

UpdateState CudaNetwork::update_state() {
  device_->use();
  device_->stream.wait();
  DeviceUpdateState state;
  copy_to_host(&state, state_.data(), sizeof(state));
  return {state.updates, state.loss_scale, state.since_overflow};
}

void CudaNetwork::set_update_state(const UpdateState& state) {
  device_->use();
  const bool adapts = format_.precision == Precision::kFp16;
  const DeviceUpdateState held{state.updates, state.since_overflow,
                               adapts ? static_cast<float>(state.loss_scale) : 1.0F, adapts};
  device_->stream.wait();
  copy_to_device(state_.data(), &held, sizeof(held));
}

Track& CudaNetwork::track(int index) {
  while (tracks_.size() <= static_cast<std::size_t>(index)) {
    auto made = std::make_unique<OwnedTrack>();
    if (!tracks_.empty()) made->stream = std::make_unique<Stream>();
    made->products = std::make_unique<Products>(format_.arithmetic);
    made->track = {made->stream == nullptr ? stream() : made->stream->get(), made->products.get()};
    tracks_.push_back(std::move(made));
  }
  return tracks_[static_cast<std::size_t>(index)]->track;
}

const void* CudaNetwork::weight(const ParameterTensor& tensor) const {
  if (format_.element == Element::kF32) return parameter(tensor);
  return copy_.data() + tensor.offset * size_of(format_.element);
}

void CudaNetwork::refresh() {
  if (refreshed_ == version_) return;
  if (format_.element != Element::kF32) {
    convert(arena(Arena::kParameters), copy_.data(), format_.element, static_cast<std::int64_t>(layout_.arena_size()),
            stream());
  }
  enqueue_refresh();
  refreshed_ = version_;
}

void CudaNetwork::enqueue_refresh() {
  make_table(layer_parameters(*this, 0), gates_, shape().vocabulary, table_.data(), stream());
  for (int l = 0; l < shape().layers; ++l) {
    make_bias(layer_parameters(*this, l), gates_, bias_.data() + l * gates_.width, stream());
  }
}

void CudaNetwork::enqueue_update(OptimizerKind optimizer, const WindowSums* window, StepInputs* inputs,
                                 StepRecord* ring, std::uint32_t ring_size) {
  const auto n = static_cast<std::int64_t>(layout_.arena_size());
  square_sums(arena(Arena::kGradients), n, squares_.data(), stream());
  decide({.partial = squares_.data(),
          .chunks = square_chunks(n),
          .window = window,
          .inputs = inputs,
          .state = state_.data(),
          .decision = decision_.data(),
          .ring = ring,
          .ring_size = ring_size},
         stream());
  charrnn::cuda::update(optimizer,
                        {.n = n,
                         .p = arena(Arena::kParameters),
                         .g = arena(Arena::kGradients),
                         .moment1 = arena(Arena::kMoment1),
                         .moment2 = arena(Arena::kMoment2),
                         .copy = copy_.data(),
                         .element = format_.element,
                         .decision = decision_.data()},
                        stream());
  enqueue_refresh();
}

StepResult CudaNetwork::update(const UpdateSettings& settings) {
  device_->use();
  refresh();
  StepInputs inputs;
  inputs.rule = rule_of(settings);
  write_inputs(inputs, update_inputs_.data(), stream());
  enqueue_update(settings.optimizer.name, nullptr, update_inputs_.data(), update_record_.data(), 1);
  updated_by_step();
  device_->stream.wait();
  const StepRecord& record = update_record_[0];
  return {.nats_per_char = 0, .gradient_norm = record.gradient_norm, .skipped = record.skipped != 0};
}

std::size_t CudaNetwork::memory_bytes(const NetworkShape& shape, Precision precision) {
  const ParameterLayout layout(shape);
  const GateBlocks gates = gate_blocks(shape.cell, shape.hidden);
  const std::size_t element = size_of(format_of(precision).element);
  const std::size_t copy = element == sizeof(float) ? 0 : layout.arena_size() * element;
  return Products::kWorkspaceBytes + 4 * layout.arena_size() * sizeof(float) + copy +
         static_cast<std::size_t>((shape.vocabulary + shape.layers) * gates.width) * sizeof(float);
}

std::size_t CudaNetwork::reserve_bytes(int batch) const {
  constexpr int kCharacters = 8192, kFewestSteps = 16;
  const SessionShape scoring{batch, std::max(kCharacters / batch, kFewestSteps), false};
  return memory_bytes(shape(), format_.precision) + CudaSession::memory_bytes(shape(), format_.precision, scoring);
}

/// The most lanes that such a session can have, found by trying, so that all of it is counted; 0: not even one. The
/// reserve stays free.
int CudaNetwork::largest_batch(SessionShape session) {
  int fits = 0;
  for (int too_many = session.batch; too_many - fits > 1;) {
    session.batch = fits + (too_many - fits) / 2;
    bool good = false;
    try {
      const CudaSession tried(*this, session);
      good = free_memory() >= reserve_bytes(session.batch);
    } catch (const OutOfMemory&) {  // good stays false
    }
    (good ? fits : too_many) = session.batch;
  }
  return fits;
}

std::unique_ptr<Session> CudaNetwork::open(const SessionShape& shape) {
  device_->use();
  const std::size_t before = held_memory().now;
  std::size_t needed = CudaSession::memory_bytes(layout_.shape(), format_.precision, shape);
  try {
    auto session = std::make_unique<CudaSession>(*this, shape);
    if (!shape.training || free_memory() >= reserve_bytes(shape.batch)) return session;
    // The reserve is for validation and the test at the end: better said now than then.
    needed = std::max(needed, held_memory().now - before) + reserve_bytes(shape.batch);
  } catch (const OutOfMemory& e) {
    needed = std::max(needed, e.would_hold - before);
  }
  // What fits grows with T and B alike; B is what people change first.
  const int fits = largest_batch(shape);
  const std::string batch = "train.batch " + std::to_string(fits) + " would fit, or a smaller train.sequence";
  throw DeviceError(short_of_memory(needed, "a session of these sizes",
                                    fits > 0 ? batch
                                             : "use a smaller train.batch, train.sequence or model.hidden, or end what "
                                               "else uses the GPU"));
}

}  // namespace charrnn::cuda
