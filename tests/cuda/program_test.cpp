// The program itself, with the CUDA backend on the device made of the CPU: whole runs against those of the CPU backend,
// and against themselves with other schedules, resumed, streamed. A finding of the checker ends the program with code
// 86, so that every run here is also one without a finding.
#include <signal.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>
#include <nlohmann/json.hpp>
#include <optional>
#include <sstream>
#include <thread>

#include "cli/program.h"

namespace charrnn {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using testing::contains;
using testing::Outcome;
using testing::slurp;
using testing::spill;
using testing::Workplace;

using Arguments = std::vector<std::string>;
using Environment = std::vector<std::pair<std::string, std::string>>;

constexpr const char* kImplementations[] = {"fused", "cudnn"};

constexpr const char* kConfig =
    "corpus: {path: text.txt, split: [0.8, 0.1, 0.1]}\n"
    "model: {cell: lstm, layers: 2, hidden: 13, dropout: 0.25}\n"
    "train: {batch: 3, sequence: 9, epochs: 100, seed: 7, precision: fp32, clip: {norm: 0.5},\n"
    "        optimizer: {name: adam, learning_rate: 0.01}}\n"
    "validate: {every: 4}\n"
    "checkpoint: {every: 4, keep: 9}\n"
    "sample: {every: 5, length: 20, prime: \"t\"}\n"
    "run: {dir: run, device: cuda}\n";

/// Characters of words in an order without a short period.
std::string words(std::size_t length) {
  constexpr const char* kWords[] = {"the ", "cat ", "sat ", "on ", "a ", "mat.\n", "dogs ", "ran "};
  std::string text;
  for (unsigned i = 1; text.size() < length; i = i * 1103515245U + 12345U) text += kWords[i >> 29U];
  text.resize(length);
  return text;
}

struct Place : Workplace {
  explicit Place(const Environment& environment = {}) {
    set("CHARRNN_CUDA_LIBRARY", CHARRNN_ON_CPU);
    for (const auto& [name, value] : environment) set(name, value);
    spill(path("text.txt"), words(600));
    spill(path("a.yaml"), kConfig);
  }

