#include "io/safetensors.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <deque>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <tuple>
#include <utility>

#include "charrnn/error.h"
#include "io/files.h"
#include "io/strict_json.h"

namespace charrnn {

// Tensors are copied between file and memory as they are.
static_assert(std::endian::native == std::endian::little, "the format is little-endian, and so must the machine be");

namespace {

constexpr std::uint64_t kLengthBytes = 8;
constexpr std::uint64_t kMaxHeaderBytes = 100'000'000;  // the reference implementation's
constexpr std::size_t kMaxTensors = 4096;               // ours: 64 layers need 258, with two moments 776
constexpr std::size_t kMaxDimensions = 8;               // ours: at most 3
constexpr std::size_t kMaxMetadata = 4096;
constexpr std::string_view kMetadata = "__metadata__";

struct DtypeRow {
  std::string_view name;
  Dtype dtype;
  std::uint64_t bytes;
};
constexpr std::array<DtypeRow, 7> kDtypes{{{"F32", Dtype::kF32, 4},
                                           {"F64", Dtype::kF64, 8},
                                           {"F16", Dtype::kF16, 2},
                                           {"BF16", Dtype::kBf16, 2},
                                           {"I64", Dtype::kI64, 8},
                                           {"I32", Dtype::kI32, 4},
                                           {"U8", Dtype::kU8, 1}}};

std::uint64_t dtype_bytes(Dtype dtype) {
  for (const DtypeRow& row : kDtypes) {
    if (row.dtype == dtype) return row.bytes;
  }
  return 0;
}

/// The header's length from a file's first 8 bytes.
std::uint64_t header_length(std::string_view start, std::uint64_t file_size, const std::string& name) {
  if (file_size < kLengthBytes || start.size() < kLengthBytes) {
    throw FormatError(fmt::format("{}: has {} bytes, expected at least {} (the length of the header)", name, file_size,
                                  kLengthBytes));
  }
  std::uint64_t length = 0;
  std::memcpy(&length, start.data(), kLengthBytes);
  if (length > kMaxHeaderBytes) {
    throw FormatError(
        fmt::format("{}: says that its header has {} bytes, expected at most {}", name, length, kMaxHeaderBytes));
  }
  if (length > file_size - kLengthBytes) {
    throw FormatError(
        fmt::format("{}: says that its header has {} bytes, but only {} follow: the file is cut short or "
                    "is no safetensors file",
                    name, length, file_size - kLengthBytes));
  }
  return length;
}

/// Gathers the tensors of a header from JSON's events.
class HeaderReader {
 public:
  HeaderReader(const std::string& name, std::map<std::string, std::string>& metadata)
      : name_(name), metadata_(metadata) {}

  struct Draft {
    TensorInfo info;
    bool has_dtype = false, has_shape = false, has_offsets = false;
    std::array<std::uint64_t, 2> offsets{};
    std::size_t offset_count = 0;
  };

  void take(const JsonEvent& event) {
    if (event.path.empty()) {
      if (event.kind != JsonEvent::Kind::kObject) refuse("", "header", event, "an object");
    } else if (event.path[0] == kMetadata) {
      take_metadata(event);
    } else if (event.path.size() == 1) {
      begin_tensor(event);
    } else {
      take_field(event);
    }
  }

  std::deque<Draft>& drafts() { return drafts_; }

 private:
  [[noreturn]] void refuse(const std::string& tensor, const std::string& what, const JsonEvent& event,
                           const std::string& expected) const {
    const std::string who = tensor.empty() ? "" : "tensor " + in_quotes(tensor) + ": ";
    throw FormatError(fmt::format("{}: {}{} is {}, expected {}", name_, who, what, describe(event), expected));
  }

  void take_metadata(const JsonEvent& event) {
    if (event.path.size() == 1) {
      if (event.kind != JsonEvent::Kind::kObject || event.in_arrays > 0) refuse("", "__metadata__", event, "an object");
      return;
    }
    if (event.path.size() != 2 || event.kind != JsonEvent::Kind::kString || event.in_arrays > 0) {
      refuse("", "__metadata__ " + in_quotes(event.path[1]), event, "a string");
    }
    if (metadata_.size() == kMaxMetadata) {
      throw FormatError(fmt::format("{}: __metadata__ has more than {} entries", name_, kMaxMetadata));
    }
    metadata_.emplace(event.path[1], event.text);
  }

