// The safetensors format, read with suspicion: https://github.com/huggingface/safetensors (format section of its
// README). 8 bytes little-endian header length, a JSON header, then the tensors' bytes without holes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace charrnn {

enum class Dtype { kF32, kF64, kF16, kBf16, kI64, kI32, kU8 };  // what we read or write; others are refused by name

/// As the format spells it: F32.
std::string_view dtype_name(Dtype dtype);

struct TensorInfo {
  std::string name;
  Dtype dtype = Dtype::kF32;
  std::vector<std::uint64_t> shape;
  std::uint64_t begin = 0, end = 0;  // bytes, from the start of the data section
};

/// [3, 4], as messages show a shape.
std::string shape_text(std::span<const std::uint64_t> shape);

struct SafetensorsHeader {
  std::vector<TensorInfo> tensors;              // in order of their offsets
  std::map<std::string, std::string> metadata;  // __metadata__
  std::uint64_t data_offset = 0;                // of the data section in the file

  const TensorInfo* find(std::string_view name) const;
};

/// Reads and checks the header alone. `file_size` is the size of the whole file; `start` its first bytes (all of the
/// header at least). `name` stands for the file in messages. Allocates no more than the header's own size, a few times.
/// @throws FormatError for every malformed header: too short, length over the file or 100,000,000, not UTF-8, not a
/// JSON
///         object, leading white space, duplicate keys, unknown dtype, shape overflow, size unlike the offsets, holes,
///         overlaps, trailing bytes, more than 4096 tensors or 8 dimensions
SafetensorsHeader parse_safetensors_header(std::string_view start, std::uint64_t file_size, const std::string& name);

/// A whole file in memory, or its header alone.
class SafetensorsFile {
 public:
  static SafetensorsFile read(const std::filesystem::path& file);
  static SafetensorsFile parse(std::string bytes, const std::string& name);
  static SafetensorsHeader read_header(const std::filesystem::path& file);  // reads no tensor

  const SafetensorsHeader& header() const { return header_; }
  /// The values of an F32 tensor. @throws FormatError if it is missing, of another dtype, or of another shape
  void copy_f32(std::string_view tensor, std::span<const std::uint64_t> shape, std::span<float> to) const;

 private:
  std::string bytes_;
  std::string name_;
  SafetensorsHeader header_;
};

struct TensorToWrite {
  std::string name;
  std::vector<std::uint64_t> shape;
  std::span<const float> values;  // F32
};

/// The bytes before the tensors' data: length and header, padded with spaces to a multiple of 8. Deterministic.
/// @throws ShapeError if a tensor's values do not fill its shape, or a name stands twice
///         RunError if a name or a metadata text is not UTF-8, which JSON cannot hold
std::string format_safetensors_header(const std::vector<TensorToWrite>& tensors,
                                      const std::map<std::string, std::string>& metadata);

/// The bytes of a tensor's values as the file holds them.
std::string_view tensor_bytes(std::span<const float> values);

/// The file's bytes; deterministic for equal input.
std::string format_safetensors(const std::vector<TensorToWrite>& tensors,
                               const std::map<std::string, std::string>& metadata);

}  // namespace charrnn
