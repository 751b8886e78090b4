#include "charrnn/trainer.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <deque>

#include "backend/backend.h"
#include "charrnn/error.h"
#include "data/corpus.h"
#include "data/loader.h"
#include "data/streams.h"
#include "devices/registry.h"
#include "model/evaluator.h"
#include "model/initialize.h"
#include "train/init_from.h"
#include "train/schedule.h"

namespace charrnn {

namespace {

using Clock = std::chrono::steady_clock;

struct InFlight {
  std::int64_t step = 0;
  double learning_rate = 0;
  Clock::time_point submitted;
};

/// Moments that the optimizer carries from step to step.
int moment_count(OptimizerKind kind) { return kind == OptimizerKind::kAdam ? 2 : 1; }

void refuse_changes(const Config& config, const Checkpoint& from) {
  const std::vector<std::string> changes = training_differences(config, from.config);
  if (changes.empty()) return;
  std::string list;
  for (const std::string& change : changes) list += "\n  " + change;
  throw ConfigError("the run cannot go on from step " + std::to_string(from.step) + " with other settings:" + list +
                    "\nset them back, or choose another run.dir (--output), or start from the weights alone with "
                    "init_from");
}

}  // namespace

struct Trainer::Parts {
  Parts(Config c, const Options& o)
      : config(std::move(c)),
        options(o),
        corpus(Corpus::open(config.corpus, [this](double f) { report("reading the text", f); })),
        plan(plan_streams(config.corpus, static_cast<std::int64_t>(corpus.text().size()), config.train.batch,
                          config.train.sequence, config.validate.characters)),
        notes(plan.notes),
        backend(open_backend({config.run.device, o.threads, config.run.implementation})) {}

  void report(const std::string& what, double fraction) const {
    if (options.progress) options.progress(what, fraction);
  }

  void make_network() {
    network = backend->make_network(config.network_shape(vocabulary.size()), config.train.precision);
    session = network->open(session_shape());
  }

  SessionShape session_shape() const { return {plan.training.batch, plan.training.sequence, true}; }

  /// What the bits depend on, besides the threads.
  std::string machine() const {
    const DeviceInfo& info = backend->info();
    return fmt::format("{}, {}{}{}", info.name, name_of(network->precision()), info.implementation.empty() ? "" : ", ",
                       info.implementation);
  }

  void start() {
    state.batch = plan.training.batch;
    state.text_sha256 = corpus.sha256();
    state.text_characters = static_cast<std::int64_t>(corpus.text().size());
    state.machine = machine();
    state.threads = backend->info().threads;
    submitted = state.step;
    for (std::size_t byte = 0; byte < ids_of_bytes.size(); ++byte) {
      ids_of_bytes[byte] = vocabulary.find(static_cast<std::uint8_t>(byte));
    }
    const TrainingStreams& streams = plan.training;
    const bool held = session->hold_text({.text = corpus.text(),
                                          .ids_of_bytes = ids_of_bytes,
                                          .batch = streams.batch,
                                          .steps = streams.sequence,
                                          .stride = streams.stride,
                                          .windows_per_epoch = streams.windows_per_epoch});
    if (!held) loader = std::make_unique<Loader>(corpus.text(), vocabulary, streams, state.step + 1);
    for (std::string& note : backend->take_notes()) notes.push_back(std::move(note));
  }

  void restore(const Checkpoint& from);
  void submit();
  Step collect();
  double evaluate(Network& with, const std::vector<LaneRange>& lanes, const std::string& what);

