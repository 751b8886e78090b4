// A CUDA backend for tests of what stands on top of the seam: it does what a GPU's may (holds the text, keeps steps in
// flight, has a clock, a loss scale, notes and a profiler) and computes on the CPU, to the same bits.
//
// $FAKE_GPU_TEXT=no     it does not hold the text
// $FAKE_GPU_LOG=FILE    a line there for each thing that was asked of it
#include <cstdlib>
#include <fstream>
#include <string>
#include <utility>

#include "backend/cuda_plugin.h"
#include "cpu/cpu_backend.h"

namespace charrnn {
namespace {

std::string variable(const char* name) {
  const char* const value = std::getenv(name);
  return value == nullptr ? "" : value;
}

void log(const std::string& line) {
  if (const std::string file = variable("FAKE_GPU_LOG"); !file.empty())
    std::ofstream(file, std::ios::app) << line << "\n";
}

constexpr int kStepsInFlight = 3;

class FakeNetwork final : public Network {
 public:
  FakeNetwork(std::unique_ptr<Network> cpu, std::vector<std::string>& notes) : cpu_(std::move(cpu)), notes_(notes) {}
  const ParameterLayout& layout() const override { return cpu_->layout(); }
  Precision precision() const override { return cpu_->precision(); }
  void read(Arena which, std::span<float> to) override { cpu_->read(which, to); }
  void write(Arena which, std::span<const float> from) override { cpu_->write(which, from); }
  UpdateState update_state() override {
    return {.updates = cpu_->update_state().updates, .loss_scale = loss_scale_, .since_overflow = since_overflow_};
  }
  void set_update_state(const UpdateState& state) override {
    cpu_->set_update_state({.updates = state.updates});
    loss_scale_ = state.loss_scale;
    since_overflow_ = state.since_overflow;
  }
  StepResult update(const UpdateSettings& settings) override { return cpu_->update(settings); }
  std::unique_ptr<Session> open(const SessionShape& shape) override;

  void count_step() {
    if (++since_overflow_ % 8 == 0) loss_scale_ *= 2;
    if (since_overflow_ == 2) notes_.emplace_back("fake note: the second step was started");
  }

 private:
  std::unique_ptr<Network> cpu_;
  std::vector<std::string>& notes_;  // the backend's
  double loss_scale_ = 1024;
  std::int64_t since_overflow_ = 0;
};

class FakeSession final : public Session {
 public:
  FakeSession(std::unique_ptr<Session> cpu, FakeNetwork& network) : cpu_(std::move(cpu)), network_(network) {}

  void reset() override { cpu_->reset(); }
  void get_state(std::span<float> h, std::span<float> c) override { cpu_->get_state(h, c); }
  void set_state(std::span<const float> h, std::span<const float> c) override { cpu_->set_state(h, c); }
  void forward(const Window& window, std::span<float> logits) override { cpu_->forward(window, logits); }
  void forward_dense(int steps, std::span<const float> x, std::span<float> logits) override {
    cpu_->forward_dense(steps, x, logits);
  }
  WindowLoss evaluate(const Window& window) override { return cpu_->evaluate(window); }
  WindowLoss gradients(const Window& window, const DropoutKey& key) override { return cpu_->gradients(window, key); }

  void submit_step(const Window& window, const DropoutKey& key, const UpdateSettings& settings) override {
    if (++in_flight_ > kStepsInFlight + 1) throw ShapeError("the fake GPU has too many steps in flight");
    log("step " + std::to_string(key.step));
    cpu_->submit_step(window, key, settings);
    network_.count_step();
  }
  StepResult next_result() override {
    StepResult result = cpu_->next_result();
    --in_flight_;
    result.device_ms = 1.5;
    log("result");
    return result;
  }

