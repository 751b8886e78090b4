#include "data/streams.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "charrnn/error.h"
#include "text/grouped.h"

namespace charrnn {
namespace {

/// floor(fraction * n), where 0.29 of 100 is 29: the binary number nearest to 0.29 is a little less than it, and so is
/// the product. Both are rounded once, by half a unit each; four units are more than that, and less than anything one
/// can mean.
std::int64_t share(double fraction, std::int64_t n) {
  const double exact = fraction * static_cast<double>(n);
  const double nudged = std::floor(exact * (1 + 4 * std::numeric_limits<double>::epsilon()));
  return std::clamp<std::int64_t>(static_cast<std::int64_t>(nudged), 0, n);
}

struct Shares {
  std::int64_t train = 0, validation = 0, test = 0;
};

/// n units (characters or windows), of which train gets at least `least`.
Shares divide(const std::array<double, 3>& split, std::int64_t n, std::int64_t least) {
  Shares s;
  if (split[1] <= 0 && split[2] <= 0) {
    s.train = n;
    return s;
  }
  s.train = std::max(least, share(split[0], n));
  if (split[2] > 0) s.test = split[1] > 0 ? std::min(share(split[2], n), n - s.train) : n - s.train;
  s.validation = n - s.train - s.test;
  return s;
}

/// 1234567 as 1,234,567.
/// "1 character", "1,234 characters".
std::string counted(std::int64_t n, const char* thing) { return grouped(n) + " " + thing + (n == 1 ? "" : "s"); }

std::string percent(double fraction) { return fmt::format("{:.4g}%", 100 * fraction); }

/// The effective batch and sequence for `chars` predictions, at least 1.
void fit(TrainingStreams& t, std::int64_t chars, int batch, int sequence, std::vector<std::string>& notes) {
  t.batch = batch;
  t.sequence = sequence;
  if (chars >= static_cast<std::int64_t>(batch) * sequence) return;
  t.batch = static_cast<int>(std::max<std::int64_t>(1, chars / sequence));
  t.sequence = static_cast<int>(std::min<std::int64_t>(sequence, chars));
  if (t.sequence < sequence) {
    notes.push_back(fmt::format("The {} to train on do not fill one window of {}: the sequence is {}{}.",
                                counted(chars + 1, "character"), grouped(sequence), grouped(t.sequence),
                                batch == 1 ? "" : fmt::format(" and the batch 1, not {}", grouped(batch))));
  } else {
    notes.push_back(fmt::format("The {} to train on do not fill {} streams of {}: the batch is {}.",
                                counted(chars + 1, "character"), grouped(batch), grouped(sequence), grouped(t.batch)));
  }
}

void note_missing(double fraction, std::int64_t size, const char* unit, const char* name,
                  std::vector<std::string>& notes) {
  notes.push_back(fmt::format("The {} share of {} comes to {}, too little to predict anything: there is no {}.", name,
                              percent(fraction), counted(size, unit), name));
}

void note_limit(std::int64_t scored, std::int64_t available, const char* name, const char* where,
                std::vector<std::string>& notes) {
  if (scored >= available) return;
  notes.push_back(fmt::format("{} scores the first {} of the {} that it could{} (validate.characters).", name,
                              grouped(scored), counted(available, "character"), where));
}

StreamPlan plan_tail(const CorpusConfig& corpus, std::int64_t characters, int batch, int sequence,
                     std::int64_t validation_limit) {
  StreamPlan plan;
  const Shares parts = divide(corpus.split, characters, 0);
  plan.train_characters = parts.train;
  plan.validation_characters = parts.validation;
  plan.test_characters = parts.test;
  plan.validation_begin = parts.train;
  plan.validation_end = plan.test_begin = parts.train + parts.validation;
  plan.test_end = characters;

  const std::int64_t predictions = parts.train - 1;
  if (predictions < 1) {
    throw DataError(
        fmt::format("corpus.split: the train share of {} of a text of {} is {}, expected at least 2: there is "
                    "nothing to predict; give it a longer text, or a larger share ([1, 0, 0] is all of it)",
                    percent(corpus.split[0]), counted(characters, "character"), parts.train));
  }
  TrainingStreams& t = plan.training;
  fit(t, predictions, batch, sequence, plan.notes);
  t.stride = predictions / t.batch;
  t.windows_per_epoch = t.stride / t.sequence;
  plan.left_out = predictions - t.windows_per_epoch * t.sequence * t.batch;
  if (plan.left_out > 0) {
    plan.notes.push_back(
        fmt::format("{} at the {} not fill a window of {} and {} left out of training ({:.2f}%).",
                    counted(plan.left_out, "character"),
                    std::string(t.batch == 1 ? "lane's end" : "lanes' ends") + (plan.left_out == 1 ? " does" : " do"),
                    grouped(t.sequence), plan.left_out == 1 ? "is" : "are",
                    100.0 * static_cast<double>(plan.left_out) / static_cast<double>(predictions)));
  }

  const auto evaluate = [&](std::int64_t begin, std::int64_t end, double fraction, const char* name,
                            const char* capital) {
    std::vector<LaneRange> lanes;
    if (fraction <= 0) return lanes;
    const std::int64_t available = end - begin - 1;
    if (available < 1) {
      note_missing(fraction, end - begin, "character", name, plan.notes);
      return lanes;
    }
    const std::int64_t scored = std::min(available, validation_limit);
    note_limit(scored, available, capital, "", plan.notes);
    const std::int64_t count = std::clamp<std::int64_t>(scored / sequence, 1, batch);
    std::int64_t start = begin;
    for (std::int64_t b = 0; b < count; ++b) {
      lanes.push_back({start, scored / count + (b < scored % count ? 1 : 0)});
      start += lanes.back().count;
    }
    return lanes;
  };
  plan.validation = evaluate(plan.validation_begin, plan.validation_end, corpus.split[1], "validation", "Validation");
  plan.test = evaluate(plan.test_begin, plan.test_end, corpus.split[2], "test", "The test");
  return plan;
}

StreamPlan plan_by_stream(const CorpusConfig& corpus, std::int64_t characters, int batch, int sequence,
                          std::int64_t validation_limit) {
  StreamPlan plan;
  TrainingStreams& t = plan.training;
  const std::int64_t predictions = characters - 1;
  fit(t, predictions, batch, sequence, plan.notes);
  const std::int64_t windows = predictions / (static_cast<std::int64_t>(t.batch) * t.sequence);
  const Shares parts = divide(corpus.split, windows, 1);
  const std::int64_t window_characters = static_cast<std::int64_t>(t.batch) * t.sequence;
  t.stride = windows * t.sequence;
  t.windows_per_epoch = parts.train;
  plan.train_characters = parts.train * window_characters;
  plan.validation_characters = parts.validation * window_characters;
  plan.test_characters = parts.test * window_characters;
  plan.left_out = predictions - windows * window_characters;
  if (plan.left_out > 0) {
    plan.notes.push_back(
        fmt::format("{} at the text's end {} not fill {} of {} and {} left out of all splits ({:.2f}%).",
                    counted(plan.left_out, "character"), plan.left_out == 1 ? "does" : "do", counted(t.batch, "stream"),
                    grouped(t.sequence), plan.left_out == 1 ? "is" : "are",
                    100.0 * static_cast<double>(plan.left_out) / static_cast<double>(predictions)));
  }

  const auto evaluate = [&](std::int64_t first_window, std::int64_t count, double fraction, const char* name,
                            const char* capital) {
    std::vector<LaneRange> lanes;
    if (fraction <= 0) return lanes;
    if (count < 1) {
      note_missing(fraction, count, "window", name, plan.notes);
      return lanes;
    }
    const std::int64_t available = count * t.sequence;  // in each lane
    const std::int64_t scored = std::clamp<std::int64_t>(validation_limit / t.batch, 1, available);
    const std::int64_t used = std::min<std::int64_t>(t.batch, validation_limit);  // a limit below one character a lane
    note_limit(scored * used, available * t.batch, capital, " from the starts of its lanes", plan.notes);
    for (std::int64_t b = 0; b < used; ++b) {
      lanes.push_back({b * t.stride + first_window * t.sequence, scored});
    }
    return lanes;
  };
  plan.validation = evaluate(parts.train, parts.validation, corpus.split[1], "validation", "Validation");
  plan.test = evaluate(parts.train + parts.validation, parts.test, corpus.split[2], "test", "The test");
  return plan;
}

}  // namespace

StreamPlan plan_streams(const CorpusConfig& corpus, std::int64_t characters, int batch, int sequence,
                        std::int64_t validation_limit) {
  if (batch < 1 || sequence < 1 || validation_limit < 1) {
    throw ShapeError(
        fmt::format("the streams have batch {}, sequence {} and a validation limit of {}, expected at least 1 "
                    "each",
                    batch, sequence, validation_limit));
  }
  if (characters < 2) {
    throw DataError(fmt::format("the text has {}, expected at least 2: there is nothing to predict; give it more text",
                                counted(characters, "character")));
  }
  return corpus.split_by == SplitBy::kTail ? plan_tail(corpus, characters, batch, sequence, validation_limit)
                                           : plan_by_stream(corpus, characters, batch, sequence, validation_limit);
}

}  // namespace charrnn