  void begin_tensor(const JsonEvent& event) {
    const std::string& tensor = event.path[0];
    if (tensor.empty()) throw FormatError(name_ + ": a tensor's name is empty, expected at least one character");
    if (event.kind != JsonEvent::Kind::kObject || event.in_arrays > 0) {
      refuse(tensor, "its entry", event, "an object with dtype, shape and data_offsets");
    }
    if (drafts_.size() == kMaxTensors) {
      throw FormatError(fmt::format("{}: has more than {} tensors", name_, kMaxTensors));
    }
    drafts_.emplace_back().info.name = tensor;
  }

  void take_field(const JsonEvent& event) {
    const std::string& tensor = event.path[0];
    const std::string& field = event.path[1];
    Draft& draft = drafts_.back();
    const bool known = field == "dtype" || field == "shape" || field == "data_offsets";
    if (!known || event.path.size() > 2) {
      throw FormatError(fmt::format("{}: tensor {}: has the key {}, expected dtype, shape and data_offsets", name_,
                                    in_quotes(tensor), in_quotes(event.path.back())));
    }
    if (field == "dtype") {
      if (event.kind != JsonEvent::Kind::kString || event.in_arrays > 0) refuse(tensor, field, event, "a string");
      const auto* row =
          std::find_if(kDtypes.begin(), kDtypes.end(), [&](const DtypeRow& r) { return r.name == event.text; });
      if (row == kDtypes.end()) {
        throw FormatError(fmt::format("{}: tensor {}: dtype is {}, expected F32, F64, F16, BF16, I64, I32 or U8", name_,
                                      in_quotes(tensor), in_quotes(event.text)));
      }
      draft.info.dtype = row->dtype;
      draft.has_dtype = true;
      return;
    }
    const bool begins = event.kind == JsonEvent::Kind::kArray && event.in_arrays == 0;
    if (!begins && (event.kind != JsonEvent::Kind::kUnsigned || event.in_arrays != 1)) {
      refuse(tensor, field, event, "a list of whole numbers from 0 to 2^64 - 1");
    }
    if (field == "shape") {
      if (begins) {
        draft.has_shape = true;
      } else if (draft.info.shape.size() == kMaxDimensions) {
        throw FormatError(
            fmt::format("{}: tensor {}: shape has more than {} dimensions", name_, in_quotes(tensor), kMaxDimensions));
      } else {
        draft.info.shape.push_back(event.number);
      }
    } else if (begins) {
      draft.has_offsets = true;
    } else {
      if (draft.offset_count == draft.offsets.size()) {
        throw FormatError(
            fmt::format("{}: tensor {}: data_offsets has more than two numbers", name_, in_quotes(tensor)));
      }
      draft.offsets[draft.offset_count++] = event.number;
    }
  }

