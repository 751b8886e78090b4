// The command line as a contract: help, version, exit codes, messages, and the commands that need no run.
#include <algorithm>
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

constexpr const char* kTiny =
    "corpus: {text: \"the cat sat on the mat, the dog sat on the log\", split: [1, 0, 0]}\n"
    "model: {cell: lstm, layers: 2, hidden: 8, dropout: 0.25}\n"
    "train: {batch: 3, sequence: 5, epochs: 2}\n"
    "run: {dir: run, device: cpu}\n";

}  // namespace

TEST_CASE("each command's help names its flags", "[cli]") {
  const auto [command, flags] = GENERATE(table<std::string, std::vector<std::string>>({
      {"train",
       {"--config", "--set", "--device", "--implementation", "--threads", "--minutes", "--steps", "--resume",
        "--output", "--profile", "--dry-run", "--json"}},
      {"sample",
       {"RUN|CHECKPOINT", "--length", "--temperature", "--prime", "--prime-file", "--seed", "--top-k", "--stop",
        "--count", "--greedy", "--device", "--implementation", "--threads", "--precision", "--json"}},
      {"eval",
       {"RUN|CHECKPOINT", "--text", "--split", "--streams", "--device", "--implementation", "--threads", "--precision",
        "--json"}},
      {"inspect", {"RUN|CHECKPOINT", "--json"}},
      {"bench",
       {"--config", "--set", "--what", "--vocabulary", "--steps", "--count", "--streams", "--length", "--repeats",
        "--device", "--implementation", "--threads", "--precision", "--profile", "--json"}},
      {"gradcheck", {"--cell", "--device", "--implementation"}},
      {"devices", {"--json"}},
  }));
  Workplace work;
  const Outcome outcome = work.run({command, "--help"});
  CHECK(outcome.code == 0);
  CHECK(outcome.err.empty());
  for (const std::string& flag : flags) CHECK_THAT(outcome.out, contains(flag));
  CHECK(work.run({command, "-h"}).out == outcome.out);
}

TEST_CASE("the program's help names every command and exit code", "[cli]") {
  Workplace work;
  const Outcome outcome = work.run({GENERATE("--help", "-h", "help")});
  CHECK(outcome.code == 0);
  CHECK(outcome.err.empty());
  for (const char* word :
       {"train", "sample", "eval", "inspect", "bench", "gradcheck", "devices", "--config", "75", "143"}) {
    CHECK_THAT(outcome.out, contains(word));
  }
}

TEST_CASE("the version tells build, compiler and backends", "[cli]") {
  Workplace work;
  const Outcome outcome = work.run({"--version"});
  CHECK(outcome.code == 0);
  CHECK(outcome.err.empty());
  CHECK_THAT(outcome.out, Catch::Matchers::StartsWith("charrnn-gpu "));
  for (const char* word : {"build:", "compiler:", "backend cpu:", "backend cuda:"})
    CHECK_THAT(outcome.out, contains(word));
}

