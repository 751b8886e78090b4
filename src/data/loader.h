// Text -> windows of ids. Stateless arithmetic plus a thread that stays a few windows ahead of the step.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <exception>
#include <mutex>
#include <string_view>
#include <thread>
#include <vector>

#include "backend/backend.h"
#include "charrnn/vocabulary.h"
#include "data/streams.h"

namespace charrnn {

/// A window that owns its arrays.
struct HostWindow {
  int steps = 0, batch = 0;
  std::vector<TokenId> ids, targets;  // [T,B]
  std::vector<float> weights;         // [T,B], or empty: all 1
  std::vector<std::uint8_t> reset;    // [B], or empty: none
  double weight = 0;                  // sum of the weights

  /// loss_scale is 1 / weight.
  Window view() const;
};

/// The training window of step `step` (counted from 1): epochs repeat, each starting from zero state.
/// @throws DataError with the offset of a character that is not in the vocabulary: the text was changed while in use
void fill_training_window(std::string_view text, const Vocabulary& vocabulary, const TrainingStreams& streams,
                          std::int64_t step, HostWindow& window);

/// Window `index` (from 0) of an evaluation over `lanes`; steps beyond a lane's count have weight 0, and the last
/// window is as short as the longest lane's rest. The first resets all lanes.
/// @throws DataError as above
void fill_evaluation_window(std::string_view text, const Vocabulary& vocabulary, const std::vector<LaneRange>& lanes,
                            int steps, std::int64_t index, HostWindow& window);
/// How many such windows there are.
std::int64_t evaluation_windows(const std::vector<LaneRange>& lanes, int steps);

/// Prepares training windows on a thread of its own, in step order from `first_step`, at most `ahead` of them in
/// advance.
class Loader {
 public:
  Loader(std::string_view text, const Vocabulary& vocabulary, const TrainingStreams& streams, std::int64_t first_step,
         int ahead = 4);
  ~Loader();
  Loader(const Loader&) = delete;
  Loader& operator=(const Loader&) = delete;

  /// The next window. Waits for it. Rethrows what the thread threw.
  HostWindow next();

 private:
  void produce(std::int64_t first_step);

  std::string_view text_;
  const Vocabulary& vocabulary_;
  TrainingStreams streams_;
  std::size_t ahead_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<HostWindow> ready_;
  std::exception_ptr failure_;
  bool stop_ = false;
  std::thread thread_;
};

}  // namespace charrnn