  Config config;
  Options options;
  Corpus corpus;
  Vocabulary vocabulary;
  StreamPlan plan;
  std::vector<std::string> notes;
  std::unique_ptr<Backend> backend;  // destroyed after what it made
  std::unique_ptr<Network> network;
  std::unique_ptr<Session> session;
  std::array<TokenId, 256> ids_of_bytes{};
  std::unique_ptr<Loader> loader;  // none where the session holds the text and cuts the windows itself
  TrainingState state;             // its arrays stay empty: they live on the device
  std::int64_t submitted = 0;
  std::deque<InFlight> in_flight;
  Clock::time_point last_result;
};

void Trainer::Parts::restore(const Checkpoint& from) {
  const TrainingState& saved = *from.state;
  if (saved.text_sha256 != corpus.sha256()) {
    throw DataError(
        fmt::format("corpus.{}: {}: the text is not the one of the checkpoint at step {} (sha256 {}, there {}); put it "
                    "back, or choose another run.dir (--output)",
                    config.corpus.text ? "text" : "path", corpus.source(), from.step, corpus.sha256(),
                    saved.text_sha256));
  }
  if (saved.batch != plan.training.batch) {
    throw FormatError(
        fmt::format("the checkpoint's state has {} lanes, this run {}", saved.batch, plan.training.batch));
  }
  network->write(Arena::kParameters, from.parameters);
  if (!saved.moment1.empty()) network->write(Arena::kMoment1, saved.moment1);
  if (!saved.moment2.empty()) network->write(Arena::kMoment2, saved.moment2);
  network->set_update_state({.updates = saved.step - saved.skipped_total,
                             .loss_scale = saved.loss_scale,
                             .since_overflow = saved.since_overflow});
  session->set_state(saved.h, saved.c);
  state = saved;
  for (std::vector<float>* array : {&state.moment1, &state.moment2, &state.h, &state.c}) *array = {};
  if (saved.machine != machine()) {
    notes.push_back(
        fmt::format("the checkpoint was made on \"{}\", this is \"{}\": the run goes on, but not bit for bit "
                    "as it would have there",
                    saved.machine, machine()));
  }
  if (saved.threads != backend->info().threads) {
    notes.push_back(
        fmt::format("the checkpoint was made with {} threads, this run has {}: the run goes on, but not bit "
                    "for bit as it would have with those; --threads {} restores that",
                    saved.threads, backend->info().threads, saved.threads));
  }
}

Trainer::Trainer(Config config, const Options& options) : parts_(std::make_unique<Parts>(std::move(config), options)) {
  Parts& p = *parts_;
  p.vocabulary = p.corpus.vocabulary();
  p.make_network();
  std::vector<float> arena(p.network->layout().arena_size());
  initialize_parameters(p.network->layout(), p.config.model, p.config.train.seed, arena);
  if (p.config.init_from) {
    const auto told = take_weights(*p.config.init_from, p.network->layout(), p.vocabulary, arena);
    p.notes.insert(p.notes.end(), told.begin(), told.end());
  }
  p.network->write(Arena::kParameters, arena);
  p.start();
}

Trainer::Trainer(Config config, const Checkpoint& from, const Options& options) {
  if (!from.state) throw FormatError("the checkpoint was loaded without its training state");
  refuse_changes(config, from);
  parts_ = std::make_unique<Parts>(std::move(config), options);
  parts_->vocabulary = from.vocabulary;  // never derived again
  parts_->make_network();
  parts_->restore(from);
  parts_->start();
}

Trainer::~Trainer() = default;

void Trainer::Parts::submit() {
  const std::int64_t step = ++submitted;
  const HostWindow window = loader ? loader->next() : HostWindow{};
  const auto now = Clock::now();
  UpdateSettings settings{config.train.optimizer, config.train.clip};
  settings.optimizer.learning_rate =
      learning_rate(config.train.optimizer.learning_rate, config.train.schedule,
                    {.step = step,
                     .steps_per_epoch = plan.training.windows_per_epoch,
                     .total_steps = config.train.epochs * plan.training.windows_per_epoch,
                     .plateau_scale = state.plateau_scale});
  const DropoutKey dropout{static_cast<float>(config.model.dropout), config.train.seed,
                           static_cast<std::uint64_t>(step), 0};
  if (loader) {
    session->submit_step(window.view(), dropout, settings);
  } else {
    session->submit_text_step(plan.training.window_of(step), dropout, settings);
  }
  in_flight.push_back({step, settings.optimizer.learning_rate, now});
}

Trainer::Step Trainer::Parts::collect() {
  const StepResult result = session->next_result();
  const InFlight sent = in_flight.front();
  in_flight.pop_front();
  const auto now = Clock::now();
  const auto begin = std::max(sent.submitted, last_result);
  last_result = now;
  state.step = sent.step;
  state.skipped_in_a_row = result.skipped ? state.skipped_in_a_row + 1 : 0;
  state.skipped_total += result.skipped ? 1 : 0;
  return {.step = sent.step,
          .epoch = static_cast<double>(sent.step) / static_cast<double>(plan.training.windows_per_epoch),
          .nats_per_char = result.nats_per_char,
          .learning_rate = sent.learning_rate,
          .gradient_norm = result.gradient_norm,
          .ms = std::chrono::duration<double, std::milli>(now - begin).count(),
          .device_ms = result.device_ms,
          .skipped = result.skipped};
}

std::vector<Trainer::Step> Trainer::step() {
  Parts& p = *parts_;
  p.submit();
  std::vector<Step> finished;
  while (p.in_flight.size() > static_cast<std::size_t>(p.backend->info().steps_in_flight)) {
    finished.push_back(p.collect());
  }
  return finished;
}

std::vector<Trainer::Step> Trainer::drain() {
  std::vector<Step> finished;
  while (!parts_->in_flight.empty()) finished.push_back(parts_->collect());
  return finished;
}

double Trainer::Parts::evaluate(Network& with, const std::vector<LaneRange>& lanes, const std::string& what) {
  if (lanes.empty()) return std::nan("");
  const EvaluationResult result = evaluate_text(
      with, vocabulary, corpus.text(), lanes, evaluation_steps(lanes.size()), [&](double f) { report(what, f); },
      options.cancelled, corpus.source());
  return result.complete ? result.nats_per_char : std::nan("");
}

double Trainer::validate() { return parts_->evaluate(*parts_->network, parts_->plan.validation, "validation"); }

double Trainer::test(const Checkpoint& with) {
  Parts& p = *parts_;
  const auto network = p.backend->make_network(with.shape(), p.network->precision());
  network->write(Arena::kParameters, with.parameters);
  return p.evaluate(*network, p.plan.test, "test");
}

bool Trainer::record_validation(double nats, bool scheduled) {
  TrainingState& s = parts_->state;
  if (std::isnan(nats)) return false;
  const bool best = nats < s.best_validation;
  if (best) {
    s.best_validation = nats;
    s.best_step = s.step;
  }
  if (!scheduled) return best;  // where a run was cut must change nothing of what follows
  const bool better = nats < s.scheduled_best;
  if (better) s.scheduled_best = nats;
  s.validations_without_best = better ? 0 : s.validations_without_best + 1;
  const ScheduleConfig& schedule = parts_->config.train.schedule;
  if (schedule.kind == ScheduleConfig::Kind::kPlateau) {
    s.plateau_bad = better ? 0 : s.plateau_bad + 1;
    if (s.plateau_bad > schedule.patience) {
      s.plateau_scale *= schedule.factor;
      s.plateau_bad = 0;
    }
  }
  return best;
}

void Trainer::set_best(double nats, std::int64_t step) {
  parts_->state.best_validation = std::isnan(nats) ? std::numeric_limits<double>::infinity() : nats;
  parts_->state.best_step = std::isnan(nats) ? 0 : step;
}

std::string Trainer::sample(const SampleSettings& settings) {
  return sample_texts(*parts_->network, parts_->vocabulary, settings, {}, parts_->options.cancelled).front();
}

std::string Trainer::score_table() {
  Parts& p = *parts_;
  constexpr std::int64_t kMostRows = 8;
  const int V = p.vocabulary.size();
  const std::string_view text = p.corpus.text();
  const int rows = static_cast<int>(std::min(kMostRows, static_cast<std::int64_t>(text.size()) - 1));
  const std::vector<TokenId> ids = p.vocabulary.encode(text.substr(0, static_cast<std::size_t>(rows)), "the text");
  std::vector<float> logits(static_cast<std::size_t>(rows * V));
  p.network->open({1, rows, false})->forward({.steps = rows, .batch = 1, .ids = ids}, logits);
  std::string table = "  input  next ";
  for (int v = 0; v < V; ++v) table += fmt::format("{:>9}", printable(p.vocabulary.byte(v)));
  for (int t = 0; t < rows; ++t) {
    const auto at = static_cast<std::size_t>(t);
    table += fmt::format("\n  {:>5} {:>5}  ", printable(static_cast<std::uint8_t>(text[at])),
                         printable(static_cast<std::uint8_t>(text[at + 1])));
    for (int v = 0; v < V; ++v) table += fmt::format(" {:8.2f}", logits[static_cast<std::size_t>(t * V + v)]);
  }
  return table + "\n";
}

Checkpoint Trainer::checkpoint(double validation_nats) {
  Parts& p = *parts_;
  if (!p.in_flight.empty()) throw ShapeError("Trainer::checkpoint: steps are in flight; call drain() first");
  Checkpoint c;
  c.config = p.config;
  c.vocabulary = p.vocabulary;
  c.step = p.state.step;
  c.validation_nats = validation_nats;
  c.parameters.resize(p.network->layout().arena_size());
  p.network->read(Arena::kParameters, c.parameters);
  if (!std::all_of(c.parameters.begin(), c.parameters.end(), [](float x) { return std::isfinite(x); })) {
    throw RunError(
        fmt::format("a weight is NaN or infinite at step {}: nothing is saved. Lower "
                    "train.optimizer.learning_rate in a new run (--output) with init_from the last checkpoint",
                    c.step));
  }
  TrainingState state = p.state;
  state.moment1.resize(c.parameters.size());
  p.network->read(Arena::kMoment1, state.moment1);
  if (moment_count(p.config.train.optimizer.name) == 2) {
    state.moment2.resize(c.parameters.size());
    p.network->read(Arena::kMoment2, state.moment2);
  }
  const NetworkShape shape = c.shape();
  const auto size = static_cast<std::size_t>(shape.layers) * static_cast<std::size_t>(p.plan.training.batch) *
                    static_cast<std::size_t>(shape.hidden);
  state.h.resize(size);
  if (has_cell_state(shape.cell)) state.c.resize(size);
  p.session->get_state(state.h, state.c);
  const UpdateState updates = p.network->update_state();
  state.loss_scale = updates.loss_scale;
  state.since_overflow = updates.since_overflow;
  c.state = std::move(state);
  return c;
}

const Config& Trainer::config() const { return parts_->config; }
const Vocabulary& Trainer::vocabulary() const { return parts_->vocabulary; }
const StreamPlan& Trainer::plan() const { return parts_->plan; }
const Backend& Trainer::backend() const { return *parts_->backend; }
Backend& Trainer::backend() { return *parts_->backend; }
const Network& Trainer::network() const { return *parts_->network; }
const TrainingState& Trainer::state() const { return parts_->state; }
std::int64_t Trainer::text_characters() const { return static_cast<std::int64_t>(parts_->corpus.text().size()); }
const std::string& Trainer::text_source() const { return parts_->corpus.source(); }
std::int64_t Trainer::steps_done() const { return parts_->state.step; }
std::int64_t Trainer::steps_per_epoch() const { return parts_->plan.training.windows_per_epoch; }
std::int64_t Trainer::total_steps() const { return parts_->config.train.epochs * steps_per_epoch(); }
std::string Trainer::precision_name() const { return std::string(name_of(parts_->network->precision())); }
std::size_t Trainer::memory_bytes() const {
  return parts_->backend->memory_bytes(parts_->network->layout().shape(), parts_->session_shape());
}
const std::vector<std::string>& Trainer::notes() const { return parts_->notes; }

}  // namespace charrnn
