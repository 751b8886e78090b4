#include "train/schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace charrnn {

double learning_rate(double base, const ScheduleConfig& s, const ScheduleClock& clock) {
  switch (s.kind) {
    case ScheduleConfig::Kind::kConstant: return base;
    case ScheduleConfig::Kind::kDecay: {
      const std::int64_t epochs_done = (clock.step - 1) / clock.steps_per_epoch;
      const std::int64_t times = std::max<std::int64_t>(0, epochs_done - s.after_epoch + 1);
      return base * std::pow(s.decay, static_cast<double>(times));
    }
    case ScheduleConfig::Kind::kCosine: {
      if (clock.step <= s.warmup_steps) {
        return base * static_cast<double>(clock.step) / static_cast<double>(s.warmup_steps);
      }
      const auto length = static_cast<double>(std::max<std::int64_t>(1, clock.total_steps - s.warmup_steps));
      const double done = std::min(1.0, static_cast<double>(clock.step - s.warmup_steps) / length);
      const double cosine = 0.5 * (1 + std::cos(std::numbers::pi * done));
      return base * (s.final_fraction + (1 - s.final_fraction) * cosine);
    }
    case ScheduleConfig::Kind::kPlateau: break;
  }
  return base * clock.plateau_scale;
}

}  // namespace charrnn