  const std::string& name_;
  std::map<std::string, std::string>& metadata_;
  std::deque<Draft> drafts_;  // grows in small blocks: a header's own numbers never size an allocation
};

/// Bytes of a tensor of this shape, or nothing where the product leaves 64 bits at any point (even if a 0 follows).
std::optional<std::uint64_t> checked_bytes(const std::vector<std::uint64_t>& shape, Dtype dtype) {
  std::uint64_t count = 1;
  for (const std::uint64_t extent : shape) {
    if (__builtin_mul_overflow(count, extent, &count)) return std::nullopt;
  }
  if (__builtin_mul_overflow(count, dtype_bytes(dtype), &count)) return std::nullopt;
  return count;
}

void check_tensor(HeaderReader::Draft& draft, std::uint64_t data_bytes, const std::string& name) {
  TensorInfo& t = draft.info;
  const std::string who = fmt::format("{}: tensor {}: ", name, in_quotes(t.name));
  if (!draft.has_dtype || !draft.has_shape || !draft.has_offsets) {
    throw FormatError(who + "has no " + (!draft.has_dtype ? "dtype" : !draft.has_shape ? "shape" : "data_offsets"));
  }
  if (draft.offset_count != 2) {
    throw FormatError(fmt::format("{}data_offsets has {} numbers, expected two", who, draft.offset_count));
  }
  t.begin = draft.offsets[0];
  t.end = draft.offsets[1];
  if (t.end < t.begin) throw FormatError(fmt::format("{}ends at {}, before its begin at {}", who, t.end, t.begin));
  if (t.end > data_bytes) {
    throw FormatError(
        fmt::format("{}ends at byte {} of the data, which has only {}: the file is cut short", who, t.end, data_bytes));
  }
  const std::optional<std::uint64_t> bytes = checked_bytes(t.shape, t.dtype);
  if (!bytes) {
    throw FormatError(fmt::format("{}shape {} has more bytes than 64 bits can count", who, shape_text(t.shape)));
  }
  if (*bytes != t.end - t.begin) {
    throw FormatError(fmt::format("{}{} {} needs {} bytes, but data_offsets [{}, {}] span {}", who, dtype_name(t.dtype),
                                  shape_text(t.shape), *bytes, t.begin, t.end, t.end - t.begin));
  }
}

/// In the order of their offsets the tensors cover the data section, each byte once.
void check_cover(const std::vector<TensorInfo>& tensors, std::uint64_t data_bytes, const std::string& name) {
  std::uint64_t covered = 0;
  for (const TensorInfo& t : tensors) {
    if (t.begin != covered) {
      throw FormatError(fmt::format("{}: tensor {}: begins at byte {} of the data, expected {}: {}", name,
                                    in_quotes(t.name), t.begin, covered,
                                    t.begin < covered ? "it overlaps another" : "there is a hole"));
    }
    covered = t.end;
  }
  if (covered != data_bytes) {
    throw FormatError(
        fmt::format("{}: has {} bytes behind the last tensor, expected none", name, data_bytes - covered));
  }
}

}  // namespace

std::string_view dtype_name(Dtype dtype) {
  for (const DtypeRow& row : kDtypes) {
    if (row.dtype == dtype) return row.name;
  }
  return "?";
}

std::string shape_text(std::span<const std::uint64_t> shape) { return fmt::format("[{}]", fmt::join(shape, ", ")); }

const TensorInfo* SafetensorsHeader::find(std::string_view name) const {
  const auto found = std::find_if(tensors.begin(), tensors.end(), [&](const TensorInfo& t) { return t.name == name; });
  return found == tensors.end() ? nullptr : &*found;
}

SafetensorsHeader parse_safetensors_header(std::string_view start, std::uint64_t file_size, const std::string& name) {
  const std::uint64_t length = header_length(start, file_size, name);
  if (start.size() - kLengthBytes < length) {
    throw FormatError(fmt::format("{}: the header is cut short after {} bytes", name, start.size()));
  }
  const std::string_view text = start.substr(kLengthBytes, length);
  if (!text.starts_with('{')) {
    throw FormatError(fmt::format("{}: the header begins with {}, expected '{{'", name, in_quotes(text.substr(0, 1))));
  }
  SafetensorsHeader header;
  header.data_offset = kLengthBytes + length;
  const std::uint64_t data_bytes = file_size - header.data_offset;

  HeaderReader reader(name, header.metadata);
  parse_json(text, name + ": header", [&reader](const JsonEvent& event) { reader.take(event); });
  header.tensors.reserve(reader.drafts().size());
  for (HeaderReader::Draft& draft : reader.drafts()) {
    check_tensor(draft, data_bytes, name);
    header.tensors.push_back(std::move(draft.info));
  }
  std::sort(header.tensors.begin(), header.tensors.end(), [](const TensorInfo& a, const TensorInfo& b) {
    return std::tie(a.begin, a.end, a.name) < std::tie(b.begin, b.end, b.name);
  });
  check_cover(header.tensors, data_bytes, name);
  return header;
}

SafetensorsFile SafetensorsFile::read(const std::filesystem::path& file) {
  return parse(read_file(file), file.string());
}

SafetensorsFile SafetensorsFile::parse(std::string bytes, const std::string& name) {
  SafetensorsFile file;
  file.header_ = parse_safetensors_header(bytes, bytes.size(), name);
  file.bytes_ = std::move(bytes);
  file.name_ = name;
  return file;
}

SafetensorsHeader SafetensorsFile::read_header(const std::filesystem::path& file) {
  const std::string name = file.string();
  const FileStart first = read_start(file, kLengthBytes);
  const std::uint64_t length = header_length(first.bytes, first.size, name);
  const FileStart start = read_start(file, kLengthBytes + length);
  return parse_safetensors_header(start.bytes, start.size, name);
}

void SafetensorsFile::copy_f32(std::string_view tensor, std::span<const std::uint64_t> shape,
                               std::span<float> to) const {
  const TensorInfo* t = header_.find(tensor);
  if (t == nullptr) throw FormatError(fmt::format("{}: has no tensor {}", name_, in_quotes(tensor)));
  if (t->dtype != Dtype::kF32) {
    throw FormatError(
        fmt::format("{}: tensor {}: dtype is {}, expected F32", name_, in_quotes(tensor), dtype_name(t->dtype)));
  }
  if (!std::equal(t->shape.begin(), t->shape.end(), shape.begin(), shape.end())) {
    throw FormatError(fmt::format("{}: tensor {}: shape is {}, expected {}", name_, in_quotes(tensor),
                                  shape_text(t->shape), shape_text(shape)));
  }
  if (to.size_bytes() != t->end - t->begin) {
    throw ShapeError(fmt::format("tensor {} has {} bytes, the place for it {}", in_quotes(tensor), t->end - t->begin,
                                 to.size_bytes()));
  }
  if (!to.empty()) std::memcpy(to.data(), bytes_.data() + header_.data_offset + t->begin, to.size_bytes());
}

std::string_view tensor_bytes(std::span<const float> values) {
  return {reinterpret_cast<const char*>(values.data()), values.size_bytes()};
}

std::string format_safetensors_header(const std::vector<TensorToWrite>& tensors,
                                      const std::map<std::string, std::string>& metadata) {
  nlohmann::ordered_json json = nlohmann::ordered_json::object();
  if (!metadata.empty()) {
    auto& entries = json[std::string(kMetadata)] = nlohmann::ordered_json::object();
    for (const auto& [key, value] : metadata) entries[key] = value;
  }
  std::uint64_t offset = 0;
  for (const TensorToWrite& t : tensors) {
    const std::optional<std::uint64_t> bytes = checked_bytes(t.shape, Dtype::kF32);
    if (bytes != t.values.size_bytes()) {
      throw ShapeError(fmt::format("tensor {}: {} values do not fill the shape {}", in_quotes(t.name), t.values.size(),
                                   shape_text(t.shape)));
    }
    if (json.contains(t.name)) throw ShapeError(fmt::format("tensor {}: is there twice", in_quotes(t.name)));
    json[t.name] = {{"dtype", "F32"}, {"shape", t.shape}, {"data_offsets", {offset, offset + *bytes}}};
    offset += *bytes;
  }
  std::string text;
  try {
    text = json.dump();
  } catch (const nlohmann::json::type_error&) {
    throw RunError(
        "safetensors: a name or text of the header is not UTF-8, which the format cannot hold; rename the "
        "file or folder that the config names");
  }
  constexpr std::size_t kAlign = 8;
  text.resize((text.size() + kAlign - 1) / kAlign * kAlign, ' ');
  const std::uint64_t length = text.size();
  std::string out(kLengthBytes, '\0');
  std::memcpy(out.data(), &length, kLengthBytes);
  return out + text;
}

std::string format_safetensors(const std::vector<TensorToWrite>& tensors,
                               const std::map<std::string, std::string>& metadata) {
  std::string bytes = format_safetensors_header(tensors, metadata);
  for (const TensorToWrite& t : tensors) bytes += tensor_bytes(t.values);
  return bytes;
}

}  // namespace charrnn
