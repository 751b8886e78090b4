// Comparisons with a derived tolerance. oneDNN's form: rounding grows with the logarithm of the longest chain of
// additions.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <string>
#include <vector>

#include "charrnn/network_shape.h"

namespace charrnn::tests {

/// |a - b| <= relative * (|b| + largest |b| in the array). The second term is the floor: an element that is small
/// because large terms cancelled carries their rounding.
struct Tolerance {
  double relative = 0;

  /// For fp32 sums of `terms` products, chained over `steps` steps of a recurrence: 4 ceil(log2(terms * steps)) eps.
  static Tolerance fp32(double terms, double steps = 1) {
    constexpr double kEps = std::numeric_limits<float>::epsilon();
    return {4 * std::ceil(std::log2(std::max(2.0, terms * steps))) * kEps};
  }
  /// A whole network over a window: the longest product has max(H, V) terms (T B of them for a weight's gradient), and
  /// the recurrence chains T steps through L layers.
  /// @param epsilon  of the type that activations are stored in. Coarser than fp32, what they are rounded to outweighs
  ///                 the sums, which are fp32 still: each step and layer rounds h, the gates and their gradients by
  ///                 half of epsilon, independently, so that errors grow with the root of their number.
  static Tolerance network(const NetworkShape& n, int steps, int batch, double epsilon = 0) {
    const Tolerance sums =
        fp32(static_cast<double>(std::max(n.hidden, n.vocabulary)) * batch, static_cast<double>(steps) * n.layers);
    constexpr double kRoundings = 3;  // on each way
    return {std::max(sums.relative, epsilon * std::sqrt(kRoundings * 2 * steps * n.layers))};
  }
};

/// Empty if all elements agree; else the first and the worst that do not.
template <class A, class B>
std::string differences(const A& actual, const B& expected, Tolerance tolerance) {
  if (actual.size() != expected.size()) {
    return "sizes differ: " + std::to_string(actual.size()) + ", expected " + std::to_string(expected.size());
  }
  double largest = 0;
  for (const auto& e : expected) largest = std::max(largest, std::abs(static_cast<double>(e)));
  std::string first;
  double worst = 0;
  for (std::size_t i = 0; i < actual.size(); ++i) {
    const double a = static_cast<double>(actual[i]), e = static_cast<double>(expected[i]);
    const double bound = tolerance.relative * (std::abs(e) + largest);
    if (std::abs(a - e) <= bound) continue;  // NaN fails here
    worst = std::max(worst, std::abs(a - e) / bound);
    if (first.empty()) {
      first = "[" + std::to_string(i) + "] is " + std::to_string(a) + ", expected " + std::to_string(e) + " +- " +
              std::to_string(bound);
    }
  }
  return first.empty() ? first : first + "; the worst is " + std::to_string(worst) + " times the tolerance";
}

}  // namespace charrnn::tests

/// Passes if all elements agree within the tolerance; names the first that does not.
#define CHECK_ALL_CLOSE(actual, expected, tolerance) \
  CHECK(charrnn::tests::differences(actual, expected, tolerance) == "")
