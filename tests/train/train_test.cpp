// Whole runs: learning, resume to the bit, logs, signals, refusals.
#include <sys/wait.h>
#include <unistd.h>

#include <cmath>
#include <cstring>
#include <fstream>
#include <functional>
#include <nlohmann/json.hpp>
#include <sstream>

#include "charrnn/checkpoint.h"
#include "charrnn/error.h"
#include "charrnn/trainer.h"
#include "data/loader.h"
#include "data/streams.h"
#include "io/run_folder.h"
#include "model/initialize.h"
#include "reference/reference.h"
#include "support/catch.h"
#include "train/runs.h"
#include "train/schedule.h"

using namespace charrnn;
using namespace charrnn::tests;
namespace fs = std::filesystem;

TEST_CASE("a run learns: the loss falls far below that of guessing", "[train]") {
  TempFolder folder;
  Recorder recorder;
  CHECK(run(options_in(folder.path()), recorder, 150) == ExitCode::kOk);
  REQUIRE(recorder.steps.size() == 150);
  CHECK(recorder.steps.front().nats_per_char == Approx(std::log(17.0)).epsilon(0.1));  // 17 distinct characters
  CHECK(recorder.steps.back().nats_per_char < 1.7);
  CHECK(recorder.summary.best_validation_nats < 1.7);
  CHECK(std::isfinite(recorder.summary.test_nats));
  CHECK(recorder.samples.size() == 16);
  CHECK(fs::exists(folder / "run/best/model.safetensors"));
}

TEST_CASE("an interrupted run goes on to the same bits: any cell, any optimizer, mid-epoch and at its edge",
          "[train]") {
  const std::string optimizers[] = {"{name: rmsprop, learning_rate: 0.01}", "{name: adam, learning_rate: 0.01}",
                                    "{name: adagrad, learning_rate: 0.05}",
                                    "{name: sgd, learning_rate: 0.5, momentum: 0.9}"};
  const std::string schedules[] = {"schedule: {decay: 0.9, after_epoch: 1}",
                                   "schedule: {kind: plateau, factor: 0.5, patience: 0}",
                                   "schedule: {kind: cosine, warmup_steps: 4, final: 0.1}"};
  int variant = 0;
  for (const std::string cell : {"lstm", "gru", "rnn"}) {
    for (const std::string& optimizer : optimizers) {
      Settings settings;
      settings.cell = cell;
      settings.optimizer = optimizer + ", " + schedules[variant++ % 3];
      INFO(cell << " " << settings.optimizer);
      TempFolder straight, parts;
      Recorder all;
      run(options_in(straight.path(), settings), all, 45);
      const std::int64_t edge = Trainer(options_in(straight.path(), settings).config, {}).steps_per_epoch();
      REQUIRE(edge > 10);
      for (const std::int64_t stop : {std::int64_t{1}, std::int64_t{8}, edge, edge + 1, std::int64_t{45}}) {
        Recorder part;
        run(options_in(parts.path(), settings), part, stop);
      }
      check_same_end(straight.path(), parts.path());
      CHECK(metrics(parts.path()).size() == 45);
    }
  }
}

TEST_CASE("a run killed at any step and started again ends as one that was not", "[train]") {
  TempFolder straight;
  Recorder all;
  run(options_in(straight.path()), all, 30);
  for (const int kill_at : {1, 5, 6, 7, 13, 20, 29}) {
    INFO("killed after step " << kill_at);
    TempFolder killed;
    const TrainOptions options = options_in(killed.path());
    const pid_t child = fork();
    if (child == 0) {
      Recorder recorder;
      recorder.on_step = [kill_at](const StepRecord& r) {
        if (r.step == kill_at) raise(SIGKILL);
      };
      run(options, recorder, 30);
      _exit(0);
    }
    int status = 0;
    waitpid(child, &status, 0);
    REQUIRE(WIFSIGNALED(status));
    Recorder recorder;
    CHECK(run(options, recorder, 30) == ExitCode::kOk);
    check_same_end(straight.path(), killed.path());
    check_same_metrics(straight.path(), killed.path());
  }
}

