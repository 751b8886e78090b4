#include <fmt/format.h>

#include <chrono>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <random>

#include "charrnn/sampler.h"
#include "cli/commands.h"
#include "cli/console.h"
#include "cli/describe.h"
#include "io/files.h"
#include "model/loaded_model.h"

namespace charrnn {
namespace {

constexpr std::uintmax_t kLongestPrime = 64U << 20U;  // bytes

constexpr const char* kEpilog =
    "The text goes to stdout as it is drawn, the prime first, byte for byte; everything else to stderr. With --count "
    "above "
    "1 each text is printed when all are drawn, ended by a line break, with a separator line on stderr.\n"
    "--json: {schema, samples, escaped, seed, ...}. `samples` holds the texts as strings. JSON can carry only UTF-8: "
    "of a "
    "text that is not, `escaped` (an array of booleans, one a text) is true, and in its string each byte that is no "
    "part of "
    "valid UTF-8 stands as \\xNN, each backslash as \\\\.\n"
    "A prime is taken byte for byte: $'\\n' is a line break in most shells. Without one the first character is drawn "
    "uniformly.";

std::uint64_t random_seed() {
  std::random_device device;  // below 2^53: JSON readers keep it exactly
  return ((std::uint64_t{device()} << 32U) | device()) >> 11U;
}

void check(const Options& options, const SampleSettings& settings) {
  if (!(settings.temperature > 0) || !std::isfinite(settings.temperature)) {
    throw UsageError(
        fmt::format("--temperature is {}, expected a number above 0; for the likeliest character each time "
                    "use --greedy",
                    settings.temperature));
  }
  if (options.given("--prime") && options.given("--prime-file")) {
    throw UsageError("--prime and --prime-file are both given, expected one of them");
  }
}

void print_texts(const std::vector<std::string>& texts) {
  for (std::size_t i = 0; i < texts.size(); ++i) {
    say(fmt::format("----- text {} of {} -----", i + 1, texts.size()));
    write_stdout(texts[i]);
    if (!texts[i].ends_with('\n')) write_stdout("\n");
  }
}

}  // namespace

ExitCode sample_command(const Arguments& arguments) {
  std::string run;
  std::string prime_file;
  std::int64_t seed = 0;
  bool json = false;
  SampleSettings settings;
  DeviceFlags device;

  Options options("sample", "Draws texts from a run (its best checkpoint, else its newest) or a checkpoint.", kEpilog);
  options.positional("RUN|CHECKPOINT", run, "a run's folder or a checkpoint's");
  options.whole("--length", settings.length, "characters to draw besides the prime (default 2000)", 1,
                std::numeric_limits<std::int64_t>::max());
  options.number("--temperature", settings.temperature,
                 "above 0: below 1 bolder towards the likeliest, above 1 more varied (default 1)");
  options.text("--prime", settings.prime, "text that is fed first and printed");
  options.text("--prime-file", prime_file, "a file that holds the prime", "FILE");
  options.whole("--seed", seed, "0 or more; without it one is drawn and printed", 0,
                std::numeric_limits<std::int64_t>::max());
  options.whole("--top-k", settings.top_k, "draw among the K likeliest characters only", 1,
                std::numeric_limits<int>::max());
  options.text("--stop", settings.stop, "a text ends when it ends with this");
  options.whole("--count", settings.count, "texts, drawn as one batch (default 1)", 1, kMaxBatch);
  options.flag("--greedy", settings.greedy, "the likeliest character each time");
  device.add_to(options, "auto");
  options.json(json);
  if (!options.parse(arguments)) return ExitCode::kOk;
  check(options, settings);
  const DeviceOptions chosen = device.parsed_device();
  const Precision precision = device.parsed_precision();

  if (options.given("--prime-file")) settings.prime = read_file(prime_file, kLongestPrime);
  const bool seed_given = options.given("--seed");
  settings.seed = seed_given ? static_cast<std::uint64_t>(seed) : random_seed();

  LoadedModel model = load_model(run, chosen, precision);
  say_which(model.source, model.checkpoint.step);
  say_notes(*model.backend);
  if (!seed_given) say(fmt::format("seed: {}", settings.seed));

  const bool stream = settings.count == 1 && !json;
  std::function<void(int, std::string_view)> emit;
  if (stream) emit = [](int /*text*/, std::string_view bytes) { write_stdout(bytes); };
  const auto begun = std::chrono::steady_clock::now();
  const std::vector<std::string> texts = sample_texts(*model.network, model.checkpoint.vocabulary, settings, emit);
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begun).count();

  if (json) {
    nlohmann::ordered_json object{{"schema", kJsonSchema},
                                  {"samples", nlohmann::json::array()},
                                  {"escaped", nlohmann::json::array()}};
    for (const std::string& text : texts) {
      bool escaped = false;
      object["samples"].push_back(escape_for_json(text, escaped));
      object["escaped"].push_back(escaped);
    }
    object["seed"] = settings.seed;
    object["length"] = settings.length;
    object["temperature"] = settings.temperature;
    object["top_k"] = settings.top_k;
    object["greedy"] = settings.greedy;
    describe(object, model);
    object["seconds"] = seconds;
    write_json(object);
  } else if (!stream) {
    print_texts(texts);
  } else if (stdout_is_terminal() && !texts.front().ends_with('\n')) {
    write_stdout("\n");  // on a terminal only: elsewhere the bytes are the text's
  }
  return ExitCode::kOk;
}

}  // namespace charrnn
