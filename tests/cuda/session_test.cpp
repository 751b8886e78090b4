// What the seam promises of steps in flight, of graphs that are replayed, and of sessions side by side.
#include <cmath>
#include <limits>

#include "charrnn/error.h"
#include "charrnn/sampler.h"
#include "cpu/cpu_backend.h"
#include "cuda/engine.h"
#include "kernels/philox.h"
#include "support/approx.h"

namespace charrnn::tests {
namespace {

constexpr Implementation kImplementations[] = {Implementation::kFused, Implementation::kCudnn};

std::vector<Small> all_kinds() {
  std::vector<Small> all;
  for (const Implementation implementation : kImplementations) {
    for (const Precision precision : {Precision::kFp32, Precision::kFp16}) all.push_back({implementation, precision});
  }
  return all;
}

std::string describe(const Small& s) {
  return std::string(name_of(s.implementation)) + " " + std::string(name_of(s.precision));
}

std::unique_ptr<Backend> cpu_backend() { return cpu::make_cpu_backend(1); }

StepResult step(Session& session, const Small& s, int number, double learning_rate = 0.01) {
  const HostWindow window(s, number);
  session.submit_step(window.view, dropout_at(number), update_with(OptimizerKind::kAdam, learning_rate));
  return session.next_result();
}

/// The loss of a window by a network that was just made from these weights.
WindowLoss fresh_loss(const Small& s, Backend& backend, const std::vector<float>& parameters,
                      const HostWindow& window) {
  const auto network = backend.make_network(s.network, s.precision);
  network->write(Arena::kParameters, parameters);
  const auto session = network->open({s.session.batch, s.session.max_steps, false});
  return session->evaluate(window.view);
}

TEST_CASE("a session beside the one that trains sees the newest weights", "[cuda]") {
  for (const Small& s : all_kinds()) {
    INFO(describe(s));
    const FreshDevice device({.seed = 3});
    Engine e(s);
    const auto beside = e.network->open({s.session.batch, s.session.max_steps, false});
    int number = 0;
    for (int round = 0; round < 3; ++round) {
      for (int i = 0; i < 3; ++i) step(*e.session, s, number++);  // the second of the first round makes the graph
      const HostWindow window(s, 50 + round);
      beside->reset();
      const WindowLoss seen = beside->evaluate(window.view);
      const WindowLoss expected = fresh_loss(s, *e.backend, arena_of(*e.network, Arena::kParameters), window);
      CHECK(seen.nats == expected.nats);
      CHECK(seen.correct == expected.correct);
    }
  }
}

TEST_CASE("weights that the host writes are seen by the next step of a graph", "[cuda]") {
  for (const Small& s : all_kinds()) {
    INFO(describe(s));
    const FreshDevice device({.seed = 4});
    Engine e(s), other(s);
    for (int i = 0; i < 3; ++i) {
      step(*e.session, s, i);
      step(*other.session, s, 10 + i);
    }
    // Weights, moments and counts of one to the other, as a run does that goes on; both make the same step.
    for (const Arena which : {Arena::kParameters, Arena::kMoment1, Arena::kMoment2}) {
      other.network->write(which, arena_of(*e.network, which));
    }
    other.network->set_update_state(e.network->update_state());
    const States states = states_of(*e.session, s.network, s.session.batch);
    other.session->set_state(states.h, states.c);
    CHECK(step(*e.session, s, 20).nats_per_char == step(*other.session, s, 20).nats_per_char);
    CHECK(same_bits(arena_of(*e.network, Arena::kParameters), arena_of(*other.network, Arena::kParameters)));
  }
}

TEST_CASE("the host may be 32 steps ahead, and one that is too far ahead is refused", "[cuda]") {
  constexpr int kSteps = 70;  // round the ring of results more than once
  for (const Implementation implementation : kImplementations) {
    const Small s{implementation, Precision::kFp32, {Cell::kGru, 1, 5, 7}, {2, 3, true}};
    INFO(describe(s));
    const FreshDevice device({.seed = 6});
    Engine waits(s), ahead(s);
    std::vector<StepResult> expected;
    for (int i = 0; i < kSteps; ++i) expected.push_back(step(*waits.session, s, i));

    const int most = ahead.backend->info().steps_in_flight;
    REQUIRE(most == 32);
    int read = 0;
    const auto read_one = [&] {
      const StepResult r = ahead.session->next_result();
      CHECK(r.nats_per_char == expected[static_cast<std::size_t>(read)].nats_per_char);
      CHECK(r.gradient_norm == expected[static_cast<std::size_t>(read)].gradient_norm);
      ++read;
    };
    for (int i = 0; i < kSteps; ++i) {
      const HostWindow window(s, i);  // gone when the call returns
      ahead.session->submit_step(window.view, dropout_at(i), update_with());
      if (i + 1 - read > most) read_one();
    }
    while (read < kSteps) read_one();
    CHECK(same_bits(arena_of(*waits.network, Arena::kParameters), arena_of(*ahead.network, Arena::kParameters)));
    CHECK_THROWS_AS(ahead.session->next_result(), ShapeError);

    int sent = 0;
    const auto send_all = [&] {
      for (; sent < 1000; ++sent) {
        const HostWindow window(s, sent);
        ahead.session->submit_step(window.view, dropout_at(sent), update_with());
      }
    };
    CHECK_THROWS_AS(send_all(), ShapeError);
    CHECK(sent >= most);
    for (int i = 0; i < sent; ++i) {  // none has been written over
      CHECK(ahead.session->next_result().nats_per_char == step(*waits.session, s, i).nats_per_char);
    }
    CHECK_THROWS_AS(ahead.session->next_result(), ShapeError);
  }
}

/// SGD: the others divide a gradient by its own size, which magnifies the rounding of one near zero.
UpdateSettings sgd(double learning_rate = 0.1) { return update_with(OptimizerKind::kSgd, learning_rate); }

/// The same steps on the CPU backend and on the device: losses, and the weights at the end.
class BesideCpu {
 public:
  explicit BesideCpu(const Small& s) : small_(s), gpu_(s), cpu_(cpu_setting(s), cpu_backend()) {}