TEST_CASE("a run resumed at its last step says so and changes nothing", "[train]") {
  TempFolder folder;
  Recorder first, again;
  run(options_in(folder.path()), first, 12);
  const std::string before = bytes_of(folder / "run/metrics.jsonl");
  CHECK(run(options_in(folder.path()), again, 12) == ExitCode::kOk);
  CHECK(again.steps.empty());
  CHECK(bytes_of(folder / "run/metrics.jsonl") == before);
  CHECK(again.notes.back().find("already") != std::string::npos);
}

TEST_CASE("an older checkpoint of the run can be gone on from, and what came after it is forgotten", "[train]") {
  TempFolder straight, folder;
  Recorder a, b, c;
  run(options_in(straight.path()), a, 24);
  run(options_in(folder.path()), b, 18);
  TrainOptions options = options_in(folder.path());
  options.resume = (folder / "run/checkpoints/step-00000012").string();
  run(options, c, 24);
  CHECK(c.steps.front().step == 13);
  check_same_end(straight.path(), folder.path());
  check_same_metrics(straight.path(), folder.path());
}

TEST_CASE("periods of samples, validation and checkpoints change no weight", "[train]") {
  TempFolder a, b;
  Recorder x, y;
  run(options_in(a.path()), x, 20);
  TrainOptions options = options_in(b.path());
  options.config.sample.every = 3;
  options.config.validate.every = 7;
  options.config.checkpoint.every = 2;
  run(options, y, 20);
  for (std::size_t i = 0; i < 20; ++i) CHECK(x.steps[i].nats_per_char == y.steps[i].nats_per_char);
}

TEST_CASE("a signal ends the run after its step, saved, with the signal's exit code", "[train]") {
  for (const auto& [signal, code] :
       {std::pair{SIGINT, ExitCode::kInterrupted}, std::pair{SIGTERM, ExitCode::kTerminated}}) {
    TempFolder folder;
    Recorder recorder;
    recorder.signal = signal;
    recorder.signal_after_step = 4;
    CHECK(run(options_in(folder.path()), recorder) == code);
    CHECK(recorder.steps.back().step == 4);
    CHECK(load_checkpoint(fs::canonical(folder / "run/latest"), LoadState::kYes).step == 4);
    CHECK(metrics(folder.path()).size() == 4);
  }
}

TEST_CASE("a signal in the middle of a step's validation and sample costs neither", "[train]") {
  Settings settings;
  settings.optimizer = "{name: rmsprop, learning_rate: 0.01}, schedule: {kind: plateau, factor: 0.5, patience: 0}";
  TempFolder straight;
  const auto eventful = [&settings](const fs::path& folder) {
    TrainOptions options = options_in(folder, settings);
    options.config.validate.every = 2;
    options.config.sample.every = 3;
    return options;
  };
  Recorder all;
  run(eventful(straight.path()), all, 20);
  for (const int stop : {2, 3, 6, 20}) {  // due: a validation, a sample, both, the end
    INFO("signal after step " << stop);
    TempFolder cut;
    Recorder first, second;
    first.signal = SIGTERM;
    first.signal_after_step = stop;
    CHECK(run(eventful(cut.path()), first, 20) == ExitCode::kTerminated);
    CHECK(run(eventful(cut.path()), second, 20) == ExitCode::kOk);
    check_same_end(straight.path(), cut.path());
    check_same_metrics(straight.path(), cut.path());
  }
}

TEST_CASE("a run that its minutes end validates, saves and scores the test split", "[train]") {
  TempFolder folder;
  TrainOptions options = options_in(folder.path());
  options.config.validate.every = 0;
  options.config.checkpoint.every = 1;
  options.minutes = 1e-9;
  Recorder recorder;
  CHECK(run(options, recorder) == ExitCode::kOk);
  CHECK(recorder.steps.size() == 1);
  CHECK(metrics(folder.path()).back().contains("validation_nats_per_char"));
  CHECK(fs::exists(folder / "run/best"));
  CHECK(std::isfinite(recorder.summary.test_nats));
}

