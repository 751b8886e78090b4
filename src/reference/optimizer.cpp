#include <algorithm>
#include <cmath>

#include "reference/reference.h"

namespace charrnn::reference {

double norm(std::span<const double> gradients) {
  double sum = 0;
  for (const double g : gradients) sum += g * g;
  return std::sqrt(sum);
}

void clip(const ClipConfig& config, std::span<double> gradients) {
  switch (config.kind) {
    case ClipConfig::Kind::kNone: return;
    case ClipConfig::Kind::kValue:
      for (double& g : gradients) g = std::clamp(g, -config.threshold, config.threshold);
      return;
    case ClipConfig::Kind::kNorm: {
      const double length = norm(gradients);
      if (length <= config.threshold) return;
      for (double& g : gradients) g *= config.threshold / length;
      return;
    }
  }
}

void update(const OptimizerConfig& config, std::int64_t step, std::span<const double> gradients,
            std::span<double> parameters, OptimizerState& state) {
  const double rate = config.learning_rate;
  for (std::size_t k = 0; k < parameters.size(); ++k) {
    const double g = gradients[k];
    double& p = parameters[k];
    double& m1 = state.moment1[k];
    double& m2 = state.moment2[k];
    switch (config.name) {
      case OptimizerKind::kRmsprop:
        m1 = config.decay_rate * m1 + (1 - config.decay_rate) * g * g;
        p -= rate * g / (std::sqrt(m1) + config.epsilon);
        break;
      case OptimizerKind::kAdam: {
        m1 = config.beta1 * m1 + (1 - config.beta1) * g;
        m2 = config.beta2 * m2 + (1 - config.beta2) * g * g;
        const double mean = m1 / (1 - std::pow(config.beta1, static_cast<double>(step)));
        const double square = m2 / (1 - std::pow(config.beta2, static_cast<double>(step)));
        p -= rate * mean / (std::sqrt(square) + config.epsilon);
        break;
      }
      case OptimizerKind::kAdagrad:
        m1 += g * g;
        p -= rate * g / (std::sqrt(m1) + config.epsilon);
        break;
      case OptimizerKind::kSgd:
        m1 = config.momentum * m1 + g;
        p -= rate * m1;
        break;
    }
  }
}

}  // namespace charrnn::reference