  void step(const HostWindow& window, int number, const UpdateSettings& update) {
    for (Session* session : {gpu_.session.get(), cpu_.session.get()}) {
      session->submit_step(window.view, dropout_at(number), update);
    }
    const StepResult a = gpu_.session->next_result(), b = cpu_.session->next_result();
    INFO("step " << number);
    CHECK(a.skipped == b.skipped);
    if (a.skipped) return;
    ++steps_;
    CHECK_ALL_CLOSE(std::vector<double>{a.nats_per_char}, std::vector<double>{b.nats_per_char}, tolerance());
    CHECK_ALL_CLOSE(std::vector<double>{a.gradient_norm}, std::vector<double>{b.gradient_norm}, tolerance());
  }
  void write_moments(float value) {
    for (Engine* const e : {&gpu_, &cpu_}) {
      e->network->write(Arena::kMoment1, std::vector<float>(e->network->layout().arena_size(), value));
    }
  }
  void check_weights() {
    const Tolerance of_both{2 * tolerance().relative};  // each is off by as much
    CHECK_ALL_CLOSE(arena_of(*gpu_.network, Arena::kParameters), arena_of(*cpu_.network, Arena::kParameters), of_both);
  }
  Engine& gpu() { return gpu_; }
  Engine& cpu() { return cpu_; }
  /// Steps feed each other as the steps of a window do.
  Tolerance tolerance() const {
    return Tolerance::network(small_.network, small_.session.max_steps * std::max(1, steps_), small_.session.batch);
  }

