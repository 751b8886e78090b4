// Calls that fail, memory that is short, and a device that breaks: a clear error, nothing left behind, no crash.
#include <algorithm>
#include <optional>

#include "charrnn/error.h"
#include "cuda/engine.h"
#include "devices/cuda_library.h"
#include "support/environment.h"
#include "train/runs.h"

// What test_plugin.cpp, the library that the program's own code opens, hands on.
extern "C" const charrnn::CudaPlugin* charrnn_cuda_plugin();
extern "C" const charrnn::CudaPlugin* plugin_of_the_test() { return charrnn_cuda_plugin(); }

namespace charrnn::tests {
namespace {

constexpr std::size_t kMiB = std::size_t{1} << 20U;

/// @returns what it was that failed, or nothing
template <class F>
std::optional<std::string> device_error_of(const F& work) {
  try {
    work();
  } catch (const DeviceError& error) {
    CHECK(error.code() == ExitCode::kDevice);
    return error.what();
  }
  return std::nullopt;
}

/// All that a run does once: both ways of feeding a session, the graph's making and replay, validation, drawing, and
/// what a checkpoint reads.
std::vector<float> everything(const Small& s, std::vector<std::string>* notes = nullptr) {
  Engine e(s);
  for (int i = 0; i < 2; ++i) {  // the second is captured and replayed
    const HostWindow window(s, i);
    e.session->submit_step(window.view, dropout_at(i), update_with());
  }
  for (int i = 0; i < 2; ++i) static_cast<void>(e.session->next_result());
  std::vector<TokenId> ids_of_bytes(256, 1);
  const std::string text(60, 'x');
  const bool held = e.session->hold_text({.text = text,
                                          .ids_of_bytes = ids_of_bytes,
                                          .batch = s.session.batch,
                                          .steps = s.session.max_steps,
                                          .stride = 2 * s.session.max_steps,
                                          .windows_per_epoch = 2});
  CHECK(held);
  for (int i = 2; i < 4; ++i) e.session->submit_text_step(i % 2, dropout_at(i), update_with());
  for (int i = 0; i < 2; ++i) static_cast<void>(e.session->next_result());
  const HostWindow window(s, 9);
  const auto beside = e.network->open({s.session.batch, s.session.max_steps, false});
  const double nats = beside->evaluate(window.view).nats;  // what throws stands outside of CHECK, which would catch it
  CHECK(std::isfinite(nats));
  std::vector<TokenId> drawn(3 * static_cast<std::size_t>(s.session.batch));
  const std::vector<TokenId> first(static_cast<std::size_t>(s.session.batch), 0);
  const bool has_drawn = beside->generate(3, first, {}, drawn);
  CHECK(has_drawn);
  const States states = states_of(*e.session, s.network, s.session.batch);
  e.session->set_state(states.h, states.c);
  e.network->set_update_state(e.network->update_state());
  e.backend->profile(true);
  e.backend->profile(false);
  if (notes != nullptr) *notes = e.backend->take_notes();
  return arena_of(*e.network, Arena::kParameters);
}

bool has(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

void fail_each_call(const Small& s) {
  std::int64_t calls = 0;
  std::vector<float> good;
  {
    const FreshDevice device;
    good = everything(s);
    calls = host_cuda::calls();
  }
  REQUIRE(calls > 200);
  std::int64_t errors = 0, fallbacks = 0;
  for (std::int64_t n = 1; n <= calls; ++n) {
    INFO("call " << n << " of " << calls);
    const FreshDevice device({.seed = static_cast<std::uint64_t>(n), .fail_at = n});
    std::vector<float> weights;
    std::vector<std::string> notes;
    const auto error = device_error_of([&] { weights = everything(s, &notes); });
    // Where a capture was cut off, its streams had not joined: CUDA ends it all the same.
    for (const host_cuda::Report& report : host_cuda::take_reports()) {
      const bool cut = report.kind == "capture" && has(report.text, "a forked stream had not joined again");
      if (!cut) CHECK(report.kind + ": " + report.text == "");
    }
    const bool without_cudnn = std::any_of(notes.begin(), notes.end(), [](const std::string& note) {
      return has(note, "not by cuDNN: ") || has(note, "cuDNN's standard kernels");
    });
    if (error) {
      INFO(*error);
      CHECK((error->starts_with("cuda") || error->starts_with("cudnn: ")));
      CHECK(has(*error, ": "));
      ++errors;
    } else if (without_cudnn) {
      ++fallbacks;
    } else {  // a call of tidying up; or a capture, without which the step runs all the same, and says so
      CHECK(same_bits(weights, good));
    }
  }
  CHECK(errors > calls / 2);
  CHECK((fallbacks > 0) == (s.implementation == Implementation::kCudnn));
}

TEST_CASE("whichever call fails, a DeviceError says so and nothing is left behind: fused", "[cuda]") {
  fail_each_call({Implementation::kFused, Precision::kFp16, {Cell::kLstm, 1, 3, 5}, {2, 2, true}});
}

TEST_CASE("whichever call fails, a DeviceError says so and nothing is left behind: layers on streams", "[cuda]") {
  fail_each_call({Implementation::kFused, Precision::kFp32, {Cell::kRnnTanh, 2, 3, 5}, {2, 8, true}});
}

TEST_CASE("whichever call fails, it is an error or cuDNN is fallen back from, and nothing is left behind", "[cuda]") {
  fail_each_call({Implementation::kCudnn, Precision::kFp16, {Cell::kLstm, 2, 3, 5}, {2, 2, true}});
}

TEST_CASE("over 30 seeds of the scheduler all that a run does has the same bits", "[cuda]") {
  for (const Implementation implementation : {Implementation::kFused, Implementation::kCudnn}) {
    const Small s{implementation, Precision::kFp16, {Cell::kLstm, 3, 5, 7}, {2, 9, true}};
    std::vector<float> first;
    for (std::uint64_t seed = 0; seed < 30; ++seed) {
      INFO(name_of(implementation) << " seed " << seed);
      const FreshDevice device({.seed = seed});
      const std::vector<float> weights = everything(s);
      if (seed == 0) first = weights;
      CHECK(same_bits(weights, first));
    }
  }
}

// Memory

/// The number after `before` in a message, or 0.
std::int64_t number_after(const std::string& text, const std::string& before) {
  const std::size_t at = text.find(before);
  return at == std::string::npos ? 0 : std::strtoll(text.c_str() + at + before.size(), nullptr, 10);
}

TEST_CASE("too little memory: the error says what is needed, what is free, and a batch that really fits", "[cuda]") {
  for (const Implementation implementation : {Implementation::kFused, Implementation::kCudnn}) {
    const Precision precision = implementation == Implementation::kFused ? Precision::kFp32 : Precision::kFp16;
    const Small s{implementation, precision, {Cell::kLstm, 2, 37, 19}, {700, 30, true}};
    int suggestions = 0, failures = 0;
    for (std::size_t memory = 31 * kMiB; memory < 400 * kMiB; memory += 9 * kMiB) {
      INFO(name_of(implementation) << ": " << memory / kMiB << " MiB of memory");
      const auto train = [&](int batch) {
        Small tried = s;
        tried.session.batch = batch;
        Engine e(tried);
        CHECK(e.backend->take_notes().empty());  // no other implementation for want of memory
        const HostWindow window(tried, 1, 1);
        e.session->submit_step(window.view, dropout_at(1), update_with());
        CHECK_FALSE(e.session->next_result().skipped);
        const auto beside = e.network->open({1, 30, false});
      };
      std::optional<std::string> error;
      {
        const FreshDevice device({.memory_bytes = memory, .check = false});
        error = device_error_of([&] { train(s.session.batch); });
      }
      if (!error) break;
      ++failures;
      INFO(*error);
      CHECK(number_after(*error, "cuda: ") > 0);
      CHECK(has(*error, " MiB are needed for "));
      CHECK(has(*error, " MiB of " + std::to_string((memory + kMiB - 1) / kMiB) + " MiB are free; "));
      const std::int64_t batch = number_after(*error, "train.batch ");
      if (batch == 0) {
        CHECK((has(*error, "model.hidden") || has(*error, "the GPU")));
        continue;
      }
      ++suggestions;
      CHECK(batch < s.session.batch);
      const FreshDevice device({.memory_bytes = memory, .check = false});
      CHECK_FALSE(device_error_of([&] { train(static_cast<int>(batch)); }));
    }
    CHECK(failures > 3);
    CHECK(suggestions > 0);
  }
}

// A whole run

/// While one lives, device cuda is the device of this process.
struct OwnDevice {
  FreshDevice device;
  Variable library{kCudaLibraryVariable, CHARRNN_TEST_PLUGIN};
};

TrainOptions on_cuda(const fs::path& folder, Implementation implementation) {
  TrainOptions options = options_in(folder);
  options.config.run.device = "cuda";
  options.config.run.implementation = implementation;
  return options;
}

TEST_CASE("a device that breaks in the middle of a run ends it, and the run keeps its last checkpoint", "[cuda]") {
  for (const Implementation implementation : {Implementation::kFused, Implementation::kCudnn}) {
    INFO(name_of(implementation));
    const TempFolder folder, whole;
    {
      const OwnDevice own;
      Recorder recorder;
      run(on_cuda(whole.path(), implementation), recorder, 20);
    }
    {
      Recorder recorder;
      recorder.on_step = [](const StepRecord& r) {
        if (r.step == 15) host_cuda::break_device(cudaErrorIllegalAddress);
      };
      const OwnDevice own;
      const auto error = device_error_of([&] { run(on_cuda(folder.path(), implementation), recorder, 20); });
      REQUIRE(error);
      INFO(*error);
      CHECK(has(*error, "an illegal memory access was encountered (cudaErrorIllegalAddress)"));
      CHECK(has(*error, "CHARRNN_SYNC=1"));
    }
    const Checkpoint last = load_checkpoint(fs::canonical(folder / "run/latest"), LoadState::kYes);
    CHECK(last.step >= 12);
    CHECK(last.step < 16);
    for (const auto& entry : fs::directory_iterator(folder / "run/checkpoints")) {
      CHECK_NOTHROW(load_checkpoint(entry.path(), LoadState::kYes));  // none is half written
    }
    {
      const OwnDevice own;
      Recorder recorder;
      run(on_cuda(folder.path(), implementation), recorder, 20);
    }
    check_same_end(whole.path(), folder.path());
    check_same_metrics(whole.path(), folder.path());
  }
}

TEST_CASE("a run in which cuDNN fails goes on with the fused kernels and says so", "[cuda]") {
  // The calls of cuDNN begin where the session is opened: the first of them is found by failing one after the other.
  bool found = false;
  for (std::int64_t n = 20; n < 90 && !found; ++n) {
    const TempFolder folder;
    const OwnDevice own;
    host_cuda::reset({.fail_at = n});
    Recorder recorder;
    const auto error = device_error_of([&] { run(on_cuda(folder.path(), Implementation::kCudnn), recorder, 2); });
    const auto says = [](const std::string& note) { return has(note, "computed by the fused kernels, not by cuDNN"); };
    found = std::any_of(recorder.notes.begin(), recorder.notes.end(), says);
    if (found) {
      CHECK_FALSE(error);
      CHECK(recorder.steps.size() == 2);
    }
  }
  CHECK(found);
}

}  // namespace
}  // namespace charrnn::tests
