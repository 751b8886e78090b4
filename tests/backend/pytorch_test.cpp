// Backends against PyTorch's float64 numbers (tools/pytorch/make_fixtures.py).
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "backend/backend.h"
#include "support/approx.h"
#include "support/catch.h"
#include "support/fixtures.h"
#include "support/test_device.h"

using namespace charrnn;
using charrnn::testing::Fixture;
using charrnn::testing::FixtureTraining;
using charrnn::testing::FixtureWindow;
using tests::Tolerance;

namespace {

/// A fixture's network on the CPU, with its parameters and state, open for training.
struct Engine {
  const Fixture& f;
  std::unique_ptr<Backend> backend;
  std::unique_ptr<Network> network;
  std::unique_ptr<Session> session;

  explicit Engine(const Fixture& fixture, Precision precision = Precision::kFp32)
      : f(fixture),
        backend(tests::open_test_backend(2)),
        network(backend->make_network(f.shape, precision)),
        session(network->open({f.batch, f.steps, true})) {
    network->write(Arena::kParameters, charrnn::testing::to_floats(f.parameters));
    session->set_state(charrnn::testing::to_floats(f.h), charrnn::testing::to_floats(f.c));
  }

  std::vector<float> read(Arena which) const {
    std::vector<float> all(f.layout.arena_size());
    network->read(which, all);
    return all;
  }
};

/// Floats that a window of the seam can point to.
struct HeldWindow {
  const FixtureWindow& of;
  std::vector<float> weights;
  explicit HeldWindow(const FixtureWindow& w) : of(w), weights(charrnn::testing::to_floats(w.weights)) {}
  Window view(const Fixture& f) const {
    return {f.steps, f.batch, of.ids, of.targets, weights, of.reset, static_cast<float>(1 / of.weight_sum())};
  }
};

}  // namespace

TEST_CASE("a backend equals PyTorch: logits, state, loss and gradients", "[backend][pytorch][window]") {
  const std::string cell = GENERATE(from_range(charrnn::testing::fixture_cells()));
  const Fixture f = charrnn::testing::read_fixture(cell);
  CAPTURE(cell, f.seed, f.torch_version);
  const Tolerance tolerance = Tolerance::network(f.shape, f.steps, f.batch, tests::test_epsilon());
  const HeldWindow window(f.window);

  Engine forward(f, tests::test_precision());
  std::vector<float> logits(f.logits.size());
  forward.session->forward(window.view(f), logits);
  CHECK_ALL_CLOSE(logits, f.logits, tolerance);

  Engine engine(f, tests::test_precision());
  const WindowLoss loss = engine.session->gradients(window.view(f), {});
  CHECK(loss.nats == Approx(f.nats).epsilon(tolerance.relative));
  CHECK(loss.weight == Approx(f.weight).epsilon(tolerance.relative));
  CHECK(loss.correct == Approx(f.correct).epsilon(tolerance.relative));
  std::vector<float> h(f.h.size()), c(f.c.size());
  engine.session->get_state(h, c);
  CHECK_ALL_CLOSE(h, f.final_h, tolerance);
  CHECK_ALL_CLOSE(c, f.final_c, tolerance);
  CHECK_ALL_CLOSE(engine.read(Arena::kGradients), f.gradients, tolerance);
}

// Ten windows feed each other through the state and the parameters: as many chained steps as they have in all. That
// RMSProp, Adam and Adagrad divide a gradient by its size does not show at these sizes: all but a few gradients are
// well above their rounding, and the rates are small.
TEST_CASE("a backend equals PyTorch: ten steps of each optimizer", "[backend][pytorch]") {
  const std::string cell = GENERATE(from_range(charrnn::testing::fixture_cells()));
  const Fixture f = charrnn::testing::read_fixture(cell);
  REQUIRE(f.training.size() == 4);
  const Tolerance tolerance =
      Tolerance::network(f.shape, f.steps * static_cast<int>(f.training_windows.size()), f.batch);
  for (const FixtureTraining& training : f.training) {
    CAPTURE(cell, f.seed, f.torch_version, training.name);
    Engine engine(f);
    std::vector<double> losses, norms;
    for (std::size_t k = 0; k < f.training_windows.size(); ++k) {
      const HeldWindow window(f.training_windows[k]);
      engine.session->submit_step(window.view(f), {}, {training.optimizer, training.clip});
      const StepResult result = engine.session->next_result();
      REQUIRE_FALSE(result.skipped);
      losses.push_back(result.nats_per_char);
      norms.push_back(result.gradient_norm);
    }
    CHECK_ALL_CLOSE(losses, training.losses, tolerance);
    CHECK_ALL_CLOSE(norms, training.gradient_norms, tolerance);
    CHECK_ALL_CLOSE(engine.read(Arena::kParameters), training.parameters, tolerance);
  }
}
