#include "io/strict_json.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <set>

#include "charrnn/error.h"

namespace charrnn {

namespace {

constexpr std::size_t kMaxDepth = 8;  // our files need three; a bomb of brackets would grow the stack of frames

/// Offset of the first byte that is not UTF-8 (RFC 3629: no overlong forms, no surrogates), or npos.
std::size_t find_invalid_utf8(std::string_view s) {
  std::size_t i = 0;
  const auto byte = [&s](std::size_t k) { return static_cast<unsigned char>(s[k]); };
  while (i < s.size()) {
    const unsigned lead = byte(i);
    if (lead < 0x80) {
      ++i;
      continue;
    }
    std::size_t more = 0;
    unsigned low = 0x80, high = 0xBF;  // range of the second byte
    if (lead >= 0xC2 && lead <= 0xDF) {
      more = 1;
    } else if (lead >= 0xE0 && lead <= 0xEF) {
      more = 2;
      if (lead == 0xE0) low = 0xA0;
      if (lead == 0xED) high = 0x9F;
    } else if (lead >= 0xF0 && lead <= 0xF4) {
      more = 3;
      if (lead == 0xF0) low = 0x90;
      if (lead == 0xF4) high = 0x8F;
    } else {
      return i;
    }
    if (more >= s.size() - i || byte(i + 1) < low || byte(i + 1) > high) return i;
    for (std::size_t k = 2; k <= more; ++k) {
      if (byte(i + k) < 0x80 || byte(i + k) > 0xBF) return i;
    }
    i += more + 1;
  }
  return std::string_view::npos;
}

class Handler final : public nlohmann::json_sax<nlohmann::json> {
 public:
  Handler(const std::string& what, const std::function<void(const JsonEvent&)>& on_event)
      : what_(what), on_event_(on_event) {}

  bool null() override { return value({JsonEvent::Kind::kNull, path_}); }
  bool boolean(bool /*unused*/) override { return value({JsonEvent::Kind::kBool, path_}); }
  bool number_integer(number_integer_t number) override {
    return value({JsonEvent::Kind::kNegative, path_, 0, 0, static_cast<double>(number), {}});
  }
  bool number_unsigned(number_unsigned_t number) override {
    return value({JsonEvent::Kind::kUnsigned, path_, 0, number, static_cast<double>(number), {}});
  }
  bool number_float(number_float_t number, const string_t& /*unused*/) override {
    return value({JsonEvent::Kind::kReal, path_, 0, 0, number, {}});
  }
  bool string(string_t& text) override { return value({JsonEvent::Kind::kString, path_, 0, 0, 0, text}); }
  bool binary(binary_t& /*unused*/) override { return false; }  // no text has any

  bool start_object(std::size_t /*unused*/) override {
    value({JsonEvent::Kind::kObject, path_});
    return open(true);
  }
  bool key(string_t& name) override {
    Frame& frame = frames_.back();
    if (!frame.keys.insert(name).second) {
      throw FormatError(fmt::format("{}: has the key {} twice, expected each once", what_, in_quotes(name)));
    }
    if (frame.has_key) path_.pop_back();
    path_.push_back(name);
    frame.has_key = true;
    return true;
  }
  bool end_object() override {
    if (frames_.back().has_key) path_.pop_back();
    frames_.pop_back();
    return true;
  }
  bool start_array(std::size_t /*unused*/) override {
    value({JsonEvent::Kind::kArray, path_});
    ++arrays_;
    return open(false);
  }
  bool end_array() override {
    --arrays_;
    frames_.pop_back();
    return true;
  }
  bool parse_error(std::size_t position, const std::string& /*unused*/,
                   const nlohmann::detail::exception& /*unused*/) override {
    // The parser's own text repeats bytes of the file; the place is what helps.
    throw FormatError(fmt::format("{}: is not JSON: unexpected input at byte {}", what_, position));
  }

 private:
  struct Frame {
    bool is_object = false;
    bool has_key = false;
    std::set<std::string> keys;
  };

  bool value(JsonEvent event) {
    event.in_arrays = arrays_;
    on_event_(event);
    return true;
  }
  bool open(bool is_object) {
    if (frames_.size() == kMaxDepth) {
      throw FormatError(fmt::format("{}: is nested more than {} deep", what_, kMaxDepth));
    }
    frames_.push_back({is_object, false, {}});
    return true;
  }

  const std::string& what_;
  const std::function<void(const JsonEvent&)>& on_event_;
  std::vector<Frame> frames_;
  std::vector<std::string> path_;
  int arrays_ = 0;
};

}  // namespace

std::string in_quotes(std::string_view text) {
  constexpr std::size_t kLongest = 80;
  std::string out = "'";
  for (const char c : text.substr(0, kLongest)) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte >= 0x20 && byte < 0x7F) {
      out.push_back(c);
    } else {
      out += fmt::format("\\x{:02x}", byte);
    }
  }
  return out + (text.size() > kLongest ? "...'" : "'");
}

std::string describe(const JsonEvent& event) {
  switch (event.kind) {
    case JsonEvent::Kind::kObject: return "an object";
    case JsonEvent::Kind::kArray: return "a list";
    case JsonEvent::Kind::kNull: return "null";
    case JsonEvent::Kind::kBool: return "true or false";
    case JsonEvent::Kind::kUnsigned: return fmt::format("the number {}", event.number);
    case JsonEvent::Kind::kNegative:
    case JsonEvent::Kind::kReal: return fmt::format("the number {}", event.real);
    case JsonEvent::Kind::kString: return "the string " + in_quotes(event.text);
  }
  return "something else";
}

void parse_json(std::string_view text, const std::string& what, const std::function<void(const JsonEvent&)>& on_event) {
  if (const std::size_t at = find_invalid_utf8(text); at != std::string_view::npos) {
    throw FormatError(fmt::format("{}: is not UTF-8 at byte {}", what, at));
  }
  // nlohmann takes a NUL for the end of the text and passes over a byte order mark; neither is JSON.
  if (const std::size_t at = text.find('\0'); at != std::string_view::npos) {
    throw FormatError(fmt::format("{}: is not JSON: a NUL at byte {}", what, at));
  }
  if (text.starts_with("\xEF\xBB\xBF")) throw FormatError(what + ": is not JSON: begins with a byte order mark");
  Handler handler(what, on_event);
  nlohmann::json::sax_parse(text.begin(), text.end(), &handler);
}

}  // namespace charrnn