TEST_CASE("a wrong command line exits 2, says why and where help is", "[cli]") {
  const auto [arguments, message] = GENERATE(table<std::vector<std::string>, std::string>({
      {std::vector<std::string>{}, "no command"},
      {{"trian"}, "did you mean train?"},
      {{"sampel", "run"}, "did you mean sample?"},
      {{"frobnicate"}, "unknown command 'frobnicate'"},
      {{"--confg", "a.yaml"}, "did you mean --config?"},
      {{"train"}, "--config is missing"},
      {{"train", "--config"}, "--config"},
      {{"train", "--config", "a.yaml", "more"}, "more"},
      {{"train", "--config", "a.yaml", "--minutes", "0"}, "--minutes"},
      {{"train", "--config", "a.yaml", "--minutes", "nan"}, "--minutes"},
      {{"train", "--config", "a.yaml", "--steps", "0"}, "--steps"},
      {{"train", "--config", "a.yaml", "--steps", "many"}, "--steps"},
      {{"train", "--config", "a.yaml", "--implementation", "fast"}, "--implementation is 'fast'"},
      {{"sample", "run", "--implementation", "fast"}, "--implementation is 'fast'"},
      {{"bench", "--config", "a.yaml", "--implementation", "fast"}, "--implementation is 'fast'"},
      {{"train", "--config", "a.yaml", "--profile", "10-20"}, "--profile is '10-20'"},
      {{"train", "--config", "a.yaml", "--profile", "steps=0-2"}, "--profile"},
      {{"train", "--config", "a.yaml", "--profile", "steps=5-4"}, "--profile"},
      {{"train", "--config", "a.yaml", "--profile", "steps=5-"}, "--profile"},
      {{"train", "--config", "a.yaml", "--profile", "steps=1-99999999999999999999"}, "--profile"},
      {{"bench", "--config", "a.yaml", "--profile", "steps=1-21"}, "only 20 steps"},
      {{"train", "--config", "a.yaml", "--threads", "-2"}, "--threads"},
      {{"--dry-run"}, "--config is missing"},
      {{"sample"}, "RUN|CHECKPOINT is missing"},
      {{"sample", "run", "--temprature", "1"}, "did you mean --temperature?"},
      {{"sample", "run", "--temperature", "0"}, "--greedy"},
      {{"sample", "run", "--temperature", "-1"}, "--temperature"},
      {{"sample", "run", "--temperature", "inf"}, "--temperature"},
      {{"sample", "run", "--length", "0"}, "--length"},
      {{"sample", "run", "--count", "0"}, "--count"},
      {{"sample", "run", "--top-k", "0"}, "--top-k"},
      {{"sample", "run", "--seed", "-1"}, "--seed"},
      {{"sample", "run", "--prime", "a", "--prime-file", "b"}, "--prime-file"},
      {{"sample", "run", "--precision", "fp8"}, "--precision"},
      {{"eval"}, "RUN|CHECKPOINT is missing"},
      {{"eval", "run", "--split", "train"}, "--split"},
      {{"eval", "run", "--split", "test", "--text", "a"}, "--split"},
      {{"eval", "run", "--streams", "0"}, "--streams"},
      {{"inspect", "a", "b"}, "unexpected word 'b'"},
      {{"bench"}, "--config is missing"},
      {{"bench", "--config", "a", "--vocabulary", "1"}, "--vocabulary"},
      {{"bench", "--config", "a", "--what", "train"}, "--what is 'train', expected step, sample or eval"},
      {{"bench", "--config", "a", "--what", "sample", "--steps", "3"}, "--steps is for --what step, but"},
      {{"bench", "--config", "a", "--what", "eval", "--profile", "steps=1"}, "--profile is for --what step, but"},
      {{"bench", "--config", "a", "--what", "eval", "--count", "3"}, "--count is for --what sample, but"},
      {{"bench", "--config", "a", "--what", "sample", "--streams", "3"}, "--streams is for --what eval, but"},
      {{"bench", "--config", "a", "--length", "3"}, "--length is for --what sample and eval, but --what is step"},
      {{"bench", "--config", "a", "--repeats", "3"}, "--repeats is for --what sample and eval"},
      {{"bench", "--config", "a", "--what", "sample", "--length", "0"}, "--length is 0"},
      {{"bench", "--config", "a", "--what", "eval", "--length", "6", "--streams", "7"}, "--streams is 7, expected at"},
      {{"gradcheck", "--cell", "transformer"}, "--cell"},
      {{"devices", "--jsn"}, "did you mean --json?"},
      {{"devices", "extra"}, "extra"},
  }));
  Workplace work;
  const Outcome outcome = work.run(arguments);
  CAPTURE(arguments, outcome.err);
  CHECK(outcome.code == 2);
  CHECK(outcome.out.empty());
  CHECK_THAT(outcome.err, contains("error: "));
  CHECK_THAT(outcome.err, contains(message));
  CHECK_THAT(outcome.err, contains("--help"));
}

