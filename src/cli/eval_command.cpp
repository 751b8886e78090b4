#include <fmt/format.h>

#include <chrono>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>

#include "cli/commands.h"
#include "cli/console.h"
#include "cli/describe.h"
#include "data/corpus.h"
#include "data/streams.h"
#include "model/evaluator.h"
#include "model/loaded_model.h"

namespace charrnn {
namespace {

constexpr const char* kEpilog =
    "The text is scored as one stream from zero state: the mean over its N-1 predictions. --streams S cuts it into S "
    "that "
    "run side by side, each from zero state: faster, and very slightly worse scores. Computes in fp32 unless told.\n"
    "--json: {schema, nats_per_char, bits_per_char, perplexity, accuracy, characters, seconds, ...}.";

/// What is scored.
struct Task {
  std::optional<Corpus> corpus;
  std::string what;  // for messages
  std::vector<LaneRange> lanes;
};

std::string state_value(const CheckpointSummary& summary, const std::string& name) {
  for (const auto& [key, value] : summary.state) {
    if (key == name) return value;
  }
  return "";
}

Task text_task(const std::string& file, int streams) {
  Task task;
  ProgressBar bar("reading " + file);
  task.corpus = open_text_file(file, [&bar](double fraction) { bar.update(fraction); });
  task.what = file;
  task.lanes = cut_lanes(0, static_cast<std::int64_t>(task.corpus->text().size()), streams);
  return task;
}

Task split_task(const CheckpointSummary& summary, const std::string& split, int streams) {
  const Config& config = summary.config;
  Task task;
  {
    ProgressBar bar("reading the run's text");
    task.corpus = Corpus::open(config.corpus, [&bar](double fraction) { bar.update(fraction); });
  }
  say("text: " + task.corpus->source());
  const std::string expected = state_value(summary, "text_sha256");
  if (!expected.empty() && expected != task.corpus->sha256()) {
    throw DataError(task.corpus->source() + " is not the text that this run was trained on: its sha256 is " +
                    task.corpus->sha256() + ", the checkpoint's is " + expected +
                    "; bring the old text back, or score this one with --text");
  }
  const auto characters = static_cast<std::int64_t>(task.corpus->text().size());
  const StreamPlan plan = plan_streams(config.corpus, characters, config.train.batch, config.train.sequence,
                                       std::numeric_limits<std::int64_t>::max());
  const bool validation = split == "validation";
  const std::int64_t begin = validation ? plan.validation_begin : plan.test_begin;
  const std::int64_t end = validation ? plan.validation_end : plan.test_end;
  task.what = "the " + split + " split of " + task.corpus->source();
  if (end - begin >= 2) {
    task.lanes = cut_lanes(begin, end, streams);
  } else {  // split_by stream: one piece a lane
    task.lanes = validation ? plan.validation : plan.test;
  }
  if (task.lanes.empty()) {
    throw UsageError("this run has no " + split +
                     " split (corpus.split in its config), so there is nothing to score; " +
                     "name a text with --text FILE");
  }
  return task;
}

}  // namespace

ExitCode eval_command(const Arguments& arguments) {
  std::string run;
  std::string file;
  std::string split = "validation";
  int streams = 1;
  bool json = false;
  DeviceFlags device;

  Options options("eval", "Scores a text, or the held-out part of a run's own text, with a run's best checkpoint.",
                  kEpilog);
  options.positional("RUN|CHECKPOINT", run, "a run's folder or a checkpoint's");
  options.text("--text", file, "a file to score", "FILE");
  options.text("--split", split, "validation (the default) or test: that part of the text that the run was trained on",
               "S");
  options.whole("--streams", streams, "cut the text into so many streams (default 1)", 1, kMaxBatch);
  device.add_to(options, "fp32");
  options.json(json);
  if (!options.parse(arguments)) return ExitCode::kOk;
  if (options.given("--text") && options.given("--split")) {
    throw UsageError("--text and --split are both given, expected one of them");
  }
  if (split != "validation" && split != "test") {
    throw UsageError("--split is '" + split + "', expected validation or test");
  }
  const DeviceOptions chosen = device.parsed_device();
  const Precision precision = device.parsed_precision();

  LoadedModel model = load_model(run, chosen, precision);
  say_which(model.source, model.checkpoint.step);
  say_notes(*model.backend);
  const bool own_text = !options.given("--text");
  const Task task =
      own_text ? split_task(peek_checkpoint(model.source.folder), split, streams) : text_task(file, streams);

  const auto begun = std::chrono::steady_clock::now();
  EvaluationResult result;
  {
    ProgressBar bar("evaluating");
    result = evaluate_text(
        *model.network, model.checkpoint.vocabulary, task.corpus->text(), task.lanes,
        evaluation_steps(task.lanes.size()), [&bar](double fraction) { bar.update(fraction); }, {}, task.what);
  }
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begun).count();
  if (!std::isfinite(result.nats_per_char)) {
    throw RunError("the loss is not a finite number: these weights give no probabilities on " + task.what);
  }

  if (json) {
    nlohmann::ordered_json object{{"schema", kJsonSchema},
                                  {"nats_per_char", result.nats_per_char},
                                  {"bits_per_char", result.bits_per_char},
                                  {"perplexity", result.perplexity},
                                  {"accuracy", result.accuracy},
                                  {"characters", result.characters},
                                  {"seconds", seconds},
                                  {"streams", task.lanes.size()},
                                  {"text", task.corpus->source()},
                                  {"split", own_text ? nlohmann::ordered_json(split) : nlohmann::ordered_json()}};
    describe(object, model);
    write_json(object);
  } else {
    write_stdout(format_rows({{"nats/char", format_fixed(result.nats_per_char, 6)},
                              {"bits/char", format_fixed(result.bits_per_char, 6)},
                              {"perplexity", format_fixed(result.perplexity, 4)},
                              {"accuracy", format_fixed(100 * result.accuracy, 2) + " %"},
                              {"characters", format_count(result.characters)},
                              {"seconds", format_fixed(seconds, 2)}}));
  }
  return ExitCode::kOk;
}

}  // namespace charrnn
