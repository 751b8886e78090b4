// Where each lane of the batch reads: pure arithmetic on 64-bit text offsets, no text. A window of T steps reads T
// characters and predicts the T that follow each of them.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "charrnn/config.h"

namespace charrnn {

/// Training: lane b reads window i of an epoch at text offset b * stride + i * sequence.
struct TrainingStreams {
  int batch = 0;                       // effective: tiny texts get fewer lanes than asked for ...
  int sequence = 0;                    // ... and at the very least shorter windows
  std::int64_t stride = 0;             // characters from one lane's start to the next's
  std::int64_t windows_per_epoch = 0;  // at least 1

  /// The window (of its epoch, from 0) of step `step`, counted from 1.
  std::int64_t window_of(std::int64_t step) const { return (step - 1) % windows_per_epoch; }
  std::int64_t offset(int lane, std::int64_t window) const { return lane * stride + window * sequence; }
};

/// Evaluation: each lane predicts the `count` characters that follow `start`, from zero state.
struct LaneRange {
  std::int64_t start = 0;
  std::int64_t count = 0;
};

struct StreamPlan {
  TrainingStreams training;
  std::vector<LaneRange> validation;  // empty: no validation split, or one too short to predict anything
  std::vector<LaneRange> test;
  // The text as split, in characters, for messages; with split_by stream the sums over all lanes.
  std::int64_t train_characters = 0, validation_characters = 0, test_characters = 0;
  // The contiguous regions behind `eval --split`: [begin, end). With split_by stream: begin == end, use the lanes.
  std::int64_t validation_begin = 0, validation_end = 0, test_begin = 0, test_end = 0;
  std::int64_t left_out = 0;       // characters that no training window predicts, per epoch
  std::vector<std::string> notes;  // sentences for the log: what was left out, a smaller batch, a missing split
};

/// @param characters  N, the length of the text, at least 2
/// @param batch,sequence  as configured
/// @param validation_limit  at most so many characters are predicted in validation and in test (validate.characters)
///
/// tail: train = floor(split[0] * N) characters from the start, test = floor(split[2] * N) at the end, the rest between
///   them is validation's. Lanes divide the train part evenly: stride = floor((train - 1) / B), windows per epoch =
///   floor(stride / T). Evaluation lanes divide a region so that each character but its first is predicted exactly
///   once; their lengths differ by at most one. There are B of them, or fewer, so that each has at least T characters:
///   a lane's first characters are predicted from zero state, badly, and short lanes would report a loss that is too
///   high.
/// stream (char-rnn's way): the text is cut to B lanes of n windows, n = floor((N - 1) / (B * T)), stride = n * T; the
///   first floor(split[0] * n) windows of each lane (at least one) are train's, the last floor(split[2] * n) test's,
///   the rest validation's. What is behind the last lane is neither trained on nor scored. The limit shortens all lanes
///   alike.
/// A share of exactly 0 is none at all: the rest is then the other one's.
/// Fewer than B lanes of T: B shrinks to floor(chars / T), at least 1; with one lane T shrinks to what is there. Noted.
/// @throws DataError when not even one character can be predicted; ShapeError for sizes below 1
StreamPlan plan_streams(const CorpusConfig& corpus, std::int64_t characters, int batch, int sequence,
                        std::int64_t validation_limit);

}  // namespace charrnn
