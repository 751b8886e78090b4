// A run's folder: config.yaml, metrics.jsonl, samples.txt, checkpoints/step-NNNNNNNN, the links latest and best, a
// lock.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "charrnn/checkpoint.h"

namespace charrnn {

class RunFolder {
 public:
  /// Makes the folder (and its parents) and takes its lock (flock on `lock`, which holds host:pid). The lock goes with
  /// the process, however it ends.
  /// @throws ConfigError (exit 2) if another run holds it, naming host and pid; RunError if it cannot be written
  explicit RunFolder(std::filesystem::path root);
  ~RunFolder();
  RunFolder(const RunFolder&) = delete;
  RunFolder& operator=(const RunFolder&) = delete;

  const std::filesystem::path& root() const { return root_; }
  std::filesystem::path config_file() const { return root_ / "config.yaml"; }
  std::filesystem::path metrics_file() const { return root_ / "metrics.jsonl"; }
  std::filesystem::path samples_file() const { return root_ / "samples.txt"; }
  std::filesystem::path checkpoint_folder(std::int64_t step) const;

  /// True if there is anything of an earlier run (a checkpoint or metrics).
  bool holds_run() const;

  /// The newest checkpoint that loads; incomplete or damaged ones are passed over, each with a sentence in `notes`.
  std::optional<std::filesystem::path> newest_good(std::vector<std::string>& notes) const;

  /// Saves to checkpoints/step-N, points `latest` (and `best`) at it, and removes all but the newest `keep` (at least
  /// this one) and the best. Of later steps than N nothing is counted or removed: such are damaged, and are not ours to
  /// throw away. @throws RunError when it cannot be saved; an old one that cannot be removed is no error
  void save(const Checkpoint& checkpoint, bool is_best, int keep);

  /// Writes a checkpoint under a trial name, loads it, removes it. @throws RunError
  void trial_save(const Checkpoint& checkpoint);

  /// Points `latest` at `step`, and `best` at `best_step` where that checkpoint is there: what a kill between a save
  /// and its links left undone.
  void relink(std::int64_t step, std::int64_t best_step);

  /// Removes checkpoints newer than `step` (after --resume of an older one) and `best` if it pointed at one of them;
  /// `latest` then points at the newest that is left. @throws RunError
  void forget_after(std::int64_t step);

  /// Removes temporary files and folders that a killed save left, and puts back a checkpoint that it had put aside.
  void remove_leftovers();

  /// Cuts a log back to `bytes`. True if it was at least that long; a log that is missing has 0. @throws RunError
  static bool cut_log(const std::filesystem::path& file, std::int64_t bytes);

 private:
  std::filesystem::path root_;
  int lock_fd_ = -1;
};

/// Checkpoint folders of a run by step, ascending; one that a killed save had put aside stands in for its step. Says
/// nothing of whether they can be read.
std::vector<std::pair<std::int64_t, std::filesystem::path>> list_checkpoints(const std::filesystem::path& run);

}  // namespace charrnn
