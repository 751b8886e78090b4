// The command line's words: one parser a command, with messages that say what was meant. Thin on CLI11.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "charrnn/config.h"
#include "charrnn/error.h"
#include "devices/registry.h"
#include "train/run.h"

// NOLINTNEXTLINE(readability-identifier-naming): CLI11's own
namespace CLI {
class App;
class Option;
}  // namespace CLI

namespace charrnn {

using Arguments = std::vector<std::string>;  // what follows the command

/// A wrong command line. main adds which --help to read.
struct UsageError : ConfigError {
  explicit UsageError(const std::string& m) : ConfigError(m) {}
};

/// What `text` may have been meant to be, as " (did you mean X?)", or "" where nothing is near.
std::string did_you_mean(const std::string& text, const std::vector<std::string>& known);

class Options {
 public:
  /// @param command  as it is typed, with the flags that it can't do without; for --help
  /// @param epilog   printed after the flags in --help
  Options(const std::string& command, const std::string& description, const std::string& epilog = "");
  ~Options();
  Options(const Options&) = delete;
  Options& operator=(const Options&) = delete;

  CLI::App& app() { return *app_; }

  /// The one thing that stands without a flag. Checked by parse(): it must be given.
  void positional(const std::string& name, std::string& value, const std::string& description);
  void text(const std::string& flag, std::string& value, const std::string& description,
            const std::string& value_name = "TEXT");
  void whole(const std::string& flag, std::int64_t& value, const std::string& description, std::int64_t least,
             std::int64_t most);
  void whole(const std::string& flag, int& value, const std::string& description, int least, int most);
  void number(const std::string& flag, double& value, const std::string& description);
  void flag(const std::string& flag, bool& value, const std::string& description);
  /// May be given often; one value each time.
  void list(const std::string& flag, std::vector<std::string>& values, const std::string& description);
  void json(bool& value);

  /// Was this flag on the command line?
  bool given(const std::string& flag) const;

  /// False when --help was asked for and printed (to stdout): the command is done.
  /// @throws UsageError
  bool parse(const Arguments& arguments);

 private:
  struct Range {
    std::string flag;
    const std::int64_t* wide;
    const int* narrow;
    std::int64_t least, most;
  };

  std::unique_ptr<CLI::App> app_;
  std::string positional_name_;
  const std::string* positional_value_ = nullptr;
  std::vector<Range> ranges_;
  std::vector<std::string> flags_;
};

/// --device, --implementation, --threads and --precision.
struct DeviceFlags {
  std::string device = "auto";
  std::string implementation = "auto";
  int threads = 0;
  std::string precision = "auto";

  void add_to(Options& options, const std::string& precision_default);
  /// @throws UsageError for an implementation that there is not
  DeviceOptions parsed_device() const;
  /// @throws UsageError for a precision that there is not
  Precision parsed_precision() const;
};

void add_device(Options& options, std::string& device);
void add_implementation(Options& options, std::string& implementation);
/// @throws UsageError for one that there is not
Implementation parse_implementation(const std::string& implementation);
void add_threads(Options& options, int& threads);

/// "steps=10-20" or "steps=10", which is 10-10.
/// @throws UsageError for anything else
StepRange parse_profile(const std::string& text);

}  // namespace charrnn
