// Element math of the optimizers, as PyTorch defines them: p is the parameter, g its clipped gradient.
#ifndef CHARRNN_KERNELS_OPTIMIZER_H  // math.h says why
#define CHARRNN_KERNELS_OPTIMIZER_H

#include "charrnn/config.h"
#include "kernels/math.h"

namespace CHARRNN_MATH_NAMESPACE {

/// The optimizer's settings as numbers.
struct OptimizerRule {
  OptimizerKind optimizer = OptimizerKind::kRmsprop;
  double learning_rate = 0, epsilon = 0;
  double decay = 0;  // rmsprop: decay_rate; adam: beta2; sgd: momentum
  double beta1 = 0;  // adam

  bool operator==(const OptimizerRule&) const = default;
};

inline OptimizerRule rule_of(const OptimizerConfig& o) {
  const double decay = o.name == OptimizerKind::kSgd    ? o.momentum
                       : o.name == OptimizerKind::kAdam ? o.beta2
                                                        : o.decay_rate;
  return {o.name, o.learning_rate, o.epsilon, decay, o.beta1};
}

template <class Real>
struct OptimizerFactors {
  Real rate;            // learning rate; for adam already divided by 1 - beta1^step
  Real decay;           // rmsprop: decay_rate; adam: beta2; sgd: momentum
  Real fresh;           // 1 - decay, formed in double: in float 1 - 0.999 keeps four digits
  Real decay1, fresh1;  // adam: beta1 and 1 - beta1
  Real epsilon;
  Real second_correction;  // adam: 1 / sqrt(1 - beta2^step)
};

/// What stays the same over the parameters of one update, formed in double. @param update  counted from 1
CHARRNN_HD OptimizerFactors<float> factors_of(const OptimizerRule& rule, std::int64_t update) {
  OptimizerFactors<float> f{};
  f.rate = static_cast<float>(rule.learning_rate);
  f.epsilon = static_cast<float>(rule.epsilon);
  f.decay = static_cast<float>(rule.decay);
  f.fresh = static_cast<float>(1 - rule.decay);
  if (rule.optimizer == OptimizerKind::kAdam) {
    const auto t = static_cast<double>(update);
    f.rate = static_cast<float>(rule.learning_rate / (1 - std::pow(rule.beta1, t)));
    f.second_correction = static_cast<float>(1 / std::sqrt(1 - std::pow(rule.decay, t)));
    f.decay1 = static_cast<float>(rule.beta1);
    f.fresh1 = static_cast<float>(1 - rule.beta1);
  }
  return f;
}

/// v = decay v + (1 - decay) g^2; p -= rate g / (sqrt(v) + eps). Source: Tieleman & Hinton 2012.
template <class Real>
CHARRNN_HD void rmsprop(Real& p, Real g, Real& v, const OptimizerFactors<Real>& f) {
  v = f.decay * v + f.fresh * g * g;
  p -= f.rate * g / (sqrt_of(v) + f.epsilon);
}

/// Source: Kingma & Ba 2015.
template <class Real>
CHARRNN_HD void adam(Real& p, Real g, Real& m, Real& v, const OptimizerFactors<Real>& f) {
  m = f.decay1 * m + f.fresh1 * g;
  v = f.decay * v + f.fresh * g * g;
  p -= f.rate * m / (sqrt_of(v) * f.second_correction + f.epsilon);
}

/// Source: Duchi et al. 2011.
template <class Real>
CHARRNN_HD void adagrad(Real& p, Real g, Real& sum, const OptimizerFactors<Real>& f) {
  sum += g * g;
  p -= f.rate * g / (sqrt_of(sum) + f.epsilon);
}

template <class Real>
CHARRNN_HD void sgd(Real& p, Real g, Real& velocity, const OptimizerFactors<Real>& f) {
  velocity = f.decay * velocity + g;
  p -= f.rate * velocity;
}

}  // namespace CHARRNN_MATH_NAMESPACE

#endif