 private:
  static Small cpu_setting(Small s) {
    s.precision = Precision::kFp32;
    return s;
  }
  Small small_;
  Engine gpu_, cpu_;
  int steps_ = 0;
};

TEST_CASE("windows shorter than the longest train as on the CPU, each length with a graph of its own", "[cuda]") {
  for (const Implementation implementation : kImplementations) {
    for (const Cell cell : {Cell::kLstm, Cell::kGru}) {
      const Small s{implementation, Precision::kFp32, {cell, 2, 13, 11}, {3, 6, true}};
      INFO(describe(s));
      const FreshDevice device({.seed = 7});
      BesideCpu both(s);
      constexpr int kLengths[] = {6, 4, 6, 4, 1, 6, 1, 4, 1};
      int number = 0;
      for (const int length : kLengths) {
        const HostWindow window(s, number, length);
        both.step(window, number, sgd());
        ++number;
      }
      both.check_weights();
    }
  }
}

TEST_CASE("the learning rate, the optimizer and the clip may change between replays of a graph", "[cuda]") {
  for (const Implementation implementation : kImplementations) {
    const Small s{implementation};
    INFO(describe(s));
    const FreshDevice device({.seed = 8});
    BesideCpu both(s);
    for (int i = 0; i < 12; ++i) {
      UpdateSettings update = i == 9 ? update_with(OptimizerKind::kAdagrad) : sgd(0.2 / (1 + i / 3));
      if (i == 9) both.write_moments(1.0F);  // of SGD they may be negative; and as large as this they magnify nothing
      if (i % 4 == 3) update.clip = {ClipConfig::Kind::kValue, 0.01};
      if (i == 6) update.clip.kind = ClipConfig::Kind::kNone;
      const HostWindow window(s, i);
      both.step(window, i, update);
    }
    both.check_weights();
  }
}

TEST_CASE("a step whose gradient is not finite changes nothing within a graph, and training goes on", "[cuda]") {
  for (const Implementation implementation : kImplementations) {
    const Small s{implementation};
    INFO(describe(s));
    const FreshDevice device({.seed = 9});
    BesideCpu both(s);
    for (int i = 0; i < 9; ++i) {
      const bool bad = i == 4 || i == 5;
      HostWindow window(s, 3 * i + 1);
      std::vector<float> weights(window.ids.size(), 1.0F);
      if (i == 4) window.view.loss_scale = std::numeric_limits<float>::quiet_NaN();
      if (i == 5) {
        weights[2] = std::numeric_limits<float>::infinity();
        window.view.weights = weights;
      }
      const auto before = arena_of(*both.gpu().network, Arena::kParameters);
      const auto moment = arena_of(*both.gpu().network, Arena::kMoment1);
      both.step(window, i, sgd());
      CHECK(same_bits(before, arena_of(*both.gpu().network, Arena::kParameters)) == bad);
      CHECK(same_bits(moment, arena_of(*both.gpu().network, Arena::kMoment1)) == bad);
      if (!bad) continue;
      const States states = states_of(*both.gpu().session, s.network, s.session.batch);
      CHECK(same_bits(states.h, std::vector<float>(states.h.size())));
      CHECK(same_bits(states.c, std::vector<float>(states.c.size())));
    }
    CHECK(both.gpu().network->update_state().updates == 7);
    both.check_weights();
  }
}

TEST_CASE("an overflow of fp16 halves the loss scale, and 2000 steps without one double it", "[cuda]") {
  for (const Implementation implementation : kImplementations) {
    const Small s{implementation, Precision::kFp16};
    INFO(describe(s));
    const FreshDevice device({.seed = 10});
    Engine e(s);
    e.network->set_update_state({.updates = 20, .loss_scale = 1024, .since_overflow = 1997});
    for (int i = 0; i < 2; ++i) CHECK_FALSE(step(*e.session, s, i).skipped);
    CHECK(e.network->update_state() == UpdateState{22, 1024, 1999});
    CHECK_FALSE(step(*e.session, s, 2).skipped);
    CHECK(e.network->update_state() == UpdateState{23, 2048, 2000});

    const auto before = arena_of(*e.network, Arena::kParameters);
    HostWindow window(s, 3);
    window.view.loss_scale = 1000;  // times 2048: more than fp16 holds
    e.session->submit_step(window.view, dropout_at(3), update_with());
    CHECK(e.session->next_result().skipped);
    CHECK(e.network->update_state() == UpdateState{23, 1024, 0});
    CHECK(same_bits(before, arena_of(*e.network, Arena::kParameters)));
    CHECK_FALSE(step(*e.session, s, 4).skipped);
    CHECK(e.network->update_state() == UpdateState{24, 1024, 1});

    e.network->set_update_state({.updates = 24, .loss_scale = 1, .since_overflow = 5});
    window.view.loss_scale = 1e6F;
    e.session->submit_step(window.view, dropout_at(5), update_with());
    CHECK(e.session->next_result().skipped);
    CHECK(e.network->update_state() == UpdateState{24, 1, 0});  // the smallest
    e.network->set_update_state({.updates = 24, .loss_scale = 16777216, .since_overflow = 1999});
    window.view.loss_scale = 1e-9F;
    e.session->submit_step(window.view, dropout_at(6), update_with());
    CHECK_FALSE(e.session->next_result().skipped);
    CHECK(e.network->update_state() == UpdateState{25, 16777216, 2000});  // the largest
  }
}

TEST_CASE("the loss scale of fp16 is in none of the results", "[cuda]") {
  for (const Implementation implementation : kImplementations) {
    const Small s{implementation, Precision::kFp16};
    INFO(describe(s));
    const FreshDevice device;
    Engine one(s), other(s);
    one.network->set_update_state({.updates = 0, .loss_scale = 256, .since_overflow = 0});
    other.network->set_update_state({.updates = 0, .loss_scale = 4096, .since_overflow = 0});
    for (int i = 0; i < 4; ++i) {
      const StepResult a = step(*one.session, s, i), b = step(*other.session, s, i);
      // Powers of two move no bit but those of gradients below fp16's smallest, of which a few are lost.
      const Tolerance tolerance{0x1p-10};
      CHECK_ALL_CLOSE(std::vector<double>{a.nats_per_char}, std::vector<double>{b.nats_per_char}, tolerance);
      CHECK_ALL_CLOSE(std::vector<double>{a.gradient_norm}, std::vector<double>{b.gradient_norm}, tolerance);
    }
    const HostWindow window(s, 9);
    static_cast<void>(one.session->gradients(window.view, dropout_at(9)));
    const auto a = arena_of(*one.network, Arena::kGradients);
    other.network->write(Arena::kParameters, arena_of(*one.network, Arena::kParameters));
    const States states = states_of(*one.session, s.network, s.session.batch);
    const HostWindow next(s, 10);
    other.session->set_state(states.h, states.c);
    static_cast<void>(one.session->gradients(next.view, dropout_at(10)));
    static_cast<void>(other.session->gradients(next.view, dropout_at(10)));
    CHECK_ALL_CLOSE(arena_of(*one.network, Arena::kGradients), arena_of(*other.network, Arena::kGradients),
                    Tolerance{0x1p-10});
  }
}

/// Lane b of a text by hand.
struct HeldText {
  std::string text;
  std::vector<TokenId> ids_of_bytes;
  TextWindows windows;

