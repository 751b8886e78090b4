// The learning rate of a step: a function of the step and of what validations have said so far.
#pragma once

#include <cstdint>

#include "charrnn/config.h"

namespace charrnn {

struct ScheduleClock {
  std::int64_t step = 1;  // counted from 1
  std::int64_t steps_per_epoch = 1;
  std::int64_t total_steps = 1;  // for cosine
  double plateau_scale = 1.0;    // product of the factors that plateaus have brought
};

/// decay: from the end of epoch `after_epoch` on, `decay` once more at each epoch's end (char-rnn's).
/// cosine: linear from 0 over warmup_steps, then half a cosine down to `final` of the rate at total_steps.
double learning_rate(double base, const ScheduleConfig& schedule, const ScheduleClock& clock);

}  // namespace charrnn
