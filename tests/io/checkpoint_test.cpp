#include "charrnn/checkpoint.h"

#include <sys/stat.h>

#include <functional>

#include "io/checkpoints.h"
#include "io/manifest.h"
#include "io/safetensors.h"
#include "io/sha256.h"
#include "support/largest_allocation.h"

using namespace charrnn;
using namespace charrnn::tests;

namespace {

/// Puts other bytes into a file of a checkpoint and mends the manifest, so that what lies behind its checks is reached.
void replace_with_manifest(const fs::path& folder, std::string_view name, const std::string& bytes) {
  write_all(folder / name, bytes);
  Manifest manifest = parse_manifest(read_all(folder / kManifestFile), "manifest");
  for (Manifest::File& file : manifest.files) {
    if (file.name == name) file = {file.name, bytes.size(), sha256_hex(bytes)};
  }
  write_all(folder / kManifestFile, format_manifest(manifest));
}

/// A safetensors file taken apart.
struct Parts {
  struct Tensor {
    std::string name;
    std::vector<std::uint64_t> shape;
    std::vector<float> values;
  };
  std::vector<Tensor> tensors;
  std::map<std::string, std::string> metadata;

  explicit Parts(const std::string& bytes) {
    const SafetensorsFile file = SafetensorsFile::parse(bytes, "parts");
    metadata = file.header().metadata;
    for (const TensorInfo& t : file.header().tensors) {
      Tensor& part = tensors.emplace_back(Tensor{t.name, t.shape, std::vector<float>((t.end - t.begin) / 4)});
      file.copy_f32(t.name, t.shape, part.values);
    }
  }
  std::string bytes() const {
    std::vector<TensorToWrite> out;
    for (const Tensor& t : tensors) out.push_back({t.name, t.shape, t.values});
    return format_safetensors(out, metadata);
  }
  Tensor& at(const std::string& name) {
    return *std::find_if(tensors.begin(), tensors.end(), [&](const Tensor& t) { return t.name == name; });
  }
  void erase(const std::string& name) { tensors.erase(tensors.begin() + (&at(name) - tensors.data())); }
};

struct Saved {
  NoSync no_sync;
  TempFolder temporary;
  fs::path folder = temporary / "checkpoint";
  Checkpoint checkpoint = small_checkpoint(12);

  explicit Saved(Cell cell = Cell::kLstm, OptimizerKind optimizer = OptimizerKind::kRmsprop)
      : checkpoint(small_checkpoint(12, cell, optimizer)) {
    save_checkpoint(folder, checkpoint);
  }

  std::string refused() {
    return message_of<FormatError>([this] { load_checkpoint(folder, LoadState::kYes); });
  }
  /// The message for a file changed by `change`, with a manifest that fits it.
  std::string refused(std::string_view file, const std::function<void(Parts&)>& change) {
    const std::string before = read_all(folder / file);
    Parts parts(before);
    change(parts);
    replace_with_manifest(folder, file, parts.bytes());
    std::string message = refused();
    replace_with_manifest(folder, file, before);
    INFO(message);
    CHECK(contains(message, (folder / file).string()));
    return message;
  }
  std::string refused_manifest(const std::string& text) {
    const std::string before = read_all(folder / kManifestFile);
    write_all(folder / kManifestFile, text);
    std::string message = refused();
    write_all(folder / kManifestFile, before);
    INFO(message);
    CHECK(contains(message, "manifest.json"));
    return message;
  }
};

void replace_in(std::string& text, const std::string& from, const std::string& to) {
  const std::size_t at = text.find(from);
  REQUIRE(at != std::string::npos);
  text.replace(at, from.size(), to);
}

#define CHECK_CONTAINS(text, part)  \
  do {                              \
    const std::string shown = text; \
    INFO(shown);                    \
    CHECK(contains(shown, part));   \
  } while (false)

}  // namespace