  bool hold_text(const TextWindows& windows) override {
    if (variable("FAKE_GPU_TEXT") == "no") return false;
    log("hold text");
    windows_ = windows;
    return true;
  }
  void submit_text_step(std::int64_t index, const DropoutKey& key, const UpdateSettings& settings) override {
    const TextWindows& w = windows_;
    if (index < 0 || index >= w.windows_per_epoch) throw ShapeError("the fake GPU was asked for no window of an epoch");
    const auto batch = static_cast<std::size_t>(w.batch), steps = static_cast<std::size_t>(w.steps);
    std::vector<TokenId> ids(steps * batch), targets(steps * batch);
    for (std::size_t t = 0; t < steps; ++t) {
      for (std::size_t b = 0; b < batch; ++b) {
        const std::size_t at = b * static_cast<std::size_t>(w.stride) + static_cast<std::size_t>(index) * steps + t;
        ids[t * batch + b] = w.ids_of_bytes[static_cast<std::uint8_t>(w.text.at(at))];
        targets[t * batch + b] = w.ids_of_bytes[static_cast<std::uint8_t>(w.text.at(at + 1))];
      }
    }
    const std::vector<std::uint8_t> reset(index == 0 ? batch : 0, 1);
    submit_step({.steps = w.steps,
                 .batch = w.batch,
                 .ids = ids,
                 .targets = targets,
                 .weights = {},
                 .reset = reset,
                 .loss_scale = static_cast<float>(1.0 / static_cast<double>(steps * batch))},
                key, settings);
  }

 private:
  std::unique_ptr<Session> cpu_;
  FakeNetwork& network_;
  TextWindows windows_;
  int in_flight_ = 0;
};

std::unique_ptr<Session> FakeNetwork::open(const SessionShape& shape) {
  return std::make_unique<FakeSession>(cpu_->open(shape), *this);
}

class FakeBackend final : public Backend {
 public:
  explicit FakeBackend(Implementation implementation) : cpu_(cpu::make_cpu_backend(2)) {
    info_.backend = "cuda";
    info_.name = "Fake GPU";
    info_.precisions = {Precision::kFp32};
    info_.steps_in_flight = kStepsInFlight;
    info_.accelerator = true;
    info_.implementation = implementation == Implementation::kCudnn ? "cudnn" : "fused";
  }
  const DeviceInfo& info() const override { return info_; }
  std::unique_ptr<Network> make_network(const NetworkShape& shape, Precision precision) override {
    notes_.emplace_back("fake note: a network was made");
    return std::make_unique<FakeNetwork>(cpu_->make_network(shape, precision), notes_);
  }
  std::size_t memory_bytes(const NetworkShape& shape, const SessionShape& session) const override {
    return cpu_->memory_bytes(shape, session);
  }
  double product_gflops(int m, int /*n*/, int /*k*/, Precision /*precision*/) override {
    return m == 8192 ? 2000 : 1000;
  }
  DeviceUse use() const override { return {.peak_bytes = std::size_t{5} << 20U, .launches_a_step = 42}; }
  void profile(bool on) override { log(on ? "profile on" : "profile off"); }
  std::vector<std::string> take_notes() override { return std::exchange(notes_, {}); }

 private:
  std::unique_ptr<Backend> cpu_;
  DeviceInfo info_;
  std::vector<std::string> notes_;
};

CudaStatus status() {
  CudaStatus status;
  status.devices.push_back({.index = 0,
                            .name = "Fake GPU",
                            .usable = true,
                            .reason = "",
                            .precisions = {Precision::kFp32},
                            .memory_bytes = std::size_t{3} << 30U});
  status.cudnn = "9.99";
  return status;
}

std::unique_ptr<Backend> open(int /*device*/, Implementation implementation) {
  return std::make_unique<FakeBackend>(implementation);
}

}  // namespace

extern "C" __attribute__((visibility("default"))) const CudaPlugin* charrnn_cuda_plugin() {
  static const CudaPlugin plugin{.abi = kCudaPluginAbi, .status = &status, .open = &open};
  return &plugin;
}

}  // namespace charrnn