  Outcome train(const std::string& folder, int steps, const Arguments& more = {}) {
    Arguments arguments{"--config", "a.yaml", "--output", folder, "--steps", std::to_string(steps), "--threads", "1"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return run(arguments);
  }
  void train_well(const std::string& folder, int steps, const Arguments& more = {}) {
    const Outcome outcome = train(folder, steps, more);
    INFO(outcome.err);
    REQUIRE(outcome.code == 0);
  }
  /// Lines of metrics.jsonl without the time that a step took.
  std::vector<json> metrics(const std::string& folder) const {
    std::vector<json> lines;
    std::ifstream file(path(folder) / "metrics.jsonl");
    for (std::string line; std::getline(file, line);) {
      lines.push_back(json::parse(line));
      lines.back().erase("ms_per_step");
    }
    return lines;
  }
};

/// The numbers in a safetensors file: what follows its header, which knows the length of metrics.jsonl, too.
std::string numbers_of(const fs::path& file) {
  const std::string content = slurp(file);
  std::uint64_t header = 0;
  REQUIRE(content.size() >= sizeof header);
  std::memcpy(&header, content.data(), sizeof header);
  return content.substr(sizeof header + header);
}

/// Samples, and the weights, moments and states of the newest checkpoint, to the bit.
void check_same_end(const Place& place_a, const std::string& a, const Place& place_b, const std::string& b) {
  CHECK(slurp(place_a.path(a) / "samples.txt") == slurp(place_b.path(b) / "samples.txt"));
  int files = 0;
  for (const auto& entry : fs::directory_iterator(place_a.path(a) / "latest")) {
    if (entry.path().extension() != ".safetensors") continue;
    ++files;
    INFO(entry.path().filename());
    const bool same = numbers_of(entry.path()) == numbers_of(place_b.path(b) / "latest" / entry.path().filename());
    CHECK(same);
  }
  CHECK(files > 0);
}

void check_same_run(const Place& place_a, const std::string& a, const Place& place_b, const std::string& b) {
  CHECK(place_a.metrics(a) == place_b.metrics(b));
  check_same_end(place_a, a, place_b, b);
}

Arguments on(const std::string& implementation, const std::string& precision) {
  return {"--implementation", implementation, "--set", "train.precision=" + precision};
}

// Losses against the CPU backend's

/// How far a loss, some 2.7 nats at most, may be from that of the CPU backend. fp32: both sum up in fp32, in other
/// orders, K = max(H, V) terms over T steps in L layers, and 12 steps of training that feed each other:
/// 4 ceil(log2(K T L steps)) eps. Coarser: weights and activations are rounded by half of eps, each on its own, so that
/// the loss moves by about the norm of its gradient, below 1 here, times that; one eps is twice as much.
double tolerance(const std::string& precision) {
  if (precision == "bf16") return 0x1p-7;
  if (precision != "fp32") return 0x1p-10;
  return 4 * std::ceil(std::log2(15.0 * 9 * 2 * 12)) * 0x1p-23 * 2.7;
}

void check_close(const std::vector<json>& actual, const std::vector<json>& expected, double bound) {
  REQUIRE(actual.size() == expected.size());
  for (std::size_t i = 0; i < actual.size(); ++i) {
    INFO("step " << i + 1);
    for (const char* const key : {"train_nats_per_char", "validation_nats_per_char"}) {
      REQUIRE(actual[i].contains(key) == expected[i].contains(key));
      if (!actual[i].contains(key)) continue;
      INFO(key);
      CHECK(std::abs(actual[i].at(key).get<double>() - expected[i].at(key).get<double>()) <= bound);
    }
    const double norm = expected[i].at("gradient_norm");
    CHECK(std::abs(actual[i].at("gradient_norm").get<double>() - norm) <= bound * (1 + 10 * norm));
    CHECK_FALSE(actual[i].contains("skipped"));
  }
}

TEST_CASE("hello learns on the device what it learns on the CPU", "[cuda]") {
  Place place;
  const Arguments hello{"--config",  std::string(CHARRNN_SOURCE_DIR) + "/configs/hello.yaml",
                        "--threads", "1",
                        "--set",     "train.precision=fp32"};
  const auto run = [&](const std::string& folder, const Arguments& more) {
    Arguments arguments = hello;
    arguments.insert(arguments.end(), {"--output", folder});
    arguments.insert(arguments.end(), more.begin(), more.end());
    const Outcome outcome = place.run(arguments);
    INFO(outcome.err);
    REQUIRE(outcome.code == 0);
    return outcome;
  };
  run("cpu", {"--device", "cpu"});
  for (const std::string implementation : kImplementations) {
    INFO(implementation);
    const Outcome outcome = run(implementation, {"--device", "cuda", "--implementation", implementation});
    CHECK_THAT(outcome.out, contains("scores at step 300"));
    const auto cpu = place.metrics("cpu"), cuda = place.metrics(implementation);
    REQUIRE(cuda.size() == 300);
    // 300 steps feed each other, but the loss falls to 0.0003: its errors fall with it. Both are off by as much.
    for (std::size_t i = 0; i < cuda.size(); ++i) {
      const double a = cuda[i].at("train_nats_per_char"), b = cpu[i].at("train_nats_per_char");
      CHECK(std::abs(a - b) <= 2 * 300 * 0.02 * 4 * std::ceil(std::log2(4.0 * 4 * 300)) * 0x1p-23);
    }
    CHECK(cuda.back().at("train_nats_per_char") < 0.001);
    CHECK(slurp(place.path("cpu") / "samples.txt") == slurp(place.path(implementation) / "samples.txt"));
  }
}

TEST_CASE("losses, validations and samples are the CPU's, for every cell, optimizer, clip and precision", "[cuda]") {
  struct Kind {
    std::string name;
    Arguments settings;
    std::vector<std::string> precisions;
  };
  const std::vector<Kind> kinds{{"lstm, adam, norm", {}, {"fp32", "tf32", "bf16", "fp16"}},
                                {"gru, rmsprop, value",
                                 {"--set", "model.cell=gru", "--set", "train.clip={value: 0.05}", "--set",
                                  "train.optimizer={name: rmsprop, learning_rate: 0.005}"},
                                 {"fp32", "bf16"}},
                                {"rnn, adagrad, no clip",
                                 {"--set", "model.cell=rnn", "--set", "model.nonlinearity=tanh", "--set",
                                  "train.clip=none", "--set", "train.optimizer={name: adagrad, learning_rate: 0.02}"},
                                 {"fp32", "tf32"}},
                                {"relu, sgd, norm, no dropout",
                                 {"--set", "model.cell=rnn", "--set", "model.nonlinearity=relu", "--set",
                                  "model.dropout=0", "--set",
                                  "train.optimizer={name: sgd, learning_rate: 0.2, momentum: 0.9}"},
                                 {"fp32", "fp16"}}};
  for (const Kind& kind : kinds) {
    Place place(Environment{{"HOST_CUDA_SEED", "3"}});
    Arguments on_cpu = kind.settings;
    on_cpu.insert(on_cpu.end(), {"--device", "cpu"});
    place.train_well("cpu", 12, on_cpu);
    for (const std::string implementation : kImplementations) {
      for (const std::string& precision : kind.precisions) {
        INFO(kind.name << " " << implementation << " " << precision);
        Arguments settings = kind.settings;
        const Arguments more = on(implementation, precision);
        settings.insert(settings.end(), more.begin(), more.end());
        const std::string folder = implementation + precision;
        place.train_well(folder, 12, settings);
        check_close(place.metrics(folder), place.metrics("cpu"), tolerance(precision));
        if (precision == "fp32") {
          CHECK(slurp(place.path(folder) / "samples.txt") == slurp(place.path("cpu") / "samples.txt"));
        }
      }
    }
  }
}

// The same bits, whatever the schedule

TEST_CASE("a run without graphs, or with a wait after each launch, has the same bits", "[cuda]") {
  for (const std::string implementation : kImplementations) {
    INFO(implementation);
    const Arguments settings = on(implementation, "fp16");
    Place graph, no_graph(Environment{{"CHARRNN_GRAPH", "0"}}), waits(Environment{{"CHARRNN_SYNC", "1"}});
    for (Place* const place : {&graph, &no_graph, &waits}) place->train_well("run", 9, settings);
    check_same_run(graph, "run", no_graph, "run");
    check_same_run(graph, "run", waits, "run");
  }
}

TEST_CASE("over 30 seeds of the scheduler nothing is found and the bits are the same", "[cuda][seeds]") {
  const Arguments often{"--set", "validate.every=3",   "--set", "sample.every=3",
                        "--set", "checkpoint.every=0", "--set", "sample.length=5"};
  std::optional<Place> first[2];
  for (int seed = 0; seed < 30; ++seed) {
    const auto kind = static_cast<std::size_t>(seed % 2);
    INFO(kImplementations[kind] << " seed " << seed);
    Arguments settings = on(kImplementations[kind], "fp16");
    settings.insert(settings.end(), often.begin(), often.end());
    std::optional<Place> later;
    std::optional<Place>& place = first[kind] ? later : first[kind];
    place.emplace(Environment{{"HOST_CUDA_SEED", std::to_string(seed)}});
    place->train_well("run", 6, settings);
    check_same_run(*first[kind], "run", *place, "run");
  }
}

TEST_CASE("a run that is stopped goes on to the bits of one that is not", "[cuda]") {
  for (const std::string implementation : kImplementations) {
    for (const std::string precision : {"fp32", "fp16"}) {
      INFO(implementation << " " << precision);
      const Arguments settings = on(implementation, precision);
      Place place(Environment{{"HOST_CUDA_SEED", "5"}});
      place.train_well("whole", 13, settings);
      for (const int stop : {1, 6, 13}) place.train_well("parts", stop, settings);
      // In one, step 6 was its run's last, and was validated for that; so was step 1.
      auto whole = place.metrics("whole"), parts = place.metrics("parts");
      for (const std::size_t at : {0U, 5U}) parts[at].erase("validation_nats_per_char");
      CHECK(whole == parts);
      check_same_end(place, "whole", place, "parts");
    }
  }
}

TEST_CASE("a run that is killed goes on from its last checkpoint to the same bits", "[cuda]") {
  Place place;
  const Arguments settings = on("fused", "fp16");
  place.train_well("whole", 40, settings);
  const pid_t child = place.start({"--config", "a.yaml", "--output", "killed", "--steps", "40", "--threads", "1",
                                   settings[0], settings[1], settings[2], settings[3]});
  const fs::path checkpoint = place.path("killed") / "checkpoints" / "step-00000008";
  for (int i = 0; i < 6000 && !fs::exists(checkpoint); ++i) std::this_thread::sleep_for(std::chrono::milliseconds(5));
  kill(child, SIGKILL);
  CHECK(place.wait(child).code == 1000 + SIGKILL);
  place.train_well("killed", 40, settings);
  check_same_run(place, "whole", place, "killed");
}

TEST_CASE("a text that does not fit the device is streamed, to the same bits", "[cuda]") {
  constexpr std::size_t kText = 8U << 20U;
  for (const std::string implementation : kImplementations) {
    INFO(implementation);
    const auto train = [&](Place& place) {
      spill(place.path("text.txt"), words(kText));
      Arguments settings = on(implementation, "bf16");
      settings.insert(settings.end(), {"--set", "corpus.split=[0.98, 0.02, 0]", "--set", "validate.characters=100"});
      place.train_well("run", 9, settings);
    };
    // 32 MiB of work space a stream, the same for two streams of a second network, which stays free, and for all else
    // enough, but not for the text besides.
    const std::size_t streams = implementation == "fused" ? 4 : 3;
    const std::size_t memory = streams * (32U << 20U) + kText + (4U << 20U);
    Place held, streamed(Environment{{"HOST_CUDA_MEMORY", std::to_string(memory)}});
    Place told(Environment{{"CHARRNN_HOLD_TEXT", "0"}});
    for (Place* const place : {&held, &streamed, &told}) train(*place);
    check_same_run(held, "run", streamed, "run");
    check_same_run(held, "run", told, "run");
  }
}

// The other commands

TEST_CASE("sample and eval of a checkpoint give on the device what they give on the CPU", "[cuda]") {
  Place place;
  place.train_well("run", 12, on("fused", "fp32"));
  const auto both = [&](Arguments arguments) {
    Arguments cpu = arguments;
    cpu.insert(cpu.end(), {"--device", "cpu", "--threads", "1"});
    const Outcome expected = place.run(cpu);
    REQUIRE(expected.code == 0);
    std::vector<Outcome> all{expected};
    for (const std::string implementation : kImplementations) {
      Arguments cuda = arguments;
      cuda.insert(cuda.end(), {"--device", "cuda", "--implementation", implementation});
      all.push_back(place.run(cuda));
      INFO(all.back().err);
      REQUIRE(all.back().code == 0);
    }
    return all;
  };
  const Arguments sample{"sample", "run", "--length", "70", "--seed", "5", "--count", "3", "--precision", "fp32"};
  for (const Arguments& way : {Arguments{"--temperature", "0.7", "--prime", "the cat"}, Arguments{"--top-k", "3"},
                               Arguments{"--greedy", "--prime", "a"}}) {
    Arguments arguments = sample;
    arguments.insert(arguments.end(), way.begin(), way.end());
    const auto all = both(arguments);
    CHECK(all[0].out.size() > 200);
    CHECK(all[1].out == all[0].out);
    CHECK(all[2].out == all[0].out);
  }
  for (const Arguments& way : {Arguments{"--streams", "1"}, Arguments{"--split", "test", "--streams", "2"}}) {
    Arguments arguments{"eval", "run", "--json"};
    arguments.insert(arguments.end(), way.begin(), way.end());
    const auto all = both(arguments);
    const json expected = json::parse(all[0].out);
    for (std::size_t i = 1; i < all.size(); ++i) {
      const json scored = json::parse(all[i].out);
      CHECK(scored.at("characters") == expected.at("characters"));
      CHECK(std::abs(scored.at("nats_per_char").get<double>() - expected.at("nats_per_char").get<double>()) <=
            tolerance("fp32"));
    }
  }
}

json devices(Place& place) {
  const Outcome outcome = place.run({"devices", "--json"});
  INFO(outcome.err);
  REQUIRE(outcome.code == 0);
  return json::parse(outcome.out);
}

TEST_CASE("devices lists GPUs, their memory and precisions, and cuDNN's version", "[cuda]") {
  Place two(Environment{{"HOST_CUDA_DEVICES", "2"}, {"HOST_CUDA_MEMORY", "123456789"}});
  const json list = devices(two);
  REQUIRE(list.at("devices").size() == 3);
  for (int i = 0; i < 2; ++i) {
    const json& gpu = list.at("devices").at(static_cast<std::size_t>(i + 1));
    CHECK(gpu.at("device") == "cuda:" + std::to_string(i));
    CHECK(gpu.at("available") == true);
    CHECK(gpu.at("memory_bytes") == 123456789);
    CHECK(gpu.at("precisions") == json({"bf16", "fp16", "tf32", "fp32"}));
  }
  CHECK(list.at("cudnn").get<std::string>().substr(0, 2) == "9.");
  Place turing(Environment{{"HOST_CUDA_COMPUTE", "7.5"}});
  CHECK(devices(turing).at("devices").at(1).at("precisions") == json({"fp16", "fp32"}));
}

TEST_CASE("a GPU that is too old, or not there, is refused with the reason", "[cuda]") {
  Place old(Environment{{"HOST_CUDA_COMPUTE", "5.2"}});
  const json gpu = devices(old).at("devices").at(1);
  CHECK(gpu.at("available") == false);
  CHECK_THAT(gpu.at("detail").get<std::string>(), contains("it has compute capability 5.2, this build starts at "));
  const Outcome too_old = old.train("run", 1);
  CHECK(too_old.code == 4);
  CHECK_THAT(too_old.err, contains("it has compute capability 5.2"));

  Place none(Environment{{"HOST_CUDA_DEVICES", "0"}});
  CHECK_THAT(devices(none).at("devices").at(1).at("detail").get<std::string>(), contains("no NVIDIA GPU was found"));
  const Outcome absent = none.train("run", 1);
  CHECK(absent.code == 4);
  CHECK_THAT(absent.err, contains("no NVIDIA GPU was found") && contains("--device cpu"));

  Place one;
  const Outcome third = one.train("run", 1, {"--device", "cuda:3"});
  CHECK(third.code == 4);
  CHECK_THAT(third.err, contains("device cuda:3: there is no such device, only cuda:0"));

  Place turing(Environment{{"HOST_CUDA_COMPUTE", "7.5"}});
  const Outcome bf16 = turing.train("run", 1, on("fused", "bf16"));
  CHECK(bf16.code == 4);
  CHECK_THAT(bf16.err, contains("does not compute in bf16, only in fp16, fp32"));
}

TEST_CASE("without cuDNN the reason is listed, and the fused kernels compute with a note", "[cuda]") {
  // A file that is no library where the loader looks first.
  Place place;
  place.set("CHARRNN_CUDA_LIBRARY", CHARRNN_ON_CPU_WITHOUT_CUDNN);
  place.set("LD_LIBRARY_PATH", place.path("libraries").string());
  fs::create_directory(place.path("libraries"));
  spill(place.path("libraries") / "libcudnn.so.9", "no library");
  CHECK_THAT(devices(place).at("cudnn").get<std::string>(),
             contains("cuDNN: ") && contains("libcudnn.so.9") && contains("run.implementation fused works without it"));
  place.train_well("fused", 5, on("fused", "fp32"));
  const Outcome asked = place.train("cudnn", 5, on("cudnn", "fp32"));
  CHECK(asked.code == 0);
  CHECK_THAT(asked.err, contains("the recurrence is computed by the fused kernels, not by cuDNN: cuDNN: "));
  CHECK(place.metrics("fused") == place.metrics("cudnn"));
}

// Failures

TEST_CASE("a call that fails ends the program with code 4, whatever it was doing", "[cuda]") {
  for (const std::string at : {"1", "3", "17", "70", "300", "700"}) {
    INFO("call " << at);
    Place place(Environment{{"HOST_CUDA_FAIL_AT", at}});
    const Outcome outcome = place.train("run", 12, on("fused", "fp32"));
    INFO(outcome.err);
    CHECK(outcome.code == 4);
    CHECK_THAT(outcome.err, contains("error: ") && contains("cuda"));
  }
}

TEST_CASE("too little memory ends the program with code 4 and a batch that fits", "[cuda]") {
  constexpr int kBatch = 2000;
  Place place(Environment{{"HOST_CUDA_MEMORY", std::to_string(std::size_t{150} << 20U)}, {"HOST_CUDA_CHECK", "0"}});
  spill(place.path("text.txt"), words(std::size_t{100} * kBatch));
  const auto train = [&place](int batch) {
    return place.train("run", 2, {"--set", "train.batch=" + std::to_string(batch), "--set", "train.sequence=40"});
  };
  const Outcome refused = train(kBatch);
  INFO(refused.err);
  REQUIRE(refused.code == 4);
  const std::string told = "are free; train.batch ";
  CHECK_THAT(refused.err, contains(" MiB are needed for ") && contains(" MiB of 150 MiB " + told));
  const int fits = std::atoi(refused.err.c_str() + std::min(refused.err.find(told), refused.err.size()) + told.size());
  REQUIRE(fits > 100);
  REQUIRE(fits < kBatch);
  const Outcome fitting = train(fits);
  INFO(fitting.err);
  CHECK(fitting.code == 0);
}

#ifdef CHARRNN_REAL_LIBRARY
TEST_CASE("linked with the real libraries, the program says on a machine without a GPU what is missing", "[cuda]") {
  Place place;
  place.set("CHARRNN_CUDA_LIBRARY", CHARRNN_REAL_LIBRARY);
  const json gpu = devices(place).at("devices").at(1);
  if (gpu.at("available") == true) SUCCEED("this machine has a GPU");
  if (gpu.at("available") == true) return;
  CHECK(gpu.at("device").is_null());
  CHECK_THAT(gpu.at("detail").get<std::string>(),
             contains("no NVIDIA driver was found") || contains("no NVIDIA GPU was found"));
  const Outcome refused = place.train("run", 1);
  CHECK(refused.code == 4);
  CHECK_THAT(refused.err, contains(gpu.at("detail").get<std::string>()) && contains("--device cpu"));
}
#endif

}  // namespace
}  // namespace charrnn
