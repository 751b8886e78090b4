#include "cli/options.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <charconv>
#include <numeric>
#include <system_error>

#include "cli/console.h"

namespace charrnn {
namespace {

/// Edits (insert, delete, replace, swap neighbours) that lead from a to b.
std::size_t edit_distance(const std::string& a, const std::string& b) {
  std::vector<std::size_t> before(b.size() + 1);  // the row for i - 2
  std::vector<std::size_t> last(b.size() + 1);    // for i - 1
  std::vector<std::size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), std::size_t{0});
  for (std::size_t i = 1; i <= a.size(); ++i) {
    std::swap(before, last);
    std::swap(last, row);
    row[0] = i;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      row[j] = std::min({last[j] + 1, row[j - 1] + 1, last[j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1)});
      const bool swapped = i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1];
      if (swapped) row[j] = std::min(row[j], before[j - 2] + 1);
    }
  }
  return row.back();
}

/// CLI11's, but for the first lines: what must be given stands without brackets.
class Formatter : public CLI::Formatter {
 public:
  std::string make_usage(const CLI::App* app, std::string name) const override {
    std::string usage = "\nusage: " + name;
    for (const CLI::Option* option : app->get_options()) {
      if (option->get_positional()) usage += " " + option->get_name(true);
    }
    return usage + " [flags]\n";
  }
};

/// Broken into lines of at most 100 characters.
std::string wrap(const std::string& text) {
  constexpr std::size_t kWidth = 100;
  std::string wrapped;
  std::size_t column = 0;
  for (std::size_t at = 0; at < text.size();) {
    if (text[at] == '\n') {
      wrapped += text[at++];
      column = 0;
      continue;
    }
    const std::size_t end = std::min(text.find_first_of(" \n", at), text.size());
    if (column > 0) {
      const bool fits = column + 1 + (end - at) <= kWidth;
      wrapped += fits ? ' ' : '\n';
      column = fits ? column + 1 : 0;
    }
    wrapped.append(text, at, end - at);
    column += end - at;
    at = end < text.size() && text[end] == ' ' ? end + 1 : end;
  }
  return wrapped;
}

/// CLI11 would take 010 for 8 and cut what is too large to the largest, without a word.
std::string refuse_all_but_decimal(const std::string& text) {
  const std::size_t first = text.starts_with('-') ? 1 : 0;
  const bool leading_zero = text.size() > first + 1 && text[first] == '0';
  std::int64_t value = 0;
  const char* const end = text.data() + text.size();
  const auto [at, error] = std::from_chars(text.data(), end, value);
  if (error == std::errc::result_out_of_range) return "'" + text + "' is too large, expected at most 2^63 - 1";
  if (error != std::errc() || at != end || leading_zero) {
    return "'" + text + "' is no whole number, expected decimal digits";
  }
  return "";
}

}  // namespace

std::string did_you_mean(const std::string& text, const std::vector<std::string>& known) {
  constexpr std::size_t kLongest = 64;  // longer words are no slip of the finger, and cost time
  if (text.size() > kLongest) return "";
  const std::string* nearest = nullptr;
  std::size_t least = std::max<std::size_t>(1, text.size() / 3) + 1;
  for (const std::string& candidate : known) {
    const bool prefix = text.size() >= 3 && candidate.starts_with(text);
    const std::size_t distance = prefix ? 1 : edit_distance(text, candidate);
    if (distance < least) {
      least = distance;
      nearest = &candidate;
    }
  }
  return nearest == nullptr ? "" : " (did you mean " + *nearest + "?)";
}

Options::Options(const std::string& command, const std::string& description, const std::string& epilog)
    : app_(std::make_unique<CLI::App>(description, "charrnn-gpu " + command)) {
  app_->allow_extras();  // collected, so that the message can name what was meant
  app_->set_help_flag("-h,--help", "print this help and exit");
  app_->formatter(std::make_shared<Formatter>());
  app_->get_formatter()->column_width(28);
  if (!epilog.empty()) app_->footer(wrap(epilog));
  flags_.emplace_back("--help");
}

Options::~Options() = default;

void Options::positional(const std::string& name, std::string& value, const std::string& description) {
  positional_name_ = name;
  positional_value_ = &value;
  app_->add_option(name, value, description)->type_name("");
}

void Options::text(const std::string& flag, std::string& value, const std::string& description,
                   const std::string& value_name) {
  app_->add_option(flag, value, description)->type_name(value_name);
  flags_.push_back(flag);
}

void Options::whole(const std::string& flag, std::int64_t& value, const std::string& description, std::int64_t least,
                    std::int64_t most) {
  app_->add_option(flag, value, description)->type_name("N")->check(refuse_all_but_decimal);
  ranges_.push_back({flag, &value, nullptr, least, most});
  flags_.push_back(flag);
}

void Options::whole(const std::string& flag, int& value, const std::string& description, int least, int most) {
  app_->add_option(flag, value, description)->type_name("N")->check(refuse_all_but_decimal);
  ranges_.push_back({flag, nullptr, &value, least, most});
  flags_.push_back(flag);
}