TEST_CASE("dropout masks differ from step to step, and the learning rate waits for a plateau", "[train]") {
  TempFolder folder;
  std::ofstream(folder / "text.txt", std::ios::binary) << some_text(1, 40);
  Settings settings;
  settings.batch = 1;
  settings.sequence = 30;  // one window an epoch: every step reads the same from zero state
  settings.optimizer = "{name: rmsprop, learning_rate: 1.0e-30}, schedule: {kind: plateau, factor: 0.5, patience: 1}";
  TrainOptions options = options_in(folder.path(), settings);
  options.config.corpus.split = {0.8, 0.2, 0};
  options.config.train.epochs = 8;
  options.config.validate.every = 1;
  Recorder recorder;
  run(options, recorder);
  REQUIRE(recorder.steps.size() == 8);
  CHECK(recorder.steps[0].nats_per_char != recorder.steps[1].nats_per_char);
  // Nothing is learned: the first validation is the best, two more are worse than patience 1 allows.
  const double rates[] = {1, 1, 1, 0.5, 0.5, 0.25, 0.25, 0.125};
  for (std::size_t i = 0; i < 8; ++i) CHECK(recorder.steps[i].learning_rate == 1e-30 * rates[i]);
}

TEST_CASE("changed settings are refused by name, but epochs and periods may change", "[train]") {
  TempFolder folder;
  Recorder recorder;
  run(options_in(folder.path()), recorder, 6);
  const auto refused = [&](const std::function<void(Config&)>& change, const std::string& key) {
    TrainOptions options = options_in(folder.path());
    change(options.config);
    Recorder again;
    try {
      run(options, again, 8);
      FAIL("was not refused: " << key);
    } catch (const ConfigError& e) {
      CHECK(std::string(e.what()).find(key) != std::string::npos);
    }
  };
  refused([](Config& c) { c.model.hidden = 13; }, "model.hidden");
  refused([](Config& c) { c.train.batch = 5; }, "train.batch");
  refused([](Config& c) { c.train.optimizer.learning_rate = 0.02; }, "train.optimizer.learning_rate");
  refused([](Config& c) { c.train.seed = 4; }, "train.seed");
  refused([](Config& c) { c.corpus.split = {0.8, 0.1, 0.1}; }, "corpus.split");
  TrainOptions options = options_in(folder.path());
  options.config.train.epochs = 9;
  options.config.validate.every = 4;
  Recorder again;
  CHECK(run(options, again, 8) == ExitCode::kOk);

  std::ofstream(folder / "text.txt", std::ios::app) << "more";
  Recorder other_text;
  CHECK_THROWS_AS(run(options_in(folder.path()), other_text, 10), DataError);
}

TEST_CASE("resume never refuses a folder that holds a run, and two runs cannot share one", "[train]") {
  TempFolder folder;
  Recorder recorder;
  TrainOptions options = options_in(folder.path());
  options.resume = "never";
  CHECK(run(options, recorder, 3) == ExitCode::kOk);
  CHECK_THROWS_AS(run(options, recorder, 4), ConfigError);
  Recorder outer;
  outer.on_step = [&](const StepRecord&) {
    Recorder inner;
    CHECK_THROWS_AS(run(options_in(folder.path()), inner, 5), ConfigError);
  };
  run(options_in(folder.path()), outer, 4);
  CHECK(outer.steps.size() == 1);
}