TEST_CASE("what is saved loads, bit for bit, for every cell and optimizer", "[io][checkpoint]") {
  const auto cell = GENERATE(Cell::kLstm, Cell::kGru, Cell::kRnnTanh, Cell::kRnnRelu);
  const auto optimizer = GENERATE(OptimizerKind::kRmsprop, OptimizerKind::kAdam, OptimizerKind::kSgd);
  Saved saved(cell, optimizer);
  const Checkpoint back = load_checkpoint(saved.folder, LoadState::kYes);
  CHECK(same_checkpoint(back, saved.checkpoint));
  CHECK(to_yaml(back.config) == to_yaml(saved.checkpoint.config));
  const Checkpoint weights = load_checkpoint(saved.folder, LoadState::kNo);
  CHECK(same_bits(weights.parameters, saved.checkpoint.parameters));
  CHECK(!weights.state);
  CHECK(names_in(saved.temporary.path()) == std::vector<std::string>{"checkpoint"});
}

TEST_CASE("equal checkpoints make equal files, of one byte size and PyTorch's names", "[io][checkpoint]") {
  Saved a, b;
  for (const auto* name : {"model.safetensors", "state.safetensors", "manifest.json"}) {
    CHECK(read_all(a.folder / name) == read_all(b.folder / name));
  }
  const SafetensorsHeader header = SafetensorsFile::read_header(a.folder / kModelFile);
  std::vector<std::string> names;
  for (const TensorInfo& t : header.tensors) names.push_back(t.name);
  CHECK(names == std::vector<std::string>{"rnn.weight_ih_l0", "rnn.weight_hh_l0", "rnn.bias_ih_l0", "rnn.bias_hh_l0",
                                          "rnn.weight_ih_l1", "rnn.weight_hh_l1", "rnn.bias_ih_l1", "rnn.bias_hh_l1",
                                          "head.weight", "head.bias"});
  CHECK(header.find("rnn.weight_ih_l0")->shape == std::vector<std::uint64_t>{20, 7});
  CHECK(header.find("rnn.bias_hh_l1")->shape == std::vector<std::uint64_t>{20});
  CHECK(header.metadata.at("vocabulary") == "[10,32,97,98,99,128,255]");
  CHECK(header.metadata.at("format") == "charrnn-1");
}

TEST_CASE("weights without a state load for sampling, not for training", "[io][checkpoint]") {
  TempFolder temporary;
  Checkpoint checkpoint = small_checkpoint(3);
  checkpoint.state.reset();
  checkpoint.validation_nats = std::numeric_limits<double>::quiet_NaN();
  save_checkpoint(temporary / "w", checkpoint);
  CHECK(same_checkpoint(load_checkpoint(temporary / "w", LoadState::kNo), checkpoint));
  CHECK_CONTAINS(message_of<FormatError>([&] { load_checkpoint(temporary / "w", LoadState::kYes); }), "init_from");
  CHECK_THROWS_AS(verify_checkpoint(temporary / "w", LoadState::kYes), FormatError);
  CHECK(peek_checkpoint(temporary / "w").state.empty());
}

TEST_CASE("what would not load is not saved", "[io][checkpoint]") {
  TempFolder temporary;
  Checkpoint checkpoint = small_checkpoint(3);
  checkpoint.parameters[2] = std::numeric_limits<float>::quiet_NaN();
  CHECK_CONTAINS(message_of<RunError>([&] { save_checkpoint(temporary / "w", checkpoint); }), "rnn.weight_ih_l0");
  checkpoint = small_checkpoint(3);
  checkpoint.state->h.pop_back();
  CHECK_THROWS_AS(save_checkpoint(temporary / "w", checkpoint), ShapeError);
  checkpoint = small_checkpoint(3);
  checkpoint.parameters.pop_back();
  CHECK_THROWS_AS(save_checkpoint(temporary / "w", checkpoint), ShapeError);
  checkpoint = small_checkpoint(3);
  checkpoint.state->step = 4;
  CHECK_THROWS_AS(save_checkpoint(temporary / "w", checkpoint), ShapeError);
  CHECK(names_in(temporary.path()).empty());
}

