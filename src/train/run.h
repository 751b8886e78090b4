// A run from its config to its folder: resume, logs, samples, checkpoints, signals.
#pragma once

#include <cstdint>
#include <string>

#include "charrnn/config.h"
#include "charrnn/error.h"
#include "train/observer.h"

namespace charrnn {

/// Steps from `first` to `last`, both counted from 1; 0: none.
struct StepRange {
  std::int64_t first = 0, last = 0;
};

struct TrainOptions {
  Config config;
  std::string config_name;      // where the config came from, for messages
  int threads = 0;              // 0: all
  double minutes = 0;           // 0: no limit
  std::int64_t steps = 0;       // the run's last step; 0: epochs decide
  StepRange profile;            // what a profiler records
  std::string resume = "auto";  // auto | never | a checkpoint's folder
  bool dry_run = false;
  bool json = false;
};

/// Trains until the epochs, --steps, --minutes, patience or a signal end it.
/// @returns kOk, or kInterrupted / kTerminated after a signal (saved)
/// @throws Error; the last good checkpoint is intact then
ExitCode run_training(const TrainOptions& options, RunObserver& observer);

}  // namespace charrnn