TEST_CASE("NaN is skipped, counted, and ends the run after skip_limit in a row", "[train]") {
  TempFolder folder;
  Settings settings;
  settings.cell = "rnn, nonlinearity: relu";  // nothing saturates: products of huge weights overflow
  settings.optimizer = "{name: sgd, learning_rate: 1.0e30}";
  TrainOptions options = options_in(folder.path(), settings);
  options.config.train.clip.kind = ClipConfig::Kind::kNone;
  options.config.train.skip_limit = 3;
  options.config.checkpoint.every = 1;
  options.config.validate.every = 0;
  Recorder recorder;
  CHECK_THROWS_AS(run(options, recorder), RunError);
  CHECK(std::count_if(recorder.steps.begin(), recorder.steps.end(), [](const StepRecord& r) { return r.skipped; }) >=
        2);
  CHECK(metrics(folder.path()).size() == recorder.steps.size());
  // The newest checkpoint is from before the streak: its weights give a number.
  const Checkpoint newest = load_checkpoint(fs::canonical(folder / "run/latest"), LoadState::kYes);
  CHECK(newest.state->skipped_in_a_row == 0);
  CHECK(newest.step == static_cast<std::int64_t>(recorder.steps.size()) - 3);
}

TEST_CASE("patience ends a run whose validation gets no better", "[train]") {
  TempFolder folder;
  TrainOptions options = options_in(folder.path());
  options.config.train.optimizer.learning_rate = 1e-30;  // nothing is learned: no validation is better than the first
  options.config.validate.patience = 2;
  options.config.validate.every = 1;
  Recorder recorder;
  CHECK(run(options, recorder) == ExitCode::kOk);
  CHECK(recorder.steps.size() == 3);
  CHECK(recorder.summary.reason.find("validations") != std::string::npos);
}

TEST_CASE("validation and test are the reference's loss over the held-out text from zero state", "[train]") {
  TempFolder folder;
  Trainer trainer(options_in(folder.path()).config, {});
  const Checkpoint c = trainer.checkpoint(0);
  const std::string text = some_text();
  const auto expected = [&](const std::vector<LaneRange>& lanes, std::int64_t characters) {
    double nats = 0, weight = 0;
    for (const LaneRange& lane : lanes) {
      std::vector<TokenId> ids, targets;
      for (std::int64_t i = lane.start; i < lane.start + lane.count; ++i) {
        ids.push_back(c.vocabulary.find(static_cast<std::uint8_t>(text[static_cast<std::size_t>(i)])));
        targets.push_back(c.vocabulary.find(static_cast<std::uint8_t>(text[static_cast<std::size_t>(i + 1)])));
      }
      const std::vector<double> parameters(c.parameters.begin(), c.parameters.end());
      reference::Window window;
      window.steps = static_cast<int>(lane.count);
      window.batch = 1;
      window.ids = ids;
      window.targets = targets;
      const auto result =
          reference::forward(ParameterLayout(c.shape()), parameters, window, reference::State::zero(c.shape(), 1));
      nats += result.nats;
      weight += result.weight;
    }
    CHECK(weight == static_cast<double>(characters));
    return nats / weight;
  };
  const StreamPlan& plan = trainer.plan();
  const double validation = expected(plan.validation, plan.validation_end - plan.validation_begin - 1);
  const double test = expected(plan.test, plan.test_end - plan.test_begin - 1);
  CHECK(trainer.validate() == Approx(validation).epsilon(1e-5));
  CHECK(trainer.test(c) == Approx(test).epsilon(1e-5));
  CHECK(std::abs(validation - test) > 1e-4 * test);  // they are told apart
}