void Options::number(const std::string& flag, double& value, const std::string& description) {
  app_->add_option(flag, value, description)->type_name("X");
  flags_.push_back(flag);
}

void Options::flag(const std::string& flag, bool& value, const std::string& description) {
  app_->add_flag(flag, value, description);
  flags_.push_back(flag);
}

void Options::list(const std::string& flag, std::vector<std::string>& values, const std::string& description) {
  app_->add_option(flag, values, description)->type_name("KEY=VALUE")->allow_extra_args(false);
  flags_.push_back(flag);
}

void Options::json(bool& value) { flag("--json", value, "print one JSON object (schema 1) on stdout instead"); }

bool Options::given(const std::string& flag) const { return app_->count(flag) > 0; }

bool Options::parse(const Arguments& arguments) {
  std::vector<std::string> reversed(arguments.rbegin(), arguments.rend());  // as CLI11 wants them
  try {
    app_->parse(reversed);
  } catch (const CLI::CallForHelp&) {
    write_stdout(app_->help());
    return false;
  } catch (const CLI::ParseError& error) {
    std::string message = error.what();
    while (!message.empty() && (message.back() == '\n' || message.back() == '.')) message.pop_back();
    throw UsageError(message);
  }
  for (const std::string& extra : app_->remaining()) {
    if (extra == "--") continue;
    if (extra.starts_with("-")) {
      throw UsageError("unknown flag " + extra + did_you_mean(extra.substr(0, extra.find('=')), flags_));
    }
    throw UsageError("unexpected word '" + extra + "'" +
                     (positional_value_ == nullptr ? std::string(": this command takes flags only")
                                                   : " after " + positional_name_ + " '" + *positional_value_ + "'"));
  }
  if (positional_value_ != nullptr && positional_value_->empty()) {
    throw UsageError(positional_name_ + " is missing: which run or checkpoint?");
  }
  for (const Range& range : ranges_) {
    const std::int64_t value = range.wide != nullptr ? *range.wide : *range.narrow;
    if (given(range.flag) && (value < range.least || value > range.most)) {
      throw UsageError(range.flag + " is " + std::to_string(value) + ", expected " + std::to_string(range.least) +
                       " to " + std::to_string(range.most));
    }
  }
  return true;
}

void add_device(Options& options, std::string& device) {
  options.text("--device", device, "auto (the default), cpu, cuda or cuda:N; see charrnn-gpu devices", "D");
}

void add_implementation(Options& options, std::string& implementation) {
  options.text("--implementation", implementation,
               "of the recurrence on a GPU: auto (the default), cudnn or fused; the CPU ignores it", "I");
}

Implementation parse_implementation(const std::string& implementation) {
  for (const Implementation candidate : {Implementation::kAuto, Implementation::kCudnn, Implementation::kFused}) {
    if (implementation == name_of(candidate)) return candidate;
  }
  throw UsageError("--implementation is '" + implementation + "', expected auto, cudnn or fused");
}

void add_threads(Options& options, int& threads) {
  options.whole("--threads", threads, "CPU threads; without it all that this process may use", 1, 4096);
}

void DeviceFlags::add_to(Options& options, const std::string& precision_default) {
  precision = precision_default;
  add_device(options, device);
  add_implementation(options, implementation);
  add_threads(options, threads);
  options.text(
      "--precision", precision,
      "auto, fp32, bf16, tf32 or fp16; auto is the first of bf16, fp16, fp32 that the device has. Without it " +
          precision_default,
      "P");
}

DeviceOptions DeviceFlags::parsed_device() const {
  return {.device = device, .threads = threads, .implementation = parse_implementation(implementation)};
}

Precision DeviceFlags::parsed_precision() const {
  for (const Precision candidate :
       {Precision::kAuto, Precision::kFp32, Precision::kBf16, Precision::kTf32, Precision::kFp16}) {
    if (precision == name_of(candidate)) return candidate;
  }
  throw UsageError("--precision is '" + precision + "', expected auto, fp32, bf16, tf32 or fp16");
}

StepRange parse_profile(const std::string& text) {
  const std::string prefix = "steps=";
  const std::string steps = text.starts_with(prefix) ? text.substr(prefix.size()) : "";
  const std::size_t dash = steps.find('-');
  const std::string first = steps.substr(0, dash);
  const std::string last = dash == std::string::npos ? first : steps.substr(dash + 1);
  const auto number = [](const std::string& digits) {
    std::int64_t value = 0;
    const char* const end = digits.data() + digits.size();
    const auto [at, error] = std::from_chars(digits.data(), end, value);
    return error == std::errc() && at == end ? value : 0;
  };
  const StepRange range{number(first), number(last)};
  if (range.first < 1 || range.last < range.first) {
    throw UsageError("--profile is '" + text + "', expected steps=A-B with A from 1 on and B from A on");
  }
  return range;
}

}  // namespace charrnn