TEST_CASE("peek says all of a checkpoint from its headers, whatever the weights are", "[io][checkpoint]") {
  Saved saved;
  std::string bytes = read_all(saved.folder / kModelFile);
  bytes.back() = static_cast<char>(bytes.back() ^ 1);  // it is not read, so it does not matter
  write_all(saved.folder / kModelFile, bytes);
  const CheckpointSummary summary = peek_checkpoint(saved.folder);
  CHECK(summary.step == 12);
  CHECK(summary.shape == saved.checkpoint.shape());
  CHECK(summary.vocabulary == saved.checkpoint.vocabulary);
  CHECK(same_bits(summary.validation_nats, saved.checkpoint.validation_nats));
  CHECK(summary.parameter_count == 20 * (7 + 5 + 2) + 20 * (5 + 5 + 2) + 7 * 5 + 7);
  CHECK(summary.tensors.size() == 10 + 10 + 2);
  CHECK(summary.tensors.back().name == "c");
  CHECK(summary.tensors.back().shape == std::vector<std::uint64_t>{2, 3, 5});
  CHECK(summary.hashes.size() == 2);
  CHECK(summary.hashes[0].second.size() == 64);
  CHECK(std::find(summary.state.begin(), summary.state.end(),
                  std::pair<std::string, std::string>("best_validation", "0.30000000000000004")) !=
        summary.state.end());
  CHECK(std::find(summary.state.begin(), summary.state.end(),
                  std::pair<std::string, std::string>("scheduled_best", "none yet")) != summary.state.end());
  CHECK_THROWS_AS(load_checkpoint(saved.folder, LoadState::kNo), FormatError);
}

TEST_CASE("checkpoints that are incomplete are refused", "[io][checkpoint]") {
  for (const auto* name : {"model.safetensors", "state.safetensors", "manifest.json"}) {
    INFO(name);
    {
      Saved saved;
      fs::remove(saved.folder / name);
      CHECK_CONTAINS(saved.refused(), name);
      CHECK_THROWS_AS(load_checkpoint(saved.folder, LoadState::kNo), FormatError);
      CHECK_THROWS_AS(peek_checkpoint(saved.folder), FormatError);
    }
    {
      Saved saved;
      write_all(saved.folder / name, "");
      CHECK_CONTAINS(saved.refused(), name);
    }
    {
      Saved saved;  // a link could lead anywhere
      fs::rename(saved.folder / name, saved.temporary / "elsewhere");
      fs::create_symlink(saved.temporary / "elsewhere", saved.folder / name);
      CHECK_CONTAINS(saved.refused(), "symbolic link");
    }
    {
      Saved saved;
      fs::remove(saved.folder / name);
      fs::create_directory(saved.folder / name);
      CHECK_CONTAINS(saved.refused(), "is a folder");
    }
    {
      Saved saved;
      fs::remove(saved.folder / name);
      REQUIRE(mkfifo((saved.folder / name).c_str(), 0600) == 0);
      CHECK_CONTAINS(saved.refused(), "a pipe or a device");
    }
  }
  TempFolder temporary;
  CHECK_CONTAINS(message_of<FormatError>([&] { load_checkpoint(temporary / "none", LoadState::kNo); }),
                 "no such checkpoint");
  write_all(temporary / "file", "x");
  CHECK_CONTAINS(message_of<FormatError>([&] { load_checkpoint(temporary / "file", LoadState::kNo); }), "is no folder");
}

