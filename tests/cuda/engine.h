// The CUDA backend within the test's own process, on the device made of the CPU (tests/host_cuda).
#pragma once

#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "cuda/cuda_backend.h"
#include "host_cuda/host_cuda.h"
#include "model/initialize.h"
#include "support/catch.h"

namespace charrnn::tests {

/// A device as after a reset. Whatever was found on it, or is left on it at the end, fails the test.
class FreshDevice {
 public:
  explicit FreshDevice(const host_cuda::Settings& settings = {}) { host_cuda::reset(settings); }
  ~FreshDevice() {
    for (const host_cuda::Report& report : host_cuda::take_reports()) CHECK(report.kind + ": " + report.text == "");
    for (const std::string& leak : host_cuda::leaks()) CHECK(leak + " was left" == "");
  }
  FreshDevice(const FreshDevice&) = delete;
  FreshDevice& operator=(const FreshDevice&) = delete;
};

/// A small network and what it is run on; sizes are odd and distinct.
struct Small {
  Implementation implementation = Implementation::kFused;
  Precision precision = Precision::kFp32;
  NetworkShape network{Cell::kLstm, 2, 13, 11};
  SessionShape session{3, 9, true};  // two parts of a window that layers work on at the same time
};

inline std::vector<float> parameters_for(const Network& network) {
  std::vector<float> p(network.layout().arena_size());
  Rng rng(7);
  for (float& x : p) x = static_cast<float>(0.3 * rng.normal());
  return p;
}

inline std::vector<float> arena_of(Network& network, Arena which) {
  std::vector<float> all(network.layout().arena_size());
  network.read(which, all);
  return all;
}

/// Equal to the bit.
inline bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0);
}

struct States {
  std::vector<float> h, c;
};
inline States states_of(Session& session, const NetworkShape& n, int batch) {
  States s;
  s.h.resize(static_cast<std::size_t>(n.layers) * static_cast<std::size_t>(batch) * static_cast<std::size_t>(n.hidden));
  if (has_cell_state(n.cell)) s.c.resize(s.h.size());
  session.get_state(s.h, s.c);
  return s;
}

/// Backend, network with weights, session.
struct Engine {
  explicit Engine(const Small& s) : Engine(s, cuda::make_cuda_backend(0, s.implementation)) {}
  Engine(const Small& s, std::unique_ptr<Backend> on)
      : backend(std::move(on)), network(backend->make_network(s.network, s.precision)) {
    network->write(Arena::kParameters, parameters_for(*network));
    session = network->open(s.session);
  }

  std::unique_ptr<Backend> backend;
  std::unique_ptr<Network> network;
  std::unique_ptr<Session> session;
};

/// Characters and targets of one window; window n is the same for everyone.
struct HostWindow {
  std::vector<TokenId> ids, targets;
  std::vector<float> weights;
  std::vector<std::uint8_t> reset;
  Window view;

  HostWindow(const Small& s, int number, int steps = 0) {
    const int T = steps > 0 ? steps : s.session.max_steps;
    Rng rng(100 + static_cast<std::uint64_t>(number));
    const auto any = [&] { return static_cast<TokenId>(rng.next_u32() % static_cast<unsigned>(s.network.vocabulary)); };
    for (int i = 0; i < T * s.session.batch; ++i) {
      ids.push_back(any());
      targets.push_back(any());
    }
    reset.assign(static_cast<std::size_t>(s.session.batch), 0);
    reset[static_cast<std::size_t>(number % s.session.batch)] = number % 3 == 0 ? 1 : 0;
    view = {.steps = T,
            .batch = s.session.batch,
            .ids = ids,
            .targets = targets,
            .weights = {},
            .reset = reset,
            .loss_scale = 1.0F / static_cast<float>(T * s.session.batch)};
  }
  HostWindow(const HostWindow&) = delete;
  HostWindow& operator=(const HostWindow&) = delete;
};

inline DropoutKey dropout_at(int step) { return {0.25F, 5, static_cast<std::uint64_t>(step), 0}; }

inline UpdateSettings update_with(OptimizerKind kind = OptimizerKind::kAdam, double learning_rate = 0.01) {
  UpdateSettings settings;
  settings.optimizer.name = kind;
  settings.optimizer.learning_rate = learning_rate;
  settings.clip.kind = ClipConfig::Kind::kNorm;
  settings.clip.threshold = 0.5;
  return settings;
}

}  // namespace charrnn::tests