  explicit HeldText(const Small& s, std::int64_t windows_per_epoch) : ids_of_bytes(256, -1) {
    for (int v = 0; v < s.network.vocabulary; ++v) ids_of_bytes[static_cast<std::size_t>('a' + v)] = v;
    windows = {.batch = s.session.batch,
               .steps = s.session.max_steps,
               .stride = windows_per_epoch * s.session.max_steps + 1,  // not a multiple of T
               .windows_per_epoch = windows_per_epoch};
    Rng rng(12);
    const auto size = static_cast<std::size_t>(windows.stride * s.session.batch + 1);
    while (text.size() < size) {
      text.push_back(
          static_cast<char>('a' + static_cast<int>(rng.next_u32() % static_cast<unsigned>(s.network.vocabulary))));
    }
    windows.text = text;
    windows.ids_of_bytes = ids_of_bytes;
  }
  TokenId at(std::int64_t position) const {
    return ids_of_bytes[static_cast<unsigned char>(text[static_cast<std::size_t>(position)])];
  }
  void fill(HostWindow& to, std::int64_t number) const {
    const std::int64_t B = windows.batch;
    for (std::int64_t t = 0; t < windows.steps; ++t) {
      for (std::int64_t b = 0; b < B; ++b) {
        const std::int64_t from = b * windows.stride + number * windows.steps + t;
        to.ids[static_cast<std::size_t>(t * B + b)] = at(from);
        to.targets[static_cast<std::size_t>(t * B + b)] = at(from + 1);
      }
    }
    for (std::uint8_t& r : to.reset) r = number == 0 ? 1 : 0;
  }
};

TEST_CASE("windows cut on the device are those that the host sends", "[cuda]") {
  for (const Small& s : all_kinds()) {
    INFO(describe(s));
    const FreshDevice device({.seed = 11});
    Engine held(s), sent(s);
    const HeldText text(s, 5);
    REQUIRE(held.session->hold_text(text.windows));
    for (int i = 0; i < 12; ++i) {
      const std::int64_t number = i < 8 ? i % 5 : i % 2;  // epochs; then there and back, as no run does
      held.session->submit_text_step(number, dropout_at(i), update_with());
      HostWindow window(s, i);
      text.fill(window, number);
      sent.session->submit_step(window.view, dropout_at(i), update_with());
      CHECK(held.session->next_result().nats_per_char == sent.session->next_result().nats_per_char);
    }
    CHECK(same_bits(arena_of(*held.network, Arena::kParameters), arena_of(*sent.network, Arena::kParameters)));
    CHECK_THROWS_AS(held.session->submit_text_step(5, dropout_at(0), update_with()), ShapeError);
    CHECK_THROWS_AS(held.session->submit_text_step(-1, dropout_at(0), update_with()), ShapeError);
    CHECK_THROWS_AS(sent.session->submit_text_step(0, dropout_at(0), update_with()), ShapeError);
  }
}

TEST_CASE("a text with a byte outside the vocabulary is refused by its offset, and one that is too large is not held",
          "[cuda]") {
  const Small s;
  const FreshDevice device({.memory_bytes = std::size_t{133} << 20U});  // most of it for products
  Engine e(s);
  HeldText text(s, 5);
  text.text[17] = '#';
  try {
    static_cast<void>(e.session->hold_text(text.windows));
    FAIL("not refused");
  } catch (const DataError& error) {
    CHECK(std::string(error.what()).find("byte 35 at offset 17") != std::string::npos);
  }
  text.text[17] = 'a';
  text.text.resize(std::size_t{12} << 20U, 'a');
  text.windows.text = text.text;
  CHECK_FALSE(e.session->hold_text(text.windows));
  CHECK_FALSE(step(*e.session, s, 0).skipped);  // goes on with windows
}

TEST_CASE("what the device draws is what the host draws from the same scores", "[cuda]") {
  struct Way {
    double temperature;
    int top_k;
    bool greedy;
  };
  constexpr int kSteps = 260;  // more than are drawn at once
  for (const Implementation implementation : kImplementations) {
    for (const Way& way : {Way{1.0, 0, false}, Way{0.4, 3, false}, Way{1.7, 1, false}, Way{1.0, 0, true}}) {
      const Small s{implementation, Precision::kFp32, {Cell::kGru, 1, 5, 9}, {3, 2, false}};
      INFO(describe(s) << " temperature " << way.temperature << " top_k " << way.top_k << " greedy " << way.greedy);
      const FreshDevice device({.seed = 12});
      Engine e(s);
      const std::vector<TokenId> first{4, 0, 8};
      const DrawSettings draws{.temperature = way.temperature,
                               .top_k = way.top_k,
                               .greedy = way.greedy,
                               .seed = 99,
                               .first_stream = 2,
                               .stream_step = std::uint64_t{1} << 32U,
                               .first_draw = 5};
      std::vector<TokenId> drawn(kSteps * first.size());
      REQUIRE(e.session->generate(kSteps, first, draws, drawn));
      const States end = states_of(*e.session, s.network, s.session.batch);

      const auto host = e.network->open(s.session);
      SampleSettings settings;
      settings.temperature = way.temperature;
      settings.top_k = way.top_k;
      settings.greedy = way.greedy;
      const int V = s.network.vocabulary;
      std::vector<TokenId> ids = first, expected;
      std::vector<float> logits(first.size() * static_cast<std::size_t>(V));
      for (int n = 0; n < kSteps; ++n) {
        host->forward({.steps = 1, .batch = s.session.batch, .ids = ids}, logits);
        for (std::size_t b = 0; b < ids.size(); ++b) {
          const double random = stream_uniform(draws.seed, draws.first_stream + b * draws.stream_step,
                                               static_cast<std::uint64_t>(draws.first_draw + n));
          ids[b] = draw(&logits[b * static_cast<std::size_t>(V)], V, settings, random);
        }
        expected.insert(expected.end(), ids.begin(), ids.end());
      }
      CHECK(drawn == expected);
      const States host_end = states_of(*host, s.network, s.session.batch);
      CHECK(same_bits(end.h, host_end.h));
    }
  }
}

TEST_CASE("scores that are not finite are an error of drawing, and drawing works again after it", "[cuda]") {
  const Small s{Implementation::kFused, Precision::kFp32, {Cell::kLstm, 1, 5, 9}, {2, 2, false}};
  const FreshDevice device;
  Engine e(s);
  const std::vector<TokenId> ids{1, 2};
  std::vector<TokenId> drawn(6);
  auto weights = arena_of(*e.network, Arena::kParameters);
  const auto good = weights;
  weights[e.network->layout().head_bias().offset + 3] = std::numeric_limits<float>::quiet_NaN();
  e.network->write(Arena::kParameters, weights);
  CHECK_THROWS_AS(e.session->generate(3, ids, {}, drawn), RunError);
  e.network->write(Arena::kParameters, good);
  e.session->reset();
  CHECK(e.session->generate(3, ids, {}, drawn));
}

}  // namespace
}  // namespace charrnn::tests