TEST_CASE("a config that is not there exits 2 and says what there is", "[cli]") {
  Workplace work;
  std::filesystem::create_directory(work.path("shipped"));
  spill(work.path("shipped/tiny-words.yaml"), kTiny);
  work.set("CHARRNN_CONFIGS", work.path("shipped").string());
  const Outcome near = work.run({"--config", "tiny-word"});
  CHECK(near.code == 2);
  CHECK_THAT(near.err, contains("tiny-word") && contains("did you mean tiny-words?"));
  const Outcome path = work.run({"--config", "folder/tiny-words"});
  CHECK(path.code == 2);
  CHECK_THAT(path.err, contains("no such file"));
  const Outcome folder = work.run({"--config", "./shipped"});
  CHECK(folder.code == 2);
  CHECK_THAT(folder.err, contains("folder"));
}

TEST_CASE("a name without a slash is taken from the shipped configs, and the program says so", "[cli]") {
  Workplace work;
  std::filesystem::create_directory(work.path("shipped"));
  spill(work.path("shipped/tiny-words.yaml"), kTiny);
  work.set("CHARRNN_CONFIGS", work.path("shipped").string());
  const Outcome outcome = work.run({"--config", GENERATE("tiny-words", "tiny-words.yaml"), "--dry-run"});
  CHECK(outcome.code == 0);
  CHECK_THAT(outcome.err, contains(work.path("shipped/tiny-words.yaml").string()));
  CHECK(!std::filesystem::exists(work.path("run")));
  spill(work.path("tiny-words.yaml"), kTiny);  // the user's own file wins, silently
  CHECK_THAT(work.run({"--config", "tiny-words.yaml", "--dry-run"}).err, !contains("shipped"));
}

TEST_CASE("a wrong config exits 2", "[cli]") {
  Workplace work;
  spill(work.path("a.yaml"), std::string(kTiny) + "modle: {}\n");
  const Outcome outcome = work.run({"--config", "a.yaml"});
  CHECK(outcome.code == 2);
  CHECK_THAT(outcome.err, contains("a.yaml") && contains("modle") && contains("model"));
  spill(work.path("b.yaml"), kTiny);
  const Outcome set = work.run({"--config", "b.yaml", "--set", "model.hidden=-3"});
  CHECK(set.code == 2);
  CHECK_THAT(set.err, contains("model.hidden"));
}

TEST_CASE("a device or precision that is not there exits 4, a name that is none exits 2", "[cli]") {
  Workplace work;
  spill(work.path("a.yaml"), kTiny);
  const Outcome cuda = work.run({"bench", "--config", "a.yaml", "--device", "cuda:99"});
  CHECK(cuda.code == 4);
  CHECK_THAT(cuda.err, contains("cuda"));
  CHECK(work.run({"bench", "--config", "a.yaml", "--device", "tpu"}).code == 2);
  const Outcome precision = work.run({"bench", "--config", "a.yaml", "--device", "cpu", "--precision", "fp16"});
  CHECK(precision.code == 4);
  CHECK_THAT(precision.err, contains("precision") && contains("fp32"));
}

TEST_CASE("bf16 on a processor without it exits 4 and says what there is, and auto takes fp32", "[cli]") {
  Workplace work;
  spill(work.path("a.yaml"), kTiny);
  work.set("DNNL_MAX_CPU_ISA", "AVX2");
  const Outcome bf16 = work.run({"bench", "--config", "a.yaml", "--device", "cpu", "--precision", "bf16"});
  CHECK(bf16.code == 4);
  CHECK_THAT(bf16.err, contains("no bf16 on this processor") && contains("computes in fp32") && contains("auto"));
  const Outcome automatic = work.run({"bench", "--config", "a.yaml", "--device", "cpu", "--steps", "1", "--json"});
  CHECK(automatic.code == 0);
  CHECK_THAT(automatic.out, contains("\"precision\":\"fp32\""));
}

