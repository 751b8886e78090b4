// What the program prints, and where: results to stdout, everything else to stderr.
#pragma once

#include <chrono>
#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "charrnn/config.h"
#include "charrnn/network_shape.h"

namespace charrnn {

using Rows = std::vector<std::pair<std::string, std::string>>;

/// Writes all bytes to stdout and flushes. @throws RunError when stdout cannot take them (a full disk, a closed pipe)
void write_stdout(std::string_view bytes);
/// One line of JSON; a path or text in it that is not UTF-8 gets replacement characters.
void write_json(const nlohmann::ordered_json& object);

/// Lines to stderr. A progress bar that stands there is cleared first. Nothing can be done if stderr fails.
void say(std::string_view line);
void warn(std::string_view line);   // "warning: ..."
void error(std::string_view line);  // "error: ..."

/// Is stderr a terminal that can move its cursor?
bool stderr_is_terminal();
bool stdout_is_terminal();
/// NO_COLOR (any value), CLICOLOR_FORCE (other than 0), TERM=dumb, and whether stderr is a terminal decide.
bool stderr_has_colour();

/// Two columns, the first padded, each line ended.
std::string format_rows(const Rows& rows);
/// A table with aligned columns; the first row is the heading. Columns whose cells are numbers are aligned right.
std::string format_table(const std::vector<std::vector<std::string>>& rows);

std::string format_count(std::int64_t n);     // 5458432 -> 5,458,432
std::string format_bytes(double bytes);       // 1536 -> 1.5 KiB
std::string format_duration(double seconds);  // 3661 -> 1:01:01, 75 -> 1:15
std::string format_fixed(double value, int digits);
std::string format_scientific(double value, int digits);

std::string precision_names(const std::vector<Precision>& precisions);  // "fp32, bf16"
std::string nonlinearity_name(Cell cell);  // "tanh", "relu", or "" where there is no choice
std::string cell_name(Cell cell);          // "lstm", "gru", "rnn (tanh)", "rnn (relu)"

/// A text as JSON can carry it. Valid UTF-8 stays as it is. In any other text each byte that is no part of valid UTF-8
/// becomes \xNN (four characters) and each backslash \\ (two), and `escaped` is set: so it can be undone.
std::string escape_for_json(std::string_view bytes, bool& escaped);

/// Draws a bar on stderr, which must be a terminal; `behind` is cut to the terminal's width.
void draw_progress_bar(double fraction, const std::string& behind, const std::string& before = "");

/// Progress of long silent work: on a terminal a bar that is redrawn in place, else a line every few seconds.
class ProgressBar {
 public:
  /// @param what  e.g. "evaluating"
  explicit ProgressBar(std::string what);
  ~ProgressBar();
  ProgressBar(const ProgressBar&) = delete;
  ProgressBar& operator=(const ProgressBar&) = delete;

  /// `detail` stands behind the bar. Cheap: prints ten times a second at most.
  void update(double fraction, const std::string& detail = "");
  /// Removes the bar.
  void clear();

 private:
  using Clock = std::chrono::steady_clock;

  std::string what_;
  Clock::time_point begun_ = Clock::now();
  Clock::time_point printed_{};
};

}  // namespace charrnn
