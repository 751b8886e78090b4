#include "charrnn/vocabulary.h"

#include <fmt/format.h>

#include <utility>

#include "charrnn/error.h"

namespace charrnn {

Vocabulary::Vocabulary(std::vector<std::uint8_t> bytes_in_index_order) : bytes_(std::move(bytes_in_index_order)) {
  if (bytes_.empty()) throw FormatError("the vocabulary has no characters, expected 1 to 256");
  if (bytes_.size() > ids_.size()) {
    throw FormatError(fmt::format("the vocabulary has {} characters, expected at most {} (a character is a byte)",
                                  bytes_.size(), ids_.size()));
  }
  for (std::size_t i = 0; i < bytes_.size(); ++i) {
    std::int16_t& id = ids_[bytes_[i]];
    if (id >= 0) {
      throw FormatError(fmt::format("the vocabulary has the character {} twice, at {} and {}, expected each once",
                                    printable(bytes_[i]), id, i));
    }
    id = static_cast<std::int16_t>(i);
  }
}

Vocabulary Vocabulary::of(std::string_view text) {
  std::array<bool, 256> seen{};
  for (const char c : text) seen[static_cast<std::uint8_t>(c)] = true;
  return of(seen);
}

Vocabulary Vocabulary::of(const std::array<bool, 256>& seen) {
  Vocabulary v;
  for (std::size_t byte = 0; byte < seen.size(); ++byte) {
    if (!seen[byte]) continue;
    v.ids_[byte] = static_cast<std::int16_t>(v.bytes_.size());
    v.bytes_.push_back(static_cast<std::uint8_t>(byte));
  }
  return v;
}

std::vector<TokenId> Vocabulary::encode(std::string_view text, std::string_view what) const {
  std::vector<TokenId> ids(text.size());
  for (std::size_t i = 0; i < text.size(); ++i) {
    const auto byte = static_cast<std::uint8_t>(text[i]);
    ids[i] = find(byte);
    if (ids[i] < 0) {
      throw DataError(
          fmt::format("{}: the character {} at offset {} is not in the network's vocabulary of {} characters; "
                      "remove it, or train on a text that has it",
                      what, printable(byte), i, size()));
    }
  }
  return ids;
}

std::string Vocabulary::decode(std::span<const TokenId> ids) const {
  std::string text;
  text.reserve(ids.size());
  for (const TokenId id : ids) text.push_back(static_cast<char>(byte(id)));
  return text;
}

std::string printable(std::uint8_t byte) {
  switch (byte) {
    case '\n': return "'\\n'";
    case '\r': return "'\\r'";
    case '\t': return "'\\t'";
    case '\\': return "'\\\\'";
    case '\'': return "'\\''";
    default: break;
  }
  if (byte >= 0x20 && byte < 0x7F) return fmt::format("'{}'", static_cast<char>(byte));
  return fmt::format("0x{:02X}", byte);
}

}  // namespace charrnn