TEST_CASE("a GPU that is not there exits 4, with the reason and what to do", "[cli]") {
  Workplace work;
  spill(work.path("a.yaml"), kTiny);
  work.set("FAKE_CUDA", "no driver");
  work.set("CHARRNN_CUDA_LIBRARY", CHARRNN_FAKE_CUDA);
  const Outcome driver = work.run({"--config", "a.yaml", "--device", "cuda"});
  CHECK(driver.code == 4);
  CHECK_THAT(driver.err, contains("device cuda: there is no NVIDIA driver") && contains("--device cpu"));
  CHECK(!fs::exists(work.path("runs")));
  CHECK(work.run({"bench", "--config", "a.yaml", "--steps", "1", "--device", "auto"}).code == 0);  // auto: on the CPU
  work.set("CHARRNN_CUDA_LIBRARY", work.path("gone.so").string());
  const Outcome gone = work.run({"bench", "--config", "a.yaml", "--device", "auto"});
  CHECK(gone.code == 4);
  CHECK_THAT(gone.err, contains("gone.so") && contains("CHARRNN_CUDA_LIBRARY"));
}

TEST_CASE("the CUDA library is found beside the program and in lib beside its folder", "[cli]") {
  Workplace work;
  work.set("FAKE_CUDA", "two devices");
  fs::create_directories(work.path("bin"));
  fs::create_directories(work.path("lib"));
  const std::string program = work.path("bin/charrnn-gpu").string();
  fs::copy_file(CHARRNN_PROGRAM, program);
  const Outcome none = work.run({"devices"}, program);
  CHECK_THAT(none.out,
             contains("this build has no CUDA backend (libcharrnn_cuda.so was not found beside the program)"));
  const fs::path place = work.path(GENERATE("bin/libcharrnn_cuda.so", "lib/libcharrnn_cuda.so"));
  fs::copy_file(CHARRNN_FAKE_CUDA, place);
  CHECK_THAT(work.run({"devices"}, program).out, contains("cuda:1") && contains("Fake GPU 1"));
  spill(place, "not a library");
  const Outcome broken = work.run({"devices"}, program);
  CHECK(broken.code == 0);
  CHECK_THAT(broken.out, contains("cannot be loaded"));
  spill(work.path("a.yaml"), kTiny);
  CHECK(work.run({"bench", "--config", "a.yaml", "--steps", "1", "--device", "auto"}, program).code ==
        0);  // auto: no error
}

TEST_CASE("each GPU is listed, with its memory, and cuDNN", "[cli]") {
  Workplace work;
  work.set("FAKE_CUDA", "two devices");
  work.set("CHARRNN_CUDA_LIBRARY", CHARRNN_FAKE_CUDA);
  const Outcome table = work.run({"devices"});
  CHECK(table.code == 0);
  for (const char* word :
       {"cuda:0", "absent", "too old", "cuda:1", "available", "bf16, fp32", "3.0 GiB", "cuDNN: 9.99"})
    CHECK_THAT(table.out, contains(word));
  const json object = json::parse(work.run({"devices", "--json"}).out);
  CHECK(object.at("cudnn") == "9.99");
  const json& old = object.at("devices").at(1);
  CHECK(old.at("device") == "cuda:0");
  CHECK(old.at("available") == false);
  CHECK_THAT(old.at("detail").get<std::string>(), contains("too old"));
  CHECK(object.at("devices").at(2).at("device") == "cuda:1");
  CHECK(object.at("devices").at(2).at("memory_bytes") == std::int64_t{3} << 30U);
}