TEST_CASE("a checkpoint cut at any length is refused, without a large allocation", "[io][checkpoint]") {
  Saved saved;
  std::mt19937 random(5);
  for (const auto* name : {"model.safetensors", "state.safetensors", "manifest.json"}) {
    const std::string bytes = read_all(saved.folder / name);
    std::vector<std::size_t> lengths;
    for (std::size_t n = 0; n <= 512 && n < bytes.size(); ++n) lengths.push_back(n);
    for (int i = 0; i < 32; ++i) lengths.push_back(random() % bytes.size());
    for (const std::size_t length : lengths) {
      INFO(name << " cut to " << length);
      write_all(saved.folder / name, bytes.substr(0, length));
      reset_largest_allocation();
      bool was_refused = false;
      try {
        load_checkpoint(saved.folder, LoadState::kYes);
      } catch (const FormatError&) {
        was_refused = true;
      }
      CHECK(largest_allocation() < (1U << 16U));
      // Behind the manifest's last brace stands only the end of its line.
      CHECK((was_refused || (std::string(name) == "manifest.json" && length + 1 == bytes.size())));
    }
    write_all(saved.folder / name, bytes);
  }
}

TEST_CASE("a checkpoint with any changed byte is refused", "[io][checkpoint]") {
  Saved saved;
  std::mt19937 random(6);
  for (const auto* name : {"model.safetensors", "state.safetensors"}) {
    const std::string bytes = read_all(saved.folder / name);
    const std::size_t header = SafetensorsFile::parse(bytes, name).header().data_offset;
    std::vector<std::size_t> places;
    for (std::size_t at = 0; at < header; ++at) places.push_back(at);
    for (int i = 0; i < 64; ++i) places.push_back(header + random() % (bytes.size() - header));
    for (const std::size_t at : places) {
      INFO(name << " changed at " << at);
      std::string changed = bytes;
      changed[at] = static_cast<char>(changed[at] ^ (1 << (random() % 8)));
      write_all(saved.folder / name, changed);
      CHECK_THROWS_AS(verify_checkpoint(saved.folder, LoadState::kYes), FormatError);
    }
    CHECK_CONTAINS(saved.refused(), "its sha256 is");
    write_all(saved.folder / name, bytes);
  }
  // A manifest has white space that may change; whatever else does is seen.
  const std::string manifest = read_all(saved.folder / kManifestFile);
  for (std::size_t at = 0; at < manifest.size(); ++at) {
    if (manifest[at] == ' ' || manifest[at] == '\n') continue;
    for (int bit = 0; bit < 8; ++bit) {
      std::string changed = manifest;
      changed[at] = static_cast<char>(changed[at] ^ (1 << bit));
      INFO("manifest changed at " << at << " bit " << bit);
      write_all(saved.folder / kManifestFile, changed);
      // The step alone stands under no hash; the model's own step contradicts it.
      const std::size_t step_at = manifest.find("12");
      const auto read = at == step_at || at == step_at + 1
                            ? +[](const fs::path& folder) { load_checkpoint(folder, LoadState::kYes); }
                            : +[](const fs::path& folder) { verify_checkpoint(folder, LoadState::kYes); };
      CHECK_THROWS_AS(read(saved.folder), FormatError);
    }
  }
}

