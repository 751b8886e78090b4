#include "data/loader.h"

#include <algorithm>
#include <string>
#include <utility>

#include "charrnn/error.h"

namespace charrnn {
namespace {

/// Characters were checked against the vocabulary when the text was indexed; a mapped file that is edited in place
/// since then could still bring others, and an id of -1 would make the backend read outside its arrays.
TokenId id_at(std::string_view text, const Vocabulary& vocabulary, std::int64_t offset) {
  const auto byte = static_cast<std::uint8_t>(text[static_cast<std::size_t>(offset)]);
  const TokenId id = vocabulary.find(byte);
  if (id < 0) {
    throw DataError("the text has the character " + printable(byte) + " at offset " + std::to_string(offset) +
                    ", which is not in the vocabulary of " + std::to_string(vocabulary.size()) +
                    " characters: the file was changed while in use; put the text back and start again");
  }
  return id;
}

/// T characters from `offset` and the one that follows each, into column b of [T,B].
void fill_lane(std::string_view text, const Vocabulary& vocabulary, std::int64_t offset, int steps, std::size_t lane,
               HostWindow& window) {
  const auto batch = static_cast<std::size_t>(window.batch);
  TokenId id = id_at(text, vocabulary, offset);
  for (int t = 0; t < steps; ++t) {
    const TokenId next = id_at(text, vocabulary, offset + t + 1);
    const std::size_t at = static_cast<std::size_t>(t) * batch + lane;
    window.ids[at] = id;
    window.targets[at] = next;
    id = next;
  }
}

void size_window(HostWindow& window, int steps, int batch, bool first) {
  const std::size_t count = static_cast<std::size_t>(steps) * static_cast<std::size_t>(batch);
  window.steps = steps;
  window.batch = batch;
  window.ids.assign(count, 0);
  window.targets.assign(count, 0);
  window.weights.clear();
  window.reset.assign(first ? static_cast<std::size_t>(batch) : 0, 1);
  window.weight = static_cast<double>(count);
}

std::int64_t longest(const std::vector<LaneRange>& lanes) {
  std::int64_t count = 0;
  for (const LaneRange& lane : lanes) count = std::max(count, lane.count);
  return count;
}

}  // namespace

Window HostWindow::view() const {
  return {.steps = steps,
          .batch = batch,
          .ids = ids,
          .targets = targets,
          .weights = weights,
          .reset = reset,
          .loss_scale = weight > 0 ? static_cast<float>(1 / weight) : 0.0F};
}

void fill_training_window(std::string_view text, const Vocabulary& vocabulary, const TrainingStreams& streams,
                          std::int64_t step, HostWindow& window) {
  const std::int64_t index = streams.window_of(step);
  size_window(window, streams.sequence, streams.batch, index == 0);
  for (int b = 0; b < streams.batch; ++b) {
    fill_lane(text, vocabulary, streams.offset(b, index), streams.sequence, static_cast<std::size_t>(b), window);
  }
}

void fill_evaluation_window(std::string_view text, const Vocabulary& vocabulary, const std::vector<LaneRange>& lanes,
                            int steps, std::int64_t index, HostWindow& window) {
  const std::int64_t done = index * steps;
  const std::int64_t left = longest(lanes) - done;
  if (index < 0 || steps < 1 || left < 1) {
    throw ShapeError("evaluation window " + std::to_string(index) + " of " + std::to_string(steps) +
                     " steps does not exist: the longest lane has " + std::to_string(longest(lanes)) + " characters");
  }
  size_window(window, static_cast<int>(std::min<std::int64_t>(steps, left)), static_cast<int>(lanes.size()),
              index == 0);
  for (std::size_t b = 0; b < lanes.size(); ++b) {
    const int here = static_cast<int>(std::clamp<std::int64_t>(lanes[b].count - done, 0, window.steps));
    if (here > 0) fill_lane(text, vocabulary, lanes[b].start + done, here, b, window);
    if (here == window.steps) continue;
    if (window.weights.empty()) window.weights.assign(window.ids.size(), 1.0F);
    for (int t = here; t < window.steps; ++t) window.weights[static_cast<std::size_t>(t) * lanes.size() + b] = 0.0F;
    window.weight -= window.steps - here;
  }
}

std::int64_t evaluation_windows(const std::vector<LaneRange>& lanes, int steps) {
  return (longest(lanes) + steps - 1) / steps;
}

Loader::Loader(std::string_view text, const Vocabulary& vocabulary, const TrainingStreams& streams,
               std::int64_t first_step, int ahead)
    : text_(text), vocabulary_(vocabulary), streams_(streams), ahead_(static_cast<std::size_t>(std::max(1, ahead))) {
  if (first_step < 1 || streams.batch < 1 || streams.sequence < 1 || streams.windows_per_epoch < 1) {
    throw ShapeError("the loader starts at step " + std::to_string(first_step) + " with batch " +
                     std::to_string(streams.batch) + ", sequence " + std::to_string(streams.sequence) + " and " +
                     std::to_string(streams.windows_per_epoch) + " windows an epoch, expected at least 1 each");
  }
  thread_ = std::thread([this, first_step] { produce(first_step); });
}

Loader::~Loader() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

HostWindow Loader::next() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return !ready_.empty() || failure_; });
  if (ready_.empty()) std::rethrow_exception(failure_);  // what was prepared before the failure is handed out first
  HostWindow window = std::move(ready_.front());
  ready_.pop_front();
  lock.unlock();
  changed_.notify_all();
  return window;
}

void Loader::produce(std::int64_t first_step) {
  try {
    for (std::int64_t step = first_step;; ++step) {
      HostWindow window;
      fill_training_window(text_, vocabulary_, streams_, step, window);
      std::unique_lock lock(mutex_);
      changed_.wait(lock, [this] { return ready_.size() < ahead_ || stop_; });
      if (stop_) return;
      ready_.push_back(std::move(window));
      lock.unlock();
      changed_.notify_all();
    }
  } catch (...) {
    {
      const std::lock_guard lock(mutex_);
      failure_ = std::current_exception();
    }
    changed_.notify_all();
  }
}

}  // namespace charrnn
