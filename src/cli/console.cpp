#include "cli/console.h"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <nlohmann/json.hpp>

#include "charrnn/error.h"

namespace charrnn {
namespace {

bool bar_stands = false;  // a progress bar is on the terminal's last line

bool environment_is_set(const char* name) {
  const char* value = std::getenv(name);
  return value != nullptr && *value != '\0';
}

bool is_terminal(int fd) {
  const char* term = std::getenv("TERM");
  return isatty(fd) == 1 && term != nullptr && std::strcmp(term, "dumb") != 0;
}

void write_stderr(std::string_view text) {
  std::fwrite(text.data(), 1, text.size(), stderr);
  std::fflush(stderr);
}

void remove_bar() {
  if (!bar_stands) return;
  write_stderr("\r\033[K");
  bar_stands = false;
}

std::string coloured(std::string_view text, const char* code) {
  return stderr_has_colour() ? fmt::format("\033[{}m{}\033[0m", code, text) : std::string(text);
}

std::size_t terminal_width() {
  winsize size{};
  if (ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col >= 20) return size.ws_col;
  return 80;
}

bool looks_like_number(const std::string& cell) {
  return !cell.empty() && cell.find_first_not_of("0123456789.,+-e%") == std::string::npos;
}

/// Length of the valid UTF-8 sequence that starts at `at`, or 0. No overlong forms, no surrogates, up to U+10FFFF.
std::size_t utf8_length(std::string_view bytes, std::size_t at) {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(bytes[at + i]); };
  const std::size_t left = bytes.size() - at;
  const unsigned first = byte(0);
  if (first < 0x80) return 1;
  const std::size_t length = first >= 0xC2 && first <= 0xDF   ? 2
                             : first >= 0xE0 && first <= 0xEF ? 3
                             : first >= 0xF0 && first <= 0xF4 ? 4
                                                              : 0;
  if (length == 0 || length > left) return 0;
  for (std::size_t i = 1; i < length; ++i) {
    if ((byte(i) & 0xC0U) != 0x80) return 0;
  }
  if (first == 0xE0 && byte(1) < 0xA0) return 0;
  if (first == 0xED && byte(1) > 0x9F) return 0;
  if (first == 0xF0 && byte(1) < 0x90) return 0;
  if (first == 0xF4 && byte(1) > 0x8F) return 0;
  return length;
}

}  // namespace

void write_stdout(std::string_view bytes) {
  if (bytes.empty()) return;
  if (bar_stands && stdout_is_terminal()) remove_bar();
  errno = 0;
  if (std::fwrite(bytes.data(), 1, bytes.size(), stdout) != bytes.size() || std::fflush(stdout) != 0) {
    throw RunError(std::string("standard output cannot be written: ") + std::strerror(errno == 0 ? EIO : errno));
  }
}

void write_json(const nlohmann::ordered_json& object) {
  write_stdout(object.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n");
}

void say(std::string_view line) {
  remove_bar();
  write_stderr(fmt::format("{}\n", line));
}
void warn(std::string_view line) { say(fmt::format("{} {}", coloured("warning:", "1;33"), line)); }
void error(std::string_view line) { say(fmt::format("{} {}", coloured("error:", "1;31"), line)); }

bool stderr_is_terminal() {
  static const bool is = is_terminal(STDERR_FILENO);
  return is;
}

bool stdout_is_terminal() {
  static const bool is = is_terminal(STDOUT_FILENO);
  return is;
}

bool stderr_has_colour() {
  static const bool has = [] {
    if (environment_is_set("NO_COLOR")) return false;
    if (environment_is_set("CLICOLOR_FORCE") && std::strcmp(std::getenv("CLICOLOR_FORCE"), "0") != 0) return true;
    return stderr_is_terminal();
  }();
  return has;
}

std::string format_rows(const Rows& rows) {
  std::size_t width = 0;
  for (const auto& row : rows) width = std::max(width, row.first.size());
  std::string text;
  for (const auto& [name, value] : rows) text += fmt::format("{:<{}}  {}\n", name, width, value);
  return text;
}

std::string format_table(const std::vector<std::vector<std::string>>& rows) {
  std::vector<std::size_t> widths;
  std::vector<bool> right;
  for (const auto& row : rows) {
    widths.resize(std::max(widths.size(), row.size()));
    right.resize(widths.size(), true);
    for (std::size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], row[i].size());
  }
  for (std::size_t r = 1; r < rows.size(); ++r) {
    for (std::size_t i = 0; i < rows[r].size(); ++i) right[i] = right[i] && looks_like_number(rows[r][i]);
  }
  std::string text;
  for (const auto& row : rows) {
    std::string line;
    for (std::size_t i = 0; i < row.size(); ++i) {
      if (i > 0) line += "  ";
      line += right[i] ? fmt::format("{:>{}}", row[i], widths[i]) : fmt::format("{:<{}}", row[i], widths[i]);
    }
    line.erase(line.find_last_not_of(' ') + 1);
    text += line + "\n";
  }
  return text;
}