TEST_CASE("bench on a GPU reports the device's own clock, launches and memory", "[cli]") {
  Workplace work;
  spill(work.path("a.yaml"), kTiny);
  work.set("CHARRNN_CUDA_LIBRARY", CHARRNN_FAKE_GPU);
  work.set("FAKE_GPU_LOG", work.path("log").string());
  const Outcome text = work.run({"bench", "--config", "a.yaml", "--steps", "5", "--device", "cuda"});
  CHECK(text.code == 0);
  for (const char* word : {"1.500 ms/step", "TFLOP/s", "2.0)", "launches/step", "42", "5.0 MiB", "fused"})
    CHECK_THAT(text.out, contains(word));
  CHECK_THAT(text.err, contains("fake note"));
  const Outcome outcome = work.run({"bench", "--config", "a.yaml", "--steps", "5", "--device", "cuda", "--json",
                                    "--implementation", "cudnn", "--profile", "steps=2-3"});
  CHECK(outcome.code == 0);
  const json object = json::parse(outcome.out);
  CHECK(object.at("device_ms_per_step_median") == 1.5);
  CHECK(object.at("launches_per_step") == 42);
  CHECK(object.at("peak_memory_bytes") == 5 << 20);
  CHECK(object.at("peak_gflops") == 2000);
  CHECK(object.at("gflops").get<double>() == Approx(object.at("gflop_per_step").get<double>() / 1.5e-3));
  CHECK(object.at("implementation") == "cudnn");
  CHECK(object.at("threads") == 0);

  std::istringstream log(slurp(work.path("log")));  // of both runs
  std::vector<std::string> since_hold;
  for (std::string line; std::getline(log, line);) {
    if (line == "hold text") since_hold.clear();
    since_hold.push_back(line);
  }
  CHECK(since_hold.front() == "hold text");
  const auto on = std::find(since_hold.begin(), since_hold.end(), "profile on");
  const auto off = std::find(since_hold.begin(), since_hold.end(), "profile off");
  REQUIRE(on < off);
  REQUIRE(off < since_hold.end());
  CHECK(std::count(since_hold.begin(), on, "result") == 4);  // 3 to warm up, and the first
  CHECK(std::vector<std::string>(on + 1, off) == std::vector<std::string>{"step 5", "step 6", "result", "result"});
}

TEST_CASE("the devices are listed, the absent ones with a reason", "[cli]") {
  Workplace work;
  const Outcome table = work.run({"devices"});
  CHECK(table.code == 0);
  CHECK_THAT(table.out, contains("cpu") && contains("cuda"));
  const Outcome outcome = work.run({"devices", "--json"});
  CHECK(outcome.code == 0);
  CHECK(outcome.err.empty());
  const json object = json::parse(outcome.out);
  CHECK(object.at("schema") == 1);
  for (const json& device : object.at("devices")) {
    CHECK(device.at("available").is_boolean());
    CHECK(!device.at("detail").get<std::string>().empty());
    CHECK(device.at("precisions").is_array());
  }
  CHECK(object.at("devices").at(0).at("backend") == "cpu");
  CHECK(object.at("devices").at(0).at("available") == true);
}

TEST_CASE("bench prints one object with the contract's numbers and touches no run", "[cli]") {
  Workplace work;
  spill(work.path("a.yaml"), kTiny);
  const std::string cell = GENERATE("lstm", "gru", "rnn");
  const Outcome outcome = work.run({"bench", "--config", "a.yaml", "--set", "model.cell=" + cell, "--vocabulary", "11",
                                    "--steps", "4", "--device", "cpu", "--threads", "1", "--json"});
  CHECK(outcome.code == 0);
  const json object = json::parse(outcome.out);
  CHECK(object.at("schema") == 1);
  for (const char* field : {"ms_per_step_median", "ms_per_step_min", "ms_per_step_max", "chars_per_second", "gflops",
                            "peak_gflops", "peak_memory_bytes"}) {
    CHECK(object.at(field).get<double>() > 0);
  }
  CHECK(object.at("ms_per_step_min") <= object.at("ms_per_step_median"));
  CHECK(object.at("ms_per_step_median") <= object.at("ms_per_step_max"));
  CHECK(object.at("what") == "step");
  CHECK(object.at("device") == "cpu");
  CHECK(object.at("precision").is_string());
  CHECK(object.at("threads") == 1);
  CHECK(!std::filesystem::exists(work.path("run")));
  CHECK(work.run({"bench", "--config", "a.yaml", "--steps", "2"}).code == 0);
}