TEST_CASE("init_from takes weights and maps characters by value", "[train]") {
  TempFolder folder, other;
  Recorder recorder;
  run(options_in(folder.path()), recorder, 12);
  std::ofstream(other / "text.txt", std::ios::binary) << "XYZ" + some_text(9, 500).substr(0, 400) + "XYZ";
  TrainOptions options = options_in(other.path());
  options.config.init_from = (folder / "run").string();
  Trainer trainer(options.config, {});
  const Checkpoint now = trainer.checkpoint(0);
  const Checkpoint old = load_checkpoint(resolve_checkpoint(folder / "run").folder, LoadState::kNo);
  const ParameterLayout layout(now.shape()), layout_old(old.shape());
  const auto H = static_cast<std::size_t>(now.shape().hidden);
  for (const std::uint8_t byte : old.vocabulary.bytes()) {
    const TokenId id = now.vocabulary.find(byte);
    if (id < 0) continue;
    const float* const a = now.parameters.data() + layout.head_weight().offset + static_cast<std::size_t>(id) * H;
    const float* const b = old.parameters.data() + layout_old.head_weight().offset +
                           static_cast<std::size_t>(old.vocabulary.find(byte)) * H;
    CHECK(std::memcmp(a, b, H * sizeof(float)) == 0);
  }
  const float* const hh = now.parameters.data() + layout.weight_hh(1).offset;
  CHECK(std::memcmp(hh, old.parameters.data() + layout_old.weight_hh(1).offset,
                    layout.weight_hh(1).count() * sizeof(float)) == 0);
  bool told = false;
  for (const std::string& note : trainer.notes()) told = told || note.find("3 characters") != std::string::npos;
  CHECK(told);
  options.config.model.hidden = 13;
  CHECK_THROWS_AS(Trainer(options.config, {}), ConfigError);
}

TEST_CASE("a run whose checkpoints are all damaged is refused, and its logs stay", "[train]") {
  TempFolder folder;
  Recorder first, again;
  run(options_in(folder.path()), first, 6);
  for (const auto& [step, checkpoint] : list_checkpoints(folder / "run")) {
    std::ofstream(checkpoint / "model.safetensors", std::ios::app) << "x";
  }
  CHECK_THROWS_AS(run(options_in(folder.path()), again, 9), FormatError);
  CHECK(metrics(folder.path()).size() == 6);
}

TEST_CASE("a folder that cannot be written is refused before training starts", "[train]") {
  TempFolder folder;
  TrainOptions options = options_in(folder.path());
  options.config.run.dir = (folder / "text.txt/run").string();  // below a file
  Recorder recorder;
  CHECK_THROWS_AS(run(options, recorder, 5), Error);
  CHECK(recorder.steps.empty());
}

TEST_CASE("a config written by a run can be run as it is", "[train]") {
  TempFolder folder;
  Recorder recorder;
  run(options_in(folder.path()), recorder, 6);
  TrainOptions options;
  options.config = read_config(folder / "run/config.yaml");
  options.threads = 2;
  Recorder again;
  CHECK(run(options, again, 9) == ExitCode::kOk);
  CHECK(again.steps.front().step == 7);
}

TEST_CASE("learning rates follow their schedules", "[train]") {
  ScheduleConfig decay;
  decay.kind = ScheduleConfig::Kind::kDecay;
  decay.decay = 0.5;
  decay.after_epoch = 2;
  const auto at = [](const ScheduleConfig& s, std::int64_t step) {
    return learning_rate(1.0, s, {.step = step, .steps_per_epoch = 10, .total_steps = 100, .plateau_scale = 0.25});
  };
  CHECK(at(decay, 20) == 1.0);  // the last step of epoch 2
  CHECK(at(decay, 21) == 0.5);  // decayed at its end
  CHECK(at(decay, 30) == 0.5);
  CHECK(at(decay, 31) == 0.25);
  ScheduleConfig cosine;
  cosine.kind = ScheduleConfig::Kind::kCosine;
  cosine.warmup_steps = 10;
  cosine.final_fraction = 0.1;
  CHECK(at(cosine, 1) == Approx(0.1));
  CHECK(at(cosine, 10) == Approx(1.0));
  CHECK(at(cosine, 55) == Approx(0.55));
  CHECK(at(cosine, 100) == Approx(0.1));
  ScheduleConfig plateau;
  plateau.kind = ScheduleConfig::Kind::kPlateau;
  CHECK(at(plateau, 50) == 0.25);
  CHECK(at(ScheduleConfig{}, 50) == 1.0);
}