std::string format_count(std::int64_t n) {
  std::string digits = std::to_string(n);
  const std::size_t first = n < 0 ? 1 : 0;
  for (std::size_t at = digits.size(); at > first + 3;) {
    at -= 3;
    digits.insert(at, 1, ',');
  }
  return digits;
}

std::string format_bytes(double bytes) {
  const char* unit = "B";
  for (const char* next : {"KiB", "MiB", "GiB", "TiB"}) {
    if (bytes < 1024) break;
    bytes /= 1024;
    unit = next;
  }
  return *unit == 'B' ? fmt::format("{:.0f} B", bytes) : fmt::format("{:.1f} {}", bytes, unit);
}

std::string format_duration(double seconds) {
  if (!std::isfinite(seconds) || seconds < 0 || seconds > 1e9) return "?";
  const auto all = static_cast<std::int64_t>(std::llround(seconds));
  if (all >= 3600) return fmt::format("{}:{:02}:{:02}", all / 3600, all / 60 % 60, all % 60);
  return fmt::format("{}:{:02}", all / 60, all % 60);
}

std::string format_fixed(double value, int digits) { return fmt::format("{:.{}f}", value, digits); }
std::string format_scientific(double value, int digits) { return fmt::format("{:.{}e}", value, digits); }

std::string precision_names(const std::vector<Precision>& precisions) {
  std::string names;
  for (const Precision precision : precisions) {
    names += (names.empty() ? "" : ", ") + std::string(name_of(precision));
  }
  return names;
}

std::string nonlinearity_name(Cell cell) {
  return cell == Cell::kRnnTanh ? "tanh" : cell == Cell::kRnnRelu ? "relu" : "";
}

std::string cell_name(Cell cell) {
  const std::string nonlinearity = nonlinearity_name(cell);
  return std::string(name_of(cell)) + (nonlinearity.empty() ? "" : " (" + nonlinearity + ")");
}

std::string escape_for_json(std::string_view bytes, bool& escaped) {
  escaped = false;
  for (std::size_t at = 0; at < bytes.size() && !escaped;) {
    const std::size_t length = utf8_length(bytes, at);
    escaped = length == 0;
    at += length;
  }
  if (!escaped) return std::string(bytes);
  std::string text;
  for (std::size_t at = 0; at < bytes.size();) {
    const std::size_t length = utf8_length(bytes, at);
    if (length == 0) {
      text += fmt::format("\\x{:02X}", static_cast<unsigned char>(bytes[at]));
      ++at;
    } else {
      text += bytes[at] == '\\' ? std::string_view("\\\\") : bytes.substr(at, length);
      at += length;
    }
  }
  return text;
}

void draw_progress_bar(double fraction, const std::string& behind, const std::string& before) {
  const std::size_t width = terminal_width() - 1;  // the last column would wrap on some terminals
  const std::size_t fixed = before.size() + behind.size() + 5;
  std::string line = before;
  if (fixed + 6 <= width) {
    const std::size_t cells = std::min<std::size_t>(width - fixed, 40);
    const auto full = static_cast<std::size_t>(std::clamp(fraction, 0.0, 1.0) * static_cast<double>(cells));
    line += (line.empty() ? "[" : " [") + std::string(full, '#') + std::string(cells - full, '.') + "]";
  }
  line += (line.empty() ? "" : "  ") + behind;
  line.resize(std::min(line.size(), width));
  write_stderr("\r\033[K" + line);
  bar_stands = true;
}

ProgressBar::ProgressBar(std::string what) : what_(std::move(what)) {}
ProgressBar::~ProgressBar() { clear(); }

void ProgressBar::clear() { remove_bar(); }

void ProgressBar::update(double fraction, const std::string& detail) {
  constexpr auto kRedraw = std::chrono::milliseconds(100);
  constexpr auto kLine = std::chrono::seconds(5);
  constexpr auto kSilent = std::chrono::milliseconds(500);  // short work needs no bar
  const auto now = Clock::now();
  const bool terminal = stderr_is_terminal();
  if (!terminal && now - std::max(begun_, printed_) < kLine) return;
  if (terminal && (now - begun_ < kSilent || now - printed_ < kRedraw)) return;
  printed_ = now;

  fraction = std::clamp(fraction, 0.0, 1.0);
  const double passed = std::chrono::duration<double>(now - begun_).count();
  const std::string left = fraction > 0 ? format_duration(passed * (1 - fraction) / fraction) : "?";
  const std::string behind =
      fmt::format("{:.0f}%  {}{}ETA {}", 100 * fraction, detail, detail.empty() ? "" : "  ", left);
  if (!terminal) {
    say(fmt::format("{}  {}", what_, behind));
    return;
  }
  draw_progress_bar(fraction, behind, what_);
}

}  // namespace charrnn