TEST_CASE("manifests that are malformed or lead elsewhere are refused", "[io][checkpoint]") {
  Saved saved;
  const std::string good = read_all(saved.folder / kManifestFile);
  const auto changed = [&](const std::string& from, const std::string& to) {
    std::string text = good;
    replace_in(text, from, to);
    return saved.refused_manifest(text);
  };
  for (const std::string path : {"../x", "/etc/passwd", "sub/model.safetensors", "", ".", "..",
                                 "model.safetensors\\u0000", "./model.safetensors", "MODEL.SAFETENSORS"}) {
    CHECK_CONTAINS(changed("\"state.safetensors\"", "\"" + path + "\""), "expected no files but model.safetensors");
  }
  CHECK_CONTAINS(changed("charrnn-checkpoint-1", "charrnn-checkpoint-2"), "format is 'charrnn-checkpoint-2', expected");
  CHECK_CONTAINS(changed("\"format\"", "\"new\": [[1]], \"format\""), "expected");
  CHECK_CONTAINS(changed("\"step\": 12", "\"step\": 13"), "is of step 12, manifest.json says 13");
  CHECK_CONTAINS(changed("\"step\": 12", "\"step\": -1"), "expected a whole number");
  CHECK_CONTAINS(changed("\"step\": 12", "\"step\": 9223372036854775808"), "expected a whole number");
  CHECK_CONTAINS(changed("\"step\": 12", "\"step\": 12.0"), "expected a whole number");
  CHECK_CONTAINS(changed("\"step\": 12,", ""), "has no step");
  CHECK_CONTAINS(changed("\"step\": 12", "\"step\": 12, \"step\": 12"), "'step' twice");
  CHECK_CONTAINS(changed("\"step\": 12", "\"step\": 12, \"more\": 1"), "expected no such key");
  CHECK_CONTAINS(changed("\"bytes\"", "\"size\""), "expected no such key");
  CHECK_CONTAINS(changed("\"sha256\": \"", "\"sha256\": \"A"), "64 lower-case hex digits");
  CHECK_CONTAINS(saved.refused_manifest("{}"), "has no format");
  CHECK_CONTAINS(saved.refused_manifest("[]"), "is a list");
  CHECK_CONTAINS(saved.refused_manifest("7"), "the number 7");
  CHECK_CONTAINS(saved.refused_manifest("{\"format\":\"charrnn-checkpoint-1\",\"step\":12}"),
                 "names no model.safetensors");
  CHECK_CONTAINS(saved.refused_manifest(
                     "{\"format\":\"charrnn-checkpoint-1\",\"step\":12,\"files\":{\"model.safetensors\":{}}}"),
                 "has no");
  CHECK_CONTAINS(saved.refused_manifest(std::string(60'000, '[')), "nested more than 8 deep");
  CHECK_CONTAINS(saved.refused_manifest(std::string(70'000, ' ')), "expected at most 65536");
  CHECK_CONTAINS(saved.refused_manifest("\xff"), "not UTF-8");
}

TEST_CASE("a model that does not fit its own config or vocabulary is refused", "[io][checkpoint]") {
  Saved saved;
  const auto model = [&](const std::function<void(Parts&)>& change) { return saved.refused(kModelFile, change); };
  CHECK_CONTAINS(model([](Parts& p) { p.metadata["vocabulary"] = "[10,32,97,98,99,128]"; }),
                 "tensor 'head.weight': shape is [7, 5], but the vocabulary has 6 characters");
  for (const std::string bad : {"[]", "[10,32,97,98,99,128,256]", "[10,32,97,98,99,128,-1]", "[10,32,97,98,99,128,1.5]",
                                "{}", "\"abc\"", "[[10]]", "7", "", "[10,32", "[10,32,97,98,99,128,\"a\"]", "null"}) {
    CHECK_CONTAINS(model([&](Parts& p) { p.metadata["vocabulary"] = bad; }), "vocabulary");
  }
  CHECK_CONTAINS(model([](Parts& p) { p.metadata["vocabulary"] = "[10,32,97,98,99,128,10]"; }), "twice");
  CHECK_CONTAINS(model([](Parts& p) {
                   p.metadata["vocabulary"] = "[0";
                   for (int i = 0; i < 100'000; ++i) p.metadata["vocabulary"] += ",0";
                   p.metadata["vocabulary"] += "]";
                 }),
                 "more than 256 characters");
  CHECK_CONTAINS(model([](Parts& p) { p.at("head.bias").name = "head.bios"; }), "tensor 'head.bios': does not belong");
  CHECK_CONTAINS(model([](Parts& p) { p.erase("head.bias"); }), "has no tensor 'head.bias'");
  CHECK_CONTAINS(model([](Parts& p) { p.erase("head.weight"); }), "has no tensor 'head.weight'");
  CHECK_CONTAINS(model([](Parts& p) { p.tensors.push_back({"more", {1}, {1.0F}}); }), "tensor 'more'");
  CHECK_CONTAINS(model([](Parts& p) {
                   p.at("rnn.weight_hh_l1").shape = {5, 20};
                 }),
                 "shape is [5, 20], expected [20, 5]");
  CHECK_CONTAINS(model([](Parts& p) { p.at("head.bias").shape = {7, 1}; }), "shape is [7, 1], expected [7]");
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(),
                          -std::numeric_limits<float>::infinity()}) {
    CHECK_CONTAINS(model([&](Parts& p) { p.at("head.bias").values[3] = bad; }), "tensor 'head.bias': value 3 is");
  }
  CHECK_CONTAINS(model([](Parts& p) { replace_in(p.metadata["config"], "hidden: 5", "hidden: 6"); }),
                 "expected [24, 7]");
  CHECK_CONTAINS(model([](Parts& p) { replace_in(p.metadata["config"], "cell: lstm", "cell: gru"); }),
                 "expected [15, 7]");
  CHECK_CONTAINS(model([](Parts& p) { replace_in(p.metadata["config"], "layers: 2", "layers: 3"); }), "has no tensor");
  // Sizes that would need terabytes are seen to be wrong before anything is made for them.
  reset_largest_allocation();
  model([](Parts& p) {
    replace_in(p.metadata["config"], "hidden: 5", "hidden: 65536");
    replace_in(p.metadata["config"], "layers: 2", "layers: 64");
  });
  CHECK(largest_allocation() < (1U << 17U));
  CHECK_CONTAINS(model([](Parts& p) { p.metadata["config"] = "model: {hidden: many}"; }), "config");
  CHECK_CONTAINS(model([](Parts& p) { p.metadata["config"] = std::string(100'000, '['); }), "config");
  CHECK_CONTAINS(model([](Parts& p) { p.metadata.erase("config"); }), "has no 'config'");
  CHECK_CONTAINS(model([](Parts& p) { p.metadata.erase("vocabulary"); }), "has no 'vocabulary'");
  CHECK_CONTAINS(model([](Parts& p) { p.metadata["format"] = "charrnn-2"; }), "format is 'charrnn-2'");
  CHECK_CONTAINS(model([](Parts& p) { p.metadata.clear(); }), "has no 'format'");
  for (const std::string bad : {"", "x", "12 ", "1e1", "99999999999999999999", "13"}) {
    CHECK_CONTAINS(model([&](Parts& p) { p.metadata["step"] = bad; }), "step");
  }
  CHECK_CONTAINS(model([](Parts& p) { p.metadata["validation_nats_per_char"] = "low"; }), "validation_nats_per_char");
}

TEST_CASE("a state that does not fit its model is refused", "[io][checkpoint]") {
  Saved saved;
  const auto state = [&](const std::function<void(Parts&)>& change) { return saved.refused(kStateFile, change); };
  const auto json = [&](const std::string& from, const std::string& to) {
    return state([&](Parts& p) { replace_in(p.metadata["state"], from, to); });
  };
  CHECK_CONTAINS(state([](Parts& p) { p.erase("h"); }), "has no tensor 'h'");
  CHECK_CONTAINS(state([](Parts& p) { p.erase("c"); }), "has no tensor 'c'");
  CHECK_CONTAINS(state([](Parts& p) { p.at("h").shape = {3, 2, 5}; }), "shape is [3, 2, 5], expected [2, 3, 5]");
  CHECK_CONTAINS(state([](Parts& p) { p.erase("moment1.head.bias"); }), "has no tensor 'moment1.head.bias'");
  CHECK_CONTAINS(state([](Parts& p) { p.at("moment1.head.bias").name = "moment2.head.bias"; }), "has no tensor");
  CHECK_CONTAINS(state([](Parts& p) {
                   std::erase_if(p.tensors, [](const auto& t) { return t.name.starts_with("moment1."); });
                 }),
                 "has no tensor 'moment1.");
  CHECK_CONTAINS(state([](Parts& p) { p.tensors.push_back({"x", {1}, {1.0F}}); }), "tensor 'x'");
  CHECK_CONTAINS(state([](Parts& p) { p.metadata["format"] = "other"; }), "format is 'other'");
  CHECK_CONTAINS(state([](Parts& p) { p.metadata.erase("state"); }), "has no 'state'");
  CHECK_CONTAINS(json("\"step\":12", "\"step\":11"), "is of step 11, model.safetensors of step 12");
  CHECK_CONTAINS(json("\"batch\":3", "\"batch\":4"), "expected [2, 4, 5]");
  CHECK_CONTAINS(json("\"batch\":3", "\"batch\":1048577"), "expected at most 1048576");
  CHECK_CONTAINS(json("\"batch\":3", "\"batch\":4294967299"),
                 "batch is the number 4294967299, expected a whole number");
  CHECK_CONTAINS(json("\"batch\":3", "\"batch\":-3"), "batch is the number -3");
  CHECK_CONTAINS(json("\"batch\":3", "\"batch\":null"), "batch is null");
  CHECK_CONTAINS(json("\"batch\":3,", ""), "has no batch");
  CHECK_CONTAINS(json("\"batch\":3,", "\"batch\":3,\"batch\":3,"), "'batch' twice");
  CHECK_CONTAINS(json("\"batch\":3,", "\"batch\":3,\"new\":3,"), "the key 'new'");
  CHECK_CONTAINS(json("\"best_validation\":0", "\"best_validation\":\"0\",\"x\":0"), "expected a number, or null");
  CHECK_CONTAINS(json("\"machine\":\"", "\"machine\":7,\"m\":\""), "machine is the number 7, expected a string");
  CHECK_CONTAINS(json("\"threads\":2", "\"threads\":[2]"), "expected an object of numbers and strings");
  for (const char* bad : {"3.0", "0", "-2", "null", "1e300"}) {
    CHECK_CONTAINS(json("\"loss_scale\":32768.0", std::string("\"loss_scale\":") + bad), "expected a power of two");
  }
  CHECK_CONTAINS(state([](Parts& p) { p.metadata["state"] = "[]"; }), "expected an object");
  CHECK_CONTAINS(state([](Parts& p) { p.metadata["state"] = ""; }), "is not JSON");
  // The weights are not touched by any of it.
  CHECK_NOTHROW(load_checkpoint(saved.folder, LoadState::kYes));
  Saved gru(Cell::kGru);
  CHECK_CONTAINS(gru.refused(kStateFile,
                             [](Parts& p) {
                               p.tensors.push_back({"c", {2, 3, 5}, std::vector<float>(30)});
                             }),
                 "tensor 'c': does not belong");
}

TEST_CASE("a state of a version that had no loss scale is read as one of scale 1", "[io][checkpoint]") {
  Saved saved;
  Parts parts(read_all(saved.folder / kStateFile));
  replace_in(parts.metadata["state"], ",\"loss_scale\":32768.0,\"since_overflow\":1999", "");
  replace_with_manifest(saved.folder, kStateFile, parts.bytes());
  const Checkpoint loaded = load_checkpoint(saved.folder, LoadState::kYes);
  CHECK(loaded.state->loss_scale == 1);
  CHECK(loaded.state->since_overflow == 0);
  CHECK(loaded.state->skipped_total == saved.checkpoint.state->skipped_total);
}

TEST_CASE("SHA-256 is SHA-256", "[io]") {
  CHECK(sha256_hex("abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  Sha256 hash;
  hash.update("a");
  hash.update("bc");
  CHECK(hash.hex() == sha256_hex("abc"));
  TempFolder temporary;
  const std::string large(600'001, 'x');
  write_all(temporary / "f", large);
  CHECK(sha256_of_file(temporary / "f") == sha256_hex(large));
  CHECK_THROWS_AS(sha256_of_file(temporary / "none"), FormatError);
}
