#include "io/manifest.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>

#include "charrnn/error.h"
#include "io/strict_json.h"

namespace charrnn {

namespace {

class Reader {
 public:
  void take(const JsonEvent& event) {
    if (event.in_arrays > 0 || event.kind == JsonEvent::Kind::kArray) return expected("format, step and files", event);
    switch (event.path.size()) {
      case 0:
        if (event.kind != JsonEvent::Kind::kObject) expected("an object", event);
        return;
      case 1: return take_top(event);
      case 2: return take_file(event);
      default: return take_file_field(event);
    }
  }

  std::optional<std::string> format;
  std::optional<std::int64_t> step;
  bool has_files = false;
  Manifest manifest;
  std::string problem;  // the first; said only once the format is known to be ours

 private:
  void expected(const std::string& what, const JsonEvent& event) {
    if (!problem.empty()) return;
    std::string key;
    for (const std::string& part : event.path) key += (key.empty() ? "" : ": ") + in_quotes(part);
    problem = fmt::format("{} is {}, expected {}", key.empty() ? "the whole" : key, describe(event), what);
  }

  void take_top(const JsonEvent& event) {
    const std::string& key = event.path[0];
    if (key == "format") {
      if (event.kind != JsonEvent::Kind::kString) return expected("a string", event);
      format = event.text;
    } else if (key == "step") {
      if (event.kind != JsonEvent::Kind::kUnsigned || event.number > std::numeric_limits<std::int64_t>::max()) {
        return expected("a whole number from 0 to 2^63 - 1", event);
      }
      step = static_cast<std::int64_t>(event.number);
    } else if (key == "files") {
      if (event.kind != JsonEvent::Kind::kObject) return expected("an object", event);
      has_files = true;
    } else {
      expected("no such key", event);
    }
  }

  void take_file(const JsonEvent& event) {
    const std::string& name = event.path[1];
    // Names are compared, never joined to a path unseen: ../x, /x and links out of the folder have no way in.
    if (event.path[0] != "files" || (name != kModelFile && name != kStateFile)) {
      return expected(fmt::format("no files but {} and {}", kModelFile, kStateFile), event);
    }
    if (event.kind != JsonEvent::Kind::kObject) return expected("an object with bytes and sha256", event);
    manifest.files.push_back({name, 0, {}});
    has_bytes_.push_back(false);
  }

  void take_file_field(const JsonEvent& event) {
    const bool known = event.path.size() == 3 && !manifest.files.empty() && manifest.files.back().name == event.path[1];
    if (!known) return expected("no such key", event);
    Manifest::File& file = manifest.files.back();
    if (event.path[2] == "bytes") {
      if (event.kind != JsonEvent::Kind::kUnsigned) return expected("a whole number from 0 to 2^64 - 1", event);
      file.bytes = event.number;
      has_bytes_.back() = true;
    } else if (event.path[2] == "sha256") {
      constexpr std::size_t kDigits = 64;
      if (event.kind != JsonEvent::Kind::kString || event.text.size() != kDigits ||
          event.text.find_first_not_of("0123456789abcdef") != std::string_view::npos) {
        return expected("64 lower-case hex digits", event);
      }
      file.sha256 = event.text;
    } else {
      expected("no such key", event);
    }
  }

 public:
  void check_complete() {
    if (!problem.empty()) return;
    if (!step) problem = "has no step";
    if (!has_files || manifest.find(kModelFile) == nullptr) problem = fmt::format("names no {}", kModelFile);
    for (std::size_t i = 0; i < manifest.files.size(); ++i) {
      if (!has_bytes_[i]) problem = manifest.files[i].name + " has no bytes";
      if (manifest.files[i].sha256.empty()) problem = manifest.files[i].name + " has no sha256";
    }
  }

 private:
  std::vector<bool> has_bytes_;
};

}  // namespace

const Manifest::File* Manifest::find(std::string_view name) const {
  const auto found = std::find_if(files.begin(), files.end(), [&](const File& f) { return f.name == name; });
  return found == files.end() ? nullptr : &*found;
}

Manifest parse_manifest(std::string_view text, const std::string& name) {
  Reader reader;
  parse_json(text, name, [&reader](const JsonEvent& event) { reader.take(event); });
  if (!reader.format) {
    throw FormatError(reader.problem.empty() ? fmt::format("{}: has no format, expected '{}'", name, kManifestFormat)
                                             : name + ": " + reader.problem);
  }
  if (*reader.format != kManifestFormat) {
    throw FormatError(fmt::format("{}: format is {}, expected '{}'; a newer version of the program may read it", name,
                                  in_quotes(*reader.format), kManifestFormat));
  }
  reader.check_complete();
  if (!reader.problem.empty()) throw FormatError(name + ": " + reader.problem);
  reader.manifest.step = *reader.step;
  return std::move(reader.manifest);
}

std::string format_manifest(const Manifest& manifest) {
  nlohmann::ordered_json json{{"format", kManifestFormat}, {"step", manifest.step}};
  json["files"] = nlohmann::ordered_json::object();
  for (const Manifest::File& file : manifest.files) {
    json["files"][file.name] = {{"bytes", file.bytes}, {"sha256", file.sha256}};
  }
  return json.dump(2) + "\n";
}

}  // namespace charrnn
