// Runs on a library that plays a GPU and computes on the CPU: what training makes of the seam's further reaches.
#include <algorithm>
#include <string>
#include <vector>

#include "charrnn/trainer.h"
#include "devices/cuda_library.h"
#include "support/environment.h"
#include "train/runs.h"

using namespace charrnn;
using namespace charrnn::tests;

namespace {

/// While one lives, device cuda is the fake GPU.
struct FakeGpu {
  TempFolder folder;
  Variable library{kCudaLibraryVariable, CHARRNN_FAKE_GPU};
  Variable log_file{"FAKE_GPU_LOG", (folder / "log").string()};
  Variable text;

  explicit FakeGpu(bool holds_text = true) : text("FAKE_GPU_TEXT", holds_text ? "" : "no") {}

  std::vector<std::string> log() const {
    std::vector<std::string> lines;
    std::ifstream file(folder / "log");
    for (std::string line; std::getline(file, line);) lines.push_back(line);
    return lines;
  }
};

TrainOptions on_gpu(const fs::path& folder) {
  TrainOptions options = options_in(folder);
  options.config.run.device = "cuda";
  return options;
}

bool has(const std::vector<std::string>& lines, const std::string& part) {
  return std::any_of(lines.begin(), lines.end(),
                     [&](const auto& line) { return line.find(part) != std::string::npos; });
}

}  // namespace

TEST_CASE("a text that the device holds gives the same training as windows from the host", "[train][gpu]") {
  constexpr int kSteps = 45;  // more than two epochs
  TempFolder cpu, held, streamed;
  Recorder a, b, c;
  run(options_in(cpu.path()), a, kSteps);
  {
    const FakeGpu gpu;
    run(on_gpu(held.path()), b, kSteps);
    CHECK(has(gpu.log(), "hold text"));
  }
  {
    const FakeGpu gpu(false);
    run(on_gpu(streamed.path()), c, kSteps);
    CHECK_FALSE(has(gpu.log(), "hold text"));
  }
  for (const TempFolder* folder : {&held, &streamed}) {
    check_same_end(cpu.path(), folder->path());
    check_same_metrics(cpu.path(), folder->path());
  }
}

TEST_CASE("a run on a device that holds the text goes on to the same bits", "[train][gpu]") {
  const FakeGpu gpu;
  TempFolder straight, parts;
  Recorder all;
  run(on_gpu(straight.path()), all, 40);
  for (const std::int64_t stop : {1, 8, 19, 20, 40}) {
    Recorder part;
    run(on_gpu(parts.path()), part, stop);
  }
  check_same_end(straight.path(), parts.path());
}

TEST_CASE("the loss scale goes into the checkpoint and back", "[train][gpu]") {
  const FakeGpu gpu;
  TempFolder folder;
  Recorder first, second;
  const auto state = [&folder] {
    return *load_checkpoint(fs::canonical(folder / "run/latest"), LoadState::kYes).state;
  };
  run(on_gpu(folder.path()), first, 12);
  CHECK(state().since_overflow == 12);
  CHECK(state().loss_scale == 2048);
  run(on_gpu(folder.path()), second, 18);
  CHECK(state().since_overflow == 18);
  CHECK(state().loss_scale == 4096);
}

TEST_CASE("a profiler records the steps of its window and no others", "[train][gpu]") {
  const FakeGpu gpu;
  TempFolder folder;
  TrainOptions options = on_gpu(folder.path());
  options.config.validate.every = options.config.checkpoint.every = options.config.sample.every = 0;
  options.profile = {4, 6};
  Recorder recorder;
  SECTION("within the run") {
    run(options, recorder, 10);
    std::vector<std::string> log = gpu.log();
    const auto on = std::find(log.begin(), log.end(), "profile on");
    const auto off = std::find(log.begin(), log.end(), "profile off");
    REQUIRE(on < off);
    REQUIRE(off < log.end());
    const auto count = [](auto begin, auto end, const std::string& line) { return std::count(begin, end, line); };
    CHECK(count(log.begin(), on, "result") == 3);  // all that were submitted before
    CHECK(count(on, off, "result") == 3);
    CHECK(count(on, off, "step 4") + count(on, off, "step 5") + count(on, off, "step 6") == 3);
    CHECK(count(off, log.end(), "result") == 4);
  }
  SECTION("open when the run ends: it is closed") {
    run(options, recorder, 5);
    const std::vector<std::string> log = gpu.log();
    CHECK(has(log, "profile on"));
    CHECK(log.back() == "profile off");
  }
  SECTION("behind the run's end: refused") { CHECK_THROWS_AS(run(options, recorder, 3), ConfigError); }
  SECTION("before the step that the run is at: refused") {
    options.profile = {};
    run(options, recorder, 5);
    options.profile = {4, 6};
    CHECK_THROWS_AS(run(options, recorder, 8), ConfigError);
  }
}

TEST_CASE("on the CPU a note says that there is nothing to profile", "[train][gpu]") {
  TempFolder folder;
  TrainOptions options = options_in(folder.path());
  options.profile = {2, 3};
  Recorder recorder;
  CHECK(run(options, recorder, 4) == ExitCode::kOk);
  CHECK(has(recorder.notes, "nothing to profile on the CPU"));
}

TEST_CASE("what a backend has to tell is told, at the start and later, once", "[train][gpu]") {
  const FakeGpu gpu;
  TempFolder folder;
  Recorder recorder;
  run(on_gpu(folder.path()), recorder, 3);
  const auto times = [&recorder](const std::string& note) {
    return std::count(recorder.notes.begin(), recorder.notes.end(), note);
  };
  CHECK(times("fake note: a network was made") == 2);  // for training, and for the test loss at the end
  CHECK(times("fake note: the second step was started") == 1);
}

TEST_CASE("a run may go on with another implementation, which is told", "[train][gpu]") {
  const FakeGpu gpu;
  TempFolder folder;
  Recorder first, second;
  TrainOptions options = on_gpu(folder.path());
  options.config.run.implementation = Implementation::kFused;
  run(options, first, 3);
  CHECK(load_checkpoint(fs::canonical(folder / "run/latest"), LoadState::kYes).state->machine ==
        "Fake GPU, fp32, fused");
  CHECK(std::find(first.opening.begin(), first.opening.end(),
                  std::pair<std::string, std::string>("implementation", "fused")) != first.opening.end());
  options.config.run.implementation = Implementation::kCudnn;
  run(options, second, 5);
  CHECK(second.steps.size() == 2);
  CHECK(has(second.notes, "made on \"Fake GPU, fp32, fused\", this is \"Fake GPU, fp32, cudnn\""));
}

TEST_CASE("a step carries the time by the device's own clock", "[train][gpu]") {
  TempFolder folder;
  const auto device_ms = [&folder](const std::string& device) {
    Config config = options_in(folder.path()).config;
    config.run.device = device;
    Trainer trainer(config, {.threads = 1, .progress = {}, .cancelled = {}});
    std::vector<Trainer::Step> steps = trainer.step();
    for (const Trainer::Step& step : trainer.drain()) steps.push_back(step);
    REQUIRE(steps.size() == 1);
    return steps[0].device_ms;
  };
  CHECK(device_ms("cpu") == 0);
  const FakeGpu gpu;
  CHECK(device_ms("cuda") == 1.5);
}
