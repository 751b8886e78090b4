// The commands around a run: it is trained here, on a text of a few hundred characters, by the program itself.
#include <sys/stat.h>

#include <cmath>
#include <csignal>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "cli/program.h"
#include "support/catch.h"

namespace charrnn {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using testing::contains;
using testing::Outcome;
using testing::slurp;
using testing::spill;
using testing::Workplace;

std::string training_text() {
  std::string text;
  for (int i = 0; i < 60; ++i)
    text += (i % 3 == 0 ? "the cat sat.\n" : i % 3 == 1 ? "a dog ran to it.\n" : "so it goes.\n");
  return text;
}

constexpr const char* kConfig =
    "corpus: {path: text.txt, split: [0.8, 0.1, 0.1]}\n"
    "model: {cell: lstm, layers: 1, hidden: 12}\n"
    "train: {batch: 4, sequence: 10, epochs: 100, seed: 7, precision: fp32}\n"
    "validate: {every: 10}\n"
    "checkpoint: {every: 10, keep: 2}\n"
    "sample: {at: [5], length: 20, prime: \"t\"}\n"
    "run: {dir: run, device: cpu}\n";

struct TrainedRun {
  Workplace work;
  Outcome training;

  explicit TrainedRun(const std::vector<std::string>& more = {}) {
    spill(work.path("text.txt"), training_text());
    spill(work.path("a.yaml"), kConfig);
    std::vector<std::string> arguments{"--config", "a.yaml", "--steps", "20", "--threads", "1"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    training = work.run(arguments);
    CAPTURE(training.err);
    REQUIRE(training.code == 0);
  }
};

std::vector<std::string> lines(const std::string& text) {
  std::vector<std::string> all;
  std::istringstream in(text);
  for (std::string line; std::getline(in, line);) all.push_back(line);
  return all;
}

}  // namespace

TEST_CASE("training prints samples on stdout and the rest on stderr, without carriage returns", "[cli][run]") {
  TrainedRun run;
  CHECK(lines(run.training.out).size() >= 1);
  CHECK(run.training.out.starts_with("t"));
  CHECK_THAT(run.training.out, !contains("step"));
  CHECK_THAT(run.training.err,
             contains("step 1/20") && contains("step 20/20") && contains("char/s") && contains("|g|"));
  CHECK(run.training.err.find('\r') == std::string::npos);
  CHECK(run.training.err.find('\033') == std::string::npos);
  for (const char* file : {"run/config.yaml", "run/metrics.jsonl", "run/samples.txt", "run/latest/model.safetensors"}) {
    CHECK(fs::exists(run.work.path(file)));
  }
}

TEST_CASE("on a terminal training shows a bar with the time left, in colour unless NO_COLOR is set", "[cli][run]") {
  Workplace work;
  spill(work.path("text.txt"), training_text());
  spill(work.path("a.yaml"), kConfig);
  const Outcome bar = work.run_on_terminal({"--config", "a.yaml", "--steps", "20"});
  CAPTURE(bar.out);
  CHECK(bar.code == 0);
  CHECK_THAT(bar.out, contains("\r\033[K[") && contains("ETA") && contains("20/20"));
  CHECK_THAT(bar.out, !contains("step 1/20"));
  CHECK_THAT(work.run_on_terminal({"sample"}).out, contains("\033[1;31merror:"));
  work.set("NO_COLOR", "1");
  CHECK_THAT(work.run_on_terminal({"sample"}).out, contains("error:") && !contains("\033[1;31m"));
}

TEST_CASE("train --json prints the lines of metrics.jsonl instead of samples", "[cli][run]") {
  TrainedRun run({"--json"});
  CHECK(run.training.out == slurp(run.work.path("run/metrics.jsonl")));
  std::int64_t step = 0;
  for (const std::string& line : lines(run.training.out)) CHECK(json::parse(line).at("step") == ++step);
  CHECK(step == 20);
}

TEST_CASE("a run that is at its last step already says so and exits 0", "[cli][run]") {
  TrainedRun run;
  const Outcome again = run.work.run({"train", "--config", "a.yaml", "--steps", "20"});
  CHECK(again.code == 0);
  CHECK_THAT(again.err, contains("step 20"));
  const Outcome on = run.work.run({"train", "--config", "a.yaml", "--steps", "25"});
  CHECK(on.code == 0);
  CHECK_THAT(on.err, contains("resumed at step 20") && contains("step 25/25"));
}

TEST_CASE("resume never refuses a folder that holds a run, --output names another", "[cli][run]") {
  TrainedRun run;
  const Outcome never = run.work.run({"--config", "a.yaml", "--steps", "2", "--resume", "never"});
  CHECK(never.code == 2);
  const Outcome other = run.work.run({"--config", "a.yaml", "--steps", "2", "--resume", "never", "--output", "other"});
  CHECK(other.code == 0);
  CHECK(fs::exists(run.work.path("other/metrics.jsonl")));
}

TEST_CASE("a dry run prints its plan and writes nothing", "[cli][run]") {
  Workplace work;
  spill(work.path("text.txt"), training_text());
  spill(work.path("a.yaml"), kConfig);
  const Outcome plan = work.run({"--config", "a.yaml", "--dry-run"});
  CHECK(plan.code == 0);
  CHECK_THAT(plan.out, contains("parameters") && contains("characters") && contains("memory") && contains("disk"));
  const Outcome as_json = work.run({"--config", "a.yaml", "--dry-run", "--json"});
  CHECK(as_json.code == 0);
  CHECK(json::parse(as_json.out).at("plan").contains("parameters"));
  CHECK(!fs::exists(work.path("run")));
}

TEST_CASE("a signal saves and exits with its number", "[cli][run]") {
  const auto [signal, code] = GENERATE(table<int, int>({{SIGINT, 130}, {SIGTERM, 143}}));
  Workplace work;
  spill(work.path("text.txt"), training_text());
  spill(work.path("a.yaml"), kConfig);
  const std::string pipe = work.path("pipe").string();  // its lines come as the steps do
  REQUIRE(mkfifo(pipe.c_str(), 0600) == 0);
  const pid_t child =
      work.start({"--config", "a.yaml", "--json", "--set", "train.epochs=1000000", "--set", "checkpoint.every=0"},
                 CHARRNN_PROGRAM, pipe);
  std::ifstream lines(pipe);
  for (std::string line; std::getline(lines, line);) {  // to its end, so that the program can write on
    if (json::parse(line).at("step") == 3) kill(child, signal);
  }
  const Outcome outcome = work.wait(child);
  CAPTURE(outcome.err);
  CHECK(outcome.code == code);
  CHECK(fs::exists(work.path("run/latest/model.safetensors")));
}

TEST_CASE("samples are drawn from a run's best checkpoint, the same for the same seed", "[cli][run]") {
  TrainedRun run;
  const std::vector<std::string> arguments{"sample", "run",     "--length", "40",        "--seed",
                                           "3",      "--prime", "the",      "--threads", "1"};
  const Outcome once = run.work.run(arguments);
  CHECK(once.code == 0);
  CHECK(once.out.size() == 43);
  CHECK(once.out.starts_with("the"));
  CHECK_THAT(once.err, contains("checkpoint: ") && contains("best"));
  CHECK(run.work.run(arguments).out == once.out);

  const Outcome unseeded = run.work.run({"sample", "run", "--length", "40", "--prime", "the", "--threads", "1"});
  const std::size_t at = unseeded.err.find("seed: ");
  REQUIRE(at != std::string::npos);
  const std::string seed = lines(unseeded.err.substr(at + 6)).front();
  CHECK(run.work.run({"sample", "run", "--length", "40", "--prime", "the", "--seed", seed, "--threads", "1"}).out ==
        unseeded.out);
}

TEST_CASE("sample --json holds the texts that are printed otherwise", "[cli][run]") {
  TrainedRun run;
  const Outcome plain = run.work.run({"sample", "run", "--length", "30", "--seed", "5"});
  const Outcome outcome = run.work.run({"sample", "run", "--length", "30", "--seed", "5", "--count", "3", "--json"});
  CHECK(outcome.code == 0);
  const json object = json::parse(outcome.out);
  CHECK(object.at("schema") == 1);
  CHECK(object.at("seed") == 5);
  CHECK(object.at("samples").size() == 3);
  CHECK(object.at("samples").at(0) == plain.out);
  CHECK(object.at("samples").at(1) != object.at("samples").at(2));
  for (const json& text : object.at("samples")) CHECK(text.get<std::string>().size() == 30);
  CHECK(object.at("escaped") == json::array({false, false, false}));
}

TEST_CASE("sample's other flags do what they say", "[cli][run]") {
  TrainedRun run;
  const Outcome greedy = run.work.run({"sample", "run", "--length", "25", "--greedy", "--prime", "a", "--seed", "1"});
  const Outcome one = run.work.run({"sample", "run", "--length", "25", "--top-k", "1", "--prime", "a", "--seed", "2"});
  CHECK(greedy.out == one.out);
  CHECK(greedy.out.size() == 26);

  spill(run.work.path("prime.txt"), "the cat");
  const Outcome file = run.work.run({"sample", "run", "--length", "5", "--prime-file", "prime.txt"});
  CHECK(file.out.starts_with("the cat"));
  CHECK(run.work.run({"sample", "run", "--prime-file", "absent.txt"}).code == 3);

  const Outcome stop =
      run.work.run({"sample", "run", "--length", "5000", "--stop", "\n", "--seed", "4", "--prime", "t"});
  CHECK(stop.code == 0);
  CHECK(stop.out.find('\n') == stop.out.size() - 1);

  const Outcome three =
      run.work.run({"sample", "run", "--length", "10", "--count", "3", "--prime", "t", "--seed", "4"});
  CHECK_THAT(three.err, contains("text 1 of 3") && contains("text 3 of 3"));
  CHECK(three.out.size() >= 33);
}

TEST_CASE("a prime outside the vocabulary exits 3 with its offset", "[cli][run]") {
  TrainedRun run;
  const Outcome outcome = run.work.run({"sample", "run", "--prime", "the Q"});
  CHECK(outcome.code == 3);
  CHECK(outcome.out.empty());
  CHECK_THAT(outcome.err, contains("'Q'") && contains("offset 4"));
}

TEST_CASE("a run whose stdout is lost goes on, saves, and does not claim success", "[cli][run]") {
  Workplace work;
  spill(work.path("text.txt"), training_text());
  spill(work.path("a.yaml"), kConfig);
  const Outcome outcome = work.wait(work.start({"--config", "a.yaml", "--steps", "20"}, CHARRNN_PROGRAM, "/dev/full"));
  CHECK(outcome.code == 1);
  CHECK_THAT(outcome.err, contains("standard output") && contains("step 20/20"));
  CHECK(fs::exists(work.path("run/latest/model.safetensors")));
}

TEST_CASE("sampling into a full disk fails", "[cli][run]") {
  TrainedRun run;
  const Outcome outcome = run.work.wait(run.work.start({"sample", "run"}, CHARRNN_PROGRAM, "/dev/full"));
  CHECK(outcome.code == 1);
}

TEST_CASE("eval scores the validation split, a test split and a text", "[cli][run]") {
  TrainedRun run;
  const Outcome validation = run.work.run({"eval", "run", "--json"});
  CAPTURE(validation.err);
  REQUIRE(validation.code == 0);
  const json object = json::parse(validation.out);
  CHECK(object.at("schema") == 1);
  const double nats = object.at("nats_per_char");
  CHECK(object.at("bits_per_char").get<double>() == Approx(nats / std::log(2.0)));
  CHECK(object.at("perplexity").get<double>() == Approx(std::exp(nats)));
  CHECK(object.at("accuracy").get<double>() > 0);
  CHECK(object.at("precision") == "fp32");

  // The same characters as a file of their own give the same numbers.
  const std::string text = training_text();
  const auto characters = object.at("characters").get<std::size_t>();
  const auto train = static_cast<std::size_t>(std::floor(0.8 * static_cast<double>(text.size())));
  spill(run.work.path("held-out.txt"), text.substr(train, characters + 1));
  const json as_text = json::parse(run.work.run({"eval", "run", "--text", "held-out.txt", "--json"}).out);
  CHECK(as_text.at("nats_per_char") == nats);
  CHECK(as_text.at("characters") == characters);

  const json streams = json::parse(run.work.run({"eval", "run", "--streams", "3", "--json"}).out);
  CHECK(streams.at("characters") == characters);
  CHECK(streams.at("nats_per_char").get<double>() == Approx(nats).epsilon(0.2));  // each stream starts without memory

  const Outcome test = run.work.run({"eval", "run", "--split", "test"});
  CHECK(test.code == 0);
  CHECK_THAT(test.out, contains("nats/char") && contains("perplexity") && contains("accuracy") && contains("seconds"));
}

TEST_CASE("eval refuses a text that it cannot score", "[cli][run]") {
  TrainedRun run;
  spill(run.work.path("b.txt"), "the cat sat.\nthe QUEEN sat.\n");
  const Outcome unknown = run.work.run({"eval", "run", "--text", "b.txt"});
  CHECK(unknown.code == 3);
  CHECK(unknown.out.empty());
  CHECK_THAT(unknown.err, contains("offset 17") && contains("'Q'") && contains("b.txt"));
  spill(run.work.path("c.txt"), "t");
  CHECK(run.work.run({"eval", "run", "--text", "c.txt"}).code == 3);
  CHECK(run.work.run({"eval", "run", "--text", "absent.txt"}).code == 3);
}

TEST_CASE("eval of a split refuses a text that has changed", "[cli][run]") {
  TrainedRun run;
  std::string text = training_text();
  text[10] = text[11];
  spill(run.work.path("text.txt"), text);
  const Outcome outcome = run.work.run({"eval", "run"});
  CHECK(outcome.code == 3);
  CHECK_THAT(outcome.err, contains("sha256"));
}

TEST_CASE("a run without a split says that there is none", "[cli][run]") {
  TrainedRun run({"--set", "corpus.split=[1, 0, 0]"});
  const Outcome outcome = run.work.run({"eval", "run"});
  CHECK(outcome.code == 2);
  CHECK_THAT(outcome.err, contains("validation") && contains("--text"));
}

TEST_CASE("inspect shows what a checkpoint holds", "[cli][run]") {
  TrainedRun run;
  const Outcome table = run.work.run({"inspect", "run"});
  CHECK(table.code == 0);
  CHECK_THAT(table.out, contains("rnn.weight_ih_l0") && contains("head.bias") && contains("sha256"));
  const Outcome outcome = run.work.run({"inspect", "run/latest", "--json"});
  CHECK(outcome.code == 0);
  const json object = json::parse(outcome.out);
  CHECK(object.at("schema") == 1);
  CHECK(object.at("step") == 20);
  CHECK(object.at("shape").at("hidden") == 12);
  CHECK(object.at("hashes").contains("model.safetensors"));
  bool found = false;
  for (const json& tensor : object.at("tensors")) {
    if (tensor.at("name") == "rnn.weight_hh_l0") {
      found = true;
      CHECK(tensor.at("shape") == json::array({48, 12}));
      CHECK(tensor.at("dtype") == "F32");
    }
  }
  CHECK(found);
  CHECK(object.at("config").get<std::string>().find("hidden: 12") != std::string::npos);
}

TEST_CASE("the ten lines of the documentation run", "[cli][run]") {
  TrainedRun run;
  const Outcome outcome = run.work.run({"run", "the "}, CHARRNN_EXAMPLE);
  CAPTURE(outcome.err);
  CHECK(outcome.code == 0);
  CHECK(outcome.out.size() == 41);
  CHECK(run.work.run({"nowhere"}, CHARRNN_EXAMPLE).code == 3);
}

}  // namespace charrnn
