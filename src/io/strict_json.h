// JSON as events, refused where two readers could differ: keys that stand twice, deep nesting, bytes that are not
// UTF-8.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace charrnn {

struct JsonEvent {
  enum class Kind { kObject, kArray, kNull, kBool, kUnsigned, kNegative, kReal, kString };
  Kind kind;                             // kObject and kArray: one begins
  const std::vector<std::string>& path;  // keys from the root; an element of an array has its array's path
  int in_arrays = 0;                     // how many arrays stand around it
  std::uint64_t number = 0;              // kUnsigned
  double real = 0;                       // kReal, kUnsigned, kNegative
  std::string_view text{};               // kString
};

/// What an event is, for messages: "an object", "the string 'x'", "the number 7".
std::string describe(const JsonEvent& event);

/// Calls `on_event` for each value, in order. Integers over 64 bits come as kReal.
/// @param what  stands for the text in messages, as in "m.safetensors: header"
/// @throws FormatError; whatever `on_event` throws passes through
void parse_json(std::string_view text, const std::string& what, const std::function<void(const JsonEvent&)>& on_event);

/// A name from a file as a message may show it: in quotes, cut after 80 bytes, with what is not printable escaped.
std::string in_quotes(std::string_view text);

}  // namespace charrnn
