// The config: what is read, what is refused, and that it is written as it is read.
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "charrnn/config.h"
#include "charrnn/error.h"
#include "config/schema.h"
#include "support/catch.h"
#include "support/temp_folder.h"

using namespace charrnn;
namespace fs = std::filesystem;

namespace {

const std::string kBase = "corpus: {path: a.txt}\n";

std::string message_of(const std::string& yaml, const std::vector<std::string>& overrides = {}) {
  try {
    static_cast<void>(parse_config(yaml, "test.yaml", overrides));
  } catch (const ConfigError& e) {
    CHECK(e.code() == ExitCode::kUsage);
    return e.what();
  }
  return "";
}

bool holds(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

}  // namespace

TEST_CASE("what is absent takes its default, what is there is read", "[config]") {
  const Config c = parse_config(
      "corpus: {path: a.txt, split: [0.8, 0.15, 0.05], split_by: stream}\n"
      "model: {cell: rnn, nonlinearity: relu, layers: 4, hidden: 33, dropout: 0.25, init: {normal: 0.01}}\n"
      "train: {batch: 7, sequence: 9, epochs: 3, optimizer: {name: adam, beta1: 0.8}, clip: {norm: 2},\n"
      "        schedule: {kind: cosine, warmup_steps: 5, final: 0.2}, seed: 18446744073709551615, precision: bf16}\n"
      "sample: {at: [1, 5], prime: \"a\\n\"}\nrun: {implementation: fused}\ninit_from: runs/x\n",
      "x");
  CHECK(c.corpus.split[1] == 0.15);
  CHECK(c.corpus.split_by == SplitBy::kStream);
  CHECK(c.model.cell == Cell::kRnnRelu);
  CHECK(c.model.layers == 4);
  CHECK(c.model.hidden == 33);
  CHECK(c.model.dropout == 0.25);
  CHECK(c.model.init.kind == InitConfig::Kind::kNormal);
  CHECK(c.train.optimizer.name == OptimizerKind::kAdam);
  CHECK(c.train.optimizer.beta1 == 0.8);
  CHECK(c.train.optimizer.beta2 == 0.999);
  CHECK(c.train.clip.kind == ClipConfig::Kind::kNorm);
  CHECK(c.train.schedule.kind == ScheduleConfig::Kind::kCosine);
  CHECK(c.train.schedule.final_fraction == 0.2);
  CHECK(c.train.seed == UINT64_MAX);
  CHECK(c.train.precision == Precision::kBf16);
  CHECK(c.train.skip_limit == 10);
  CHECK(c.sample.at == std::vector<std::int64_t>{1, 5});
  CHECK(c.sample.prime == "a\n");
  CHECK(c.run.implementation == Implementation::kFused);
  CHECK(c.init_from == "runs/x");
  const Config d = parse_config(kBase + "train: {clip: none, schedule: none}\ninit_from: none\n", "x");
  CHECK(d.train.clip.kind == ClipConfig::Kind::kNone);
  CHECK(d.train.schedule.kind == ScheduleConfig::Kind::kConstant);
  CHECK_FALSE(d.init_from);
  CHECK(parse_config(kBase, "x").train.clip.threshold == 5.0);
  CHECK(parse_config(kBase, "x").run.implementation == Implementation::kAuto);
}

TEST_CASE("the written config reads back as the same, and can be read by a person", "[config]") {
  const std::string texts[] = {
      kBase, "corpus: {text: \"hello \\x01 \\\"q\\\" \\\\ \\t\\r\\n # : \\u00e4\"}\n",
      kBase +
          "model: {cell: gru, dropout: 0.1}\ntrain: {optimizer: {name: sgd, momentum: 0.9, learning_rate: 1.0e-7}}\n",
      kBase +
          "train: {schedule: {kind: plateau, factor: 0.3, patience: 9}, clip: none}\nsample: {at: [3, 4]}\n"
          "run: {implementation: cudnn}\n",
      kBase + "train: {schedule: {decay: 0.9, after_epoch: 4}, optimizer: {name: adagrad}}\ninit_from: \"none\"\n"};
  for (const std::string& text : texts) {
    const std::string written = to_yaml(parse_config(text, "x"));
    INFO(written);
    CHECK(to_yaml(parse_config(written, "y")) == written);
    CHECK(training_differences(parse_config(written, "y"), parse_config(text, "x")).empty());
  }
  CHECK(parse_config(to_yaml(parse_config(texts[1], "x")), "y").corpus.text == "hello \x01 \"q\" \\ \t\r\n # : \u00e4");
  CHECK(parse_config(to_yaml(parse_config(texts[4], "x")), "y").init_from == "none");  // quoted: a folder of that name
}

TEST_CASE("every shipped config is read", "[config]") {
  int count = 0;
  for (const auto& entry : fs::directory_iterator(fs::path(CHARRNN_SOURCE_DIR) / "configs")) {
    INFO(entry.path());
    const Config c = read_config(entry.path());
    CHECK(to_yaml(parse_config(to_yaml(c), "again")) == to_yaml(c));
    ++count;
  }
  CHECK(count == 8);
}

TEST_CASE("every key is documented", "[config]") {
  std::ifstream in(fs::path(CHARRNN_SOURCE_DIR) / "docs/config.md");
  const std::string page{std::istreambuf_iterator<char>(in), {}};
  for (const ConfigKey& key : config_keys()) {
    INFO(key.path);
    CHECK(holds(page, "| `" + key.path + "` |"));
  }
}

TEST_CASE("bad values are refused with place, key, value and what was expected", "[config]") {
  struct Bad {
    std::string yaml, place, key;
  };
  std::vector<Bad> all;
  for (const std::string value : {"0",     "-1",    "2147483648", "9223372036854775808",
                                  "1e400", "nan",   ".nan",       ".inf",
                                  "0x10",  "1_000", "010",        "yes",
                                  "true",  "",      "~",          "5x2",
                                  "\"5\"", "1.5",   "[1]",        "{a: 1}",
                                  "+5",    "1e3",   "null"}) {
    all.push_back({kBase + "model:\n  hidden: " + value + "\n", "test.yaml:3: ", "model.hidden"});
  }
  for (const std::string value : {"1.0", "-0.1", "nan", "1e400", "0x1p-2", "yes", "", "\"0.5\"", "00.5"}) {
    all.push_back({kBase + "model:\n\n  dropout: " + value + "\n", "test.yaml:4: ", "model.dropout"});
  }
  for (const std::string value : {"0", "-1", "nan", "inf", "1e400"}) {
    all.push_back({kBase + "train:\n  optimizer: {learning_rate: " + value + "}\n",
                   "test.yaml:3: ", "train.optimizer.learning_rate"});
    all.push_back({kBase + "train:\n  clip: {value: " + value + "}\n", "test.yaml:3: ", "train.clip"});
    all.push_back({kBase + "sample:\n  temperature: " + value + "\n", "test.yaml:3: ", "sample.temperature"});
  }
  for (const std::string value :
       {"[0.5, 0.5]", "[0.5, 0.6, 0.1]", "[0, 0.5, 0.5]", "[1, 0, nan]", "[1.1, -0.1, 0]", "0.9"}) {
    all.push_back({"corpus:\n  path: a\n  split: " + value + "\n", "test.yaml:3: ", "corpus.split"});
  }
  const auto one = [&all](const std::string& yaml, const std::string& key) {
    all.push_back({kBase + yaml, "test.yaml:2: ", key});
  };
  one("model: {cell: lstn}\n", "model.cell");
  one("model: {cell: [lstm]}\n", "model.cell");
  one("model: {init: {gauss: 1}}\n", "model.init");
  one("model: {init: {uniform: 1, normal: 1}}\n", "model.init");
  one("model: {layers: 65}\n", "model.layers");
  one("train: {batch: 0}\n", "train.batch");
  one("train: {sequence: 1048577}\n", "train.sequence");
  one("train: {epochs: 0}\n", "train.epochs");
  one("train: {seed: -1}\n", "train.seed");
  one("train: {seed: 18446744073709551616}\n", "train.seed");
  one("train: {precision: fp64}\n", "train.precision");
  one("train: {optimizer: {name: lion}}\n", "train.optimizer.name");
  one("train: {optimizer: {beta1: 0.9}}\n", "train.optimizer.beta1");
  one("train: {optimizer: {name: adam, decay_rate: 0.9}}\n", "train.optimizer.decay_rate");
  one("train: {schedule: {kind: cosine, factor: 0.5}}\n", "train.schedule.factor");
  one("train: {schedule: {warmup_steps: 5}}\n", "train.schedule");
  one("train: {schedule: fast}\n", "train.schedule");
  one("train: 5\n", "train");
  one("sample: {at: [0]}\n", "sample.at");
  one("sample: {at: 5}\n", "sample.at");
  one("checkpoint: {keep: 0}\n", "checkpoint.keep");
  one("run: {dir: \"\"}\n", "run.dir");
  one("run: {device: gpu}\n", "run.device");
  one("run: {device: \"cuda:\"}\n", "run.device");
  one("run: {device: \"cuda:-1\"}\n", "run.device");
  one("run: {implementation: fast}\n", "run.implementation");
  one("model: {forget_bias: 1000}\n", "model.forget_bias");
  one("train: {optimizer: {epsilon: 1e-60}}\n", "train.optimizer.epsilon");  // 0 as a float
  one("train: {optimizer: adam}\n", "train.optimizer");
  one("train: {optimizer: {momentum: 0.9}}\n", "train.optimizer.momentum");
  one("train: {schedule: {kind: constant, decay: 0.9}}\n", "train.schedule.decay");
  one("train: {schedule: {}}\n", "train.schedule");
  one("train: {clip: {value: 1, norm: 1}}\n", "train.clip");
  one("train: {clip: 5}\n", "train.clip");
  one("train: {skip_limit: 0}\n", "train.skip_limit");
  one("train: {batch: 65536, sequence: 32768}\n", "train.batch");
  one("train: {sequence: 100000000000}\n", "train.sequence");
  one("validate: {every: -1}\n", "validate.every");
  one("validate:\n", "validate");
  one("sample: {prime:}\n", "sample.prime");
  one("sample: {length: 0}\n", "sample.length");
  one("init_from:\n", "init_from");
  one("model: {layers: 64, hidden: 65536}\n", "model.hidden");
  all.push_back({"corpus: {path: a, encoding: latin1}\n", "test.yaml:1: ", "corpus.encoding"});
  all.push_back({"corpus:\n  path: a\n  text: b\n", "test.yaml:3: ", "corpus.text"});
  all.push_back({"model: {hidden: 5}\n", "test.yaml: ", "corpus.path"});
  all.push_back({"", "test.yaml: ", "corpus.path"});
  for (const Bad& bad : all) {
    INFO(bad.yaml);
    const std::string message = message_of(bad.yaml);
    INFO(message);
    CHECK(holds(message, bad.place));
    CHECK(holds(message, bad.key));
    CHECK(holds(message, "expected") != holds(message, "does not go with"));
  }
}

TEST_CASE("what is not a plain config is refused, and nothing crashes or loops", "[config]") {
  CHECK(holds(message_of(kBase + "model: {hiden: 5}\n"),
              "test.yaml:2: model.hiden is not a key; the nearest known key is model.hidden"));
  CHECK(holds(message_of(kBase + "modle: {hidden: 5}\n"), "nearest known key is model "));
  CHECK(holds(message_of(kBase + "hidden: 5\n"),
              "test.yaml:2: hidden is not a key; the nearest known key is model.hidden "));
  CHECK(
      holds(message_of(kBase + "train: {learning_rate: 1}\n"), "nearest known key is train.optimizer.learning_rate "));
  CHECK(holds(message_of(kBase + "model.hidden: 5\n"), "test.yaml:2: model.hidden has a dot in a key"));
  CHECK(holds(message_of(kBase + "model: {layers: 1}\nmodel: {hidden: 2}\n"),
              "test.yaml:3: model stands twice (first at test.yaml:2)"));
  CHECK(holds(message_of(kBase + "\"x\\e[31m\\n\": 1\n"),
              "test.yaml:2: x\\x1b[31m\\n is not a key"));  // one line, no escapes
  CHECK(holds(message_of("corpus:\n  path: a\n  path: b\n"),
              "test.yaml:3: corpus.path stands twice (first at test.yaml:2), expected once"));
  CHECK(holds(message_of(kBase + "model: {hidden: &x 5}\n"), "test.yaml:2: model.hidden has an anchor"));
  CHECK(holds(message_of("a: &x [*x]\n"), "anchor"));
  CHECK(holds(message_of("a: &x 1\nb: *x\n"), "anchor"));
  CHECK(holds(message_of("a: *x\n"), "test.yaml:1"));
  CHECK(holds(message_of(kBase + "<<: {a: 1}\n"), "<<"));
  CHECK(holds(message_of(kBase + "model: !!python/object:os.system {}\n"), "test.yaml:2: model has the tag"));
  CHECK(holds(message_of(kBase + "model: {hidden: !!int 5}\n"), "test.yaml:2: model.hidden has the tag"));
  CHECK(holds(message_of(kBase + "---\n" + kBase), "second document"));
  CHECK(holds(message_of(kBase + "model: {hidden: 5\n"), "test.yaml:"));
  CHECK(holds(message_of(std::string(100000, '[')), "test.yaml:1"));
  CHECK(holds(message_of(std::string("corpus: \0 {}", 12)), "NUL byte at offset 8"));
  CHECK(holds(message_of("corpus: {path: \xff}\n"), "UTF-8 at offset 15"));
  CHECK(holds(message_of("corpus: {path: \xed\xa0\x80}\n"), "UTF-8"));
  CHECK(holds(message_of(std::string((1 << 20) + 1, '#')), "bytes"));
  CHECK(holds(message_of("- 1\n"), "no group of keys"));
  CHECK(holds(message_of("? [a]\n: 1\n"), "key"));
  std::string bomb = "a0: &a0 [x]\n";
  for (int i = 1; i < 9; ++i) bomb += "a" + std::to_string(i) + ": &a" + std::to_string(i) + " [*a0, *a0]\n";
  CHECK(holds(message_of(bomb), "anchor"));
  std::string many_keys, many_values = kBase + "sample: {at: [";
  for (int i = 0; i < 90'000; ++i) many_keys += "k" + std::to_string(i) + ": 1\n", many_values += "1,";
  CHECK(holds(message_of(many_keys), "test.yaml:501: more than 500 keys"));
  CHECK(holds(message_of(many_values + "1]}\n"), "sample.at is [1, 1, "));
  for (const char c : std::string("[{-?:!&*%|>'\",#\t\r ")) {  // a mebibyte of one character, or of it and a space
    const std::string pair = std::string(1, c) + " ";
    std::string pairs;
    for (int i = 0; i < (1 << 16); ++i) pairs += pair;
    INFO(c);
    CHECK(holds(message_of(std::string(1 << 18, c)), "test.yaml"));
    CHECK(holds(message_of(pairs), "test.yaml"));
  }
}

TEST_CASE("an empty value is reported at its key, a list and a group as they stand", "[config]") {
  CHECK(message_of("corpus: {path: a}\nmodel:\n  hidden:\n\n  layers: 2\n") ==
        "test.yaml:3: model.hidden is empty, expected a whole number from 1 to 65536");
  CHECK(holds(message_of(kBase + "corpus2:\n  path: x\n"), "test.yaml:2: corpus2 is not a key"));
  CHECK(holds(message_of("corpus: {path: a, split: [0.5, 0.6, 0.1]}\n"),
              "corpus.split is [0.5, 0.6, 0.1], expected three numbers"));
  CHECK(
      holds(message_of(kBase + "model: {init: {uniform: 0}}\n"), "model.init is {uniform: 0}, expected {uniform: x}"));
  CHECK(holds(message_of(kBase + "run: {dir: \"a\\nb\\0\"}\n"), "run.dir is \"a\\nb\\x00\", expected"));
}

TEST_CASE("the largest that is read can be written and read again", "[config]") {
  std::string text;
  for (int i = 0; i < 65'536; ++i) text += static_cast<char>(i % 31 + 1);
  Config c = parse_config(kBase, "x");
  c.corpus.path.clear();
  c.corpus.text = c.sample.prime = text;
  c.sample.at.assign(10'000, INT64_MAX);
  const Config again = parse_config(to_yaml(c), "y");
  CHECK(again.corpus.text == text);
  CHECK(again.sample.prime == text);
  CHECK(again.sample.at == c.sample.at);
  c.sample.prime += "x";
  CHECK(holds(message_of(to_yaml(c)), "sample.prime"));
  c.sample.prime = "\xff";  // not UTF-8: no YAML could hold it
  CHECK_THROWS_WITH(to_yaml(c), Catch::Contains("sample.prime is not UTF-8"));
}

TEST_CASE("numbers are written so that they read back as the same bits", "[config]") {
  Config c = parse_config(kBase, "x");
  for (const double value : {0.1, 1.0 / 3, 1e-30, 1e30, 4.9406564584124654e-17, 123456789.123456789, 2.0}) {
    c.train.optimizer.learning_rate = c.train.optimizer.epsilon = c.train.clip.threshold = c.model.init.scale = value;
    const Config again = parse_config(to_yaml(c), "y");
    CHECK(again.train.optimizer.learning_rate == value);
    CHECK(again.train.optimizer.epsilon == value);
    CHECK(again.train.clip.threshold == value);
    CHECK(again.model.init.scale == value);
  }
  c.corpus.split = {1.0 / 3, 1.0 / 3, 1.0 / 3};
  CHECK(parse_config(to_yaml(c), "y").corpus.split == c.corpus.split);
}

TEST_CASE("files that are not there or not files are refused with where was looked", "[config]") {
  tests::TempFolder folder;
  CHECK_THROWS_WITH(read_config(folder / "no.yaml"), Catch::Contains((folder / "no.yaml").string()));
  CHECK_THROWS_WITH(read_config(folder.path()), Catch::Contains("folder"));
  std::ofstream(folder / "big.yaml") << std::string(2 << 20, '#');
  CHECK_THROWS_AS(read_config(folder / "big.yaml"), ConfigError);
}

TEST_CASE("overrides with --set change single keys and whole values, and are held to the same table", "[config]") {
  const std::string base =
      kBase + "train: {optimizer: {name: rmsprop, decay_rate: 0.9}, clip: {value: 1}, schedule: {decay: 0.9}}\n";
  const Config c =
      parse_config(base, "x", {"model.hidden=77", "train.clip={norm: 3}", "train.schedule=none", "sample.at=[2, 3]"});
  CHECK(c.model.hidden == 77);
  CHECK(c.train.clip.kind == ClipConfig::Kind::kNorm);
  CHECK(c.train.clip.threshold == 3);
  CHECK(c.train.schedule.kind == ScheduleConfig::Kind::kConstant);
  CHECK(c.sample.at.size() == 2);
  CHECK(parse_config(base, "x", {"train.optimizer.name=adam"}).train.optimizer.name == OptimizerKind::kAdam);
  CHECK(parse_config(base, "x", {"train.clip.value=0.25"}).train.clip.threshold == 0.25);
  CHECK(parse_config(base, "x", {"model.init.normal=0.5"}).model.init.kind == InitConfig::Kind::kNormal);
  CHECK(holds(message_of(base, {"train.clip.max=1"}), "--set train.clip.max"));
  CHECK(parse_config(base, "x", {"corpus.text=hello"}).corpus.text == "hello");
  CHECK(parse_config("corpus: {text: abc}\n", "x", {"corpus.path=b.txt"}).corpus.path == "b.txt");
  CHECK(parse_config(base, "x", {"model.layers=2", "model.layers=3"}).model.layers == 3);
  CHECK(parse_config(base + "model: {layers: 2}\n", "x", {"train.schedule.kind=cosine"}).train.schedule.kind ==
        ScheduleConfig::Kind::kCosine);

  CHECK(holds(message_of(base, {"model.hiden=5"}),
              "--set model.hiden: model.hiden is not a key; the nearest known key is model.hidden"));
  CHECK(holds(message_of(base, {"model.hidden=big"}),
              "--set model.hidden: model.hidden is big, expected a whole number"));
  CHECK(holds(message_of(base, {"model.hidden="}), "--set model.hidden: model.hidden is empty, expected"));
  CHECK(holds(message_of(base, {"model.hidden.x=1"}), "model.hidden.x is not a key"));
  CHECK(holds(message_of(base, {"model={hiden: 5}"}), "--set model: model.hiden is not a key"));
  CHECK(holds(message_of(base, {"corpus.path=\"a"}), "--set corpus.path:1: is not YAML"));
  CHECK(holds(message_of("- 1\n", {"model.hidden=3"}), "test.yaml:1: the config is [1], expected a group"));
  CHECK(holds(message_of(kBase + "model: [1]\n", {"model.hidden=3"}), "test.yaml:2: model is [1], expected a group"));
  CHECK(parse_config(kBase + "train: {schedule: none}\n", "x", {"train.schedule.decay=0.5"}).train.schedule.decay ==
        0.5);
  CHECK(parse_config(kBase + "model:\n", "x", {"model.hidden=3"}).model.hidden == 3);
  CHECK(holds(message_of(base, {"model.hidden"}), "expected key.path=value"));
  CHECK(holds(message_of(base, {"=5"}), "expected key.path=value"));
  CHECK(holds(message_of(base, {"model=5"}), "model"));
  CHECK(holds(message_of(base, {"train.optimizer.beta1=0.5"}), "does not go with the optimizer rmsprop"));
}

TEST_CASE("what may not change is named, but epochs, periods and places may", "[config]") {
  const Config a = parse_config(kBase, "x");
  Config b = parse_config(
      "corpus: {path: other.txt}\ntrain: {epochs: 3}\nvalidate: {every: 3}\nrun: {dir: z, implementation: "
      "fused}\nsample: "
      "{every: 1}\n",
      "x");
  CHECK(training_differences(a, b).empty());
  b.train.optimizer.name = OptimizerKind::kAdam;
  b.model.hidden = 999;
  const auto differences = training_differences(a, b);
  REQUIRE(differences.size() == 2);
  CHECK(differences[0] == "model.hidden is 128 here, 999 in the checkpoint");
  CHECK(differences[1] == "train.optimizer.name is rmsprop here, adam in the checkpoint");
}
