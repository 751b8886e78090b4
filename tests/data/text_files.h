// Random numbers and texts for the tests of this folder.
#pragma once

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <stdexcept>
#include <string>
#include <string_view>

#include "support/temp_folder.h"

namespace charrnn::test {

using tests::TempFolder;

/// xorshift64*: the same numbers with every standard library.
class Draw {
 public:
  explicit Draw(std::uint64_t seed) : state_(seed * 2 + 1) {}
  std::uint64_t bits() {
    state_ ^= state_ >> 12;
    state_ ^= state_ << 25;
    state_ ^= state_ >> 27;
    return (state_ * 0x2545F4914F6CDD1DULL) >> 16;
  }
  /// In [low, high].
  int between(int low, int high) { return low + static_cast<int>(bits() % static_cast<std::uint64_t>(high - low + 1)); }

 private:
  std::uint64_t state_;
};

/// Bytes of all 256 values, so that a wrong offset hardly ever looks right.
inline std::string random_text(std::size_t characters, std::uint64_t seed) {
  Draw draw(seed);
  std::string text(characters, '\0');
  for (char& c : text) c = static_cast<char>(draw.bits() & 0xFF);
  return text;
}

}  // namespace charrnn::test
