#include "charrnn/rnn.h"

#include "charrnn/error.h"
#include "model/loaded_model.h"

namespace charrnn {

// Members are destroyed in reverse order: the session before its network, the network before its backend.
struct Rnn::Parts {
  LoadedModel model;
  NetworkShape shape;
  std::unique_ptr<Session> session;
  std::vector<float> logits;  // [V]

  std::size_t state_size() const {
    return static_cast<std::size_t>(shape.layers) * static_cast<std::size_t>(shape.hidden);
  }
  std::size_t cell_state_size() const { return has_cell_state(shape.cell) ? state_size() : 0; }
};

Rnn Rnn::load(const std::filesystem::path& run_or_checkpoint, const std::string& device, int threads) {
  auto parts = std::make_unique<Parts>();
  parts->model = load_model(run_or_checkpoint, {.device = device, .threads = threads}, Precision::kFp32);
  parts->shape = parts->model.checkpoint.shape();
  parts->session = parts->model.network->open({.batch = 1, .max_steps = 1, .training = false});
  parts->session->reset();
  parts->logits.resize(static_cast<std::size_t>(parts->shape.vocabulary));
  return Rnn(std::move(parts));
}

Rnn::Rnn(std::unique_ptr<Parts> parts) : parts_(std::move(parts)) {}
Rnn::~Rnn() = default;
Rnn::Rnn(Rnn&&) noexcept = default;
Rnn& Rnn::operator=(Rnn&&) noexcept = default;

std::span<const float> Rnn::step(TokenId x) {
  if (x < 0 || x >= parts_->shape.vocabulary) {
    throw ShapeError("x is " + std::to_string(x) + ", expected [0, " + std::to_string(parts_->shape.vocabulary) + ")");
  }
  parts_->session->forward({.steps = 1, .batch = 1, .ids = {&x, 1}, .targets = {}, .weights = {}, .reset = {}},
                           parts_->logits);
  return parts_->logits;
}

std::span<const float> Rnn::step(std::span<const float> x) {
  if (x.size() != static_cast<std::size_t>(parts_->shape.vocabulary)) {
    throw ShapeError("x has " + std::to_string(x.size()) + " numbers, expected " +
                     std::to_string(parts_->shape.vocabulary));
  }
  // x may be what this object returned last: the logits must not be overwritten while they are read.
  const std::vector<float> input(x.begin(), x.end());
  parts_->session->forward_dense(1, input, parts_->logits);
  return parts_->logits;
}

void Rnn::reset() { parts_->session->reset(); }

Rnn::State Rnn::state() const {
  State state;
  state.h.resize(parts_->state_size());
  state.c.resize(parts_->cell_state_size());
  parts_->session->get_state(state.h, state.c);
  return state;
}

void Rnn::set_state(const State& state) {
  if (state.h.size() != parts_->state_size() || state.c.size() != parts_->cell_state_size()) {
    throw ShapeError("a state has " + std::to_string(state.h.size()) + " numbers in h and " +
                     std::to_string(state.c.size()) + " in c, expected " + std::to_string(parts_->state_size()) +
                     " and " + std::to_string(parts_->cell_state_size()));
  }
  parts_->session->set_state(state.h, state.c);
}

const NetworkShape& Rnn::shape() const noexcept { return parts_->shape; }
const Vocabulary& Rnn::vocabulary() const noexcept { return parts_->model.checkpoint.vocabulary; }

}  // namespace charrnn
