// Which characters there are, and the index of each. Characters are bytes for now; ids are sorted by byte value.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "charrnn/network_shape.h"

namespace charrnn {

class Vocabulary {
 public:
  Vocabulary() = default;

  /// From the byte values in index order.
  /// @throws FormatError if there are none, more than 256, or one stands twice
  explicit Vocabulary(std::vector<std::uint8_t> bytes_in_index_order);

  /// The distinct bytes of a text, in ascending order. Reads the text once.
  static Vocabulary of(std::string_view text);
  /// The bytes b with seen[b], in ascending order: for texts that are read in pieces.
  static Vocabulary of(const std::array<bool, 256>& seen);

  int size() const noexcept { return static_cast<int>(bytes_.size()); }
  std::span<const std::uint8_t> bytes() const noexcept { return bytes_; }

  /// id of a byte, or -1 where it is not in the vocabulary.
  TokenId find(std::uint8_t byte) const noexcept { return ids_[byte]; }
  std::uint8_t byte(TokenId id) const { return bytes_.at(static_cast<std::size_t>(id)); }

  /// @throws DataError naming `what`, the offset and the byte of the first character outside the vocabulary
  std::vector<TokenId> encode(std::string_view text, std::string_view what) const;
  std::string decode(std::span<const TokenId> ids) const;

  bool operator==(const Vocabulary& o) const { return bytes_ == o.bytes_; }

 private:
  std::vector<std::uint8_t> bytes_;
  std::array<std::int16_t, 256> ids_ = [] {
    std::array<std::int16_t, 256> a;
    a.fill(-1);
    return a;
  }();
};

/// A byte as a message shows it: 'a', '\n' or 0x80.
std::string printable(std::uint8_t byte);

}  // namespace charrnn