TEST_CASE("bench times sampling and evaluation of a config's network, and touches no run", "[cli]") {
  Workplace work;
  spill(work.path("a.yaml"), kTiny);
  const auto [what, lanes_flag, lanes] =
      GENERATE(table<std::string, std::string, int>({{"sample", "count", 3}, {"eval", "streams", 7}}));
  const std::vector<std::string> command{"bench",
                                         "--config",
                                         "a.yaml",
                                         "--what",
                                         what,
                                         "--vocabulary",
                                         "11",
                                         "--length",
                                         "30",
                                         "--repeats",
                                         "4",
                                         "--device",
                                         "cpu",
                                         "--threads",
                                         "1",
                                         "--" + lanes_flag,
                                         std::to_string(lanes)};
  std::vector<std::string> as_json = command;
  as_json.emplace_back("--json");
  const Outcome outcome = work.run(as_json);
  CAPTURE(outcome.err);
  CHECK(outcome.code == 0);
  const json object = json::parse(outcome.out);
  CHECK(object.at("schema") == 1);
  CHECK(object.at("what") == what);
  for (const char* field : {"us_per_char_median", "us_per_char_min", "us_per_char_max", "chars_per_second", "gflops",
                            "gflop_per_char", "peak_memory_bytes"}) {
    CHECK(object.at(field).get<double>() > 0);
  }
  CHECK(object.at("us_per_char_min") <= object.at("us_per_char_median"));
  CHECK(object.at("us_per_char_median") <= object.at("us_per_char_max"));
  CHECK(object.at("chars_per_second").get<double>() == Approx(1e6 / object.at("us_per_char_median").get<double>()));
  // 2 layers of 4 gates and 8 units, one input product between them, the head: 2 (3 * 4 * 8^2 + 8 * 11) flops.
  CHECK(object.at("gflop_per_char").get<double>() == Approx(1712e-9));
  CHECK(object.contains("peak_gflops") == (what == "eval"));
  CHECK(object.at(lanes_flag) == lanes);
  CHECK(object.at("length") == 30);
  CHECK(object.at("repeats") == 4);
  const std::string precision = object.at("precision");  // auto: what the processor has
  CHECK((precision == "fp32" || precision == "bf16"));
  CHECK(object.at("hidden") == 8);
  CHECK_THAT(work.run(command).out, contains("us/char") && contains("of 4 times") && contains("MFLOP a character"));
  std::vector<std::string> in_fp16 = command;
  in_fp16.insert(in_fp16.end(), {"--precision", "fp16"});
  CHECK(work.run(in_fp16).code == 4);
  CHECK(!std::filesystem::exists(work.path("run")));
}

TEST_CASE("gradients of every cell agree with numeric ones", "[cli]") {
  Workplace work;
  const Outcome all = work.run({"gradcheck", "--device", "cpu"});
  CAPTURE(all.out, all.err);
  CHECK(all.code == 0);
  for (const char* word : {"lstm", "gru", "rnn", "rnn.weight_hh_l1", "head.bias", "ok"})
    CHECK_THAT(all.out, contains(word));
  const Outcome gru = work.run({"gradcheck", "--cell", "gru"});
  CHECK(gru.code == 0);
  CHECK_THAT(gru.out, !contains("lstm"));
}

TEST_CASE("a result that cannot be written is a failure", "[cli]") {
  Workplace work;
  const Outcome outcome =
      work.wait(work.start({GENERATE("--help", "--version", "devices")}, CHARRNN_PROGRAM, "/dev/full"));
  CHECK(outcome.code == 1);
  CHECK_THAT(outcome.err, contains("standard output"));
}

TEST_CASE("a run or checkpoint that is not there exits 3", "[cli]") {
  Workplace work;
  const std::string command = GENERATE("sample", "eval", "inspect");
  const Outcome outcome = work.run({command, "nowhere"});
  CHECK(outcome.code == 3);
  CHECK(outcome.out.empty());
  CHECK_THAT(outcome.err, contains("nowhere"));
}

}  // namespace charrnn
