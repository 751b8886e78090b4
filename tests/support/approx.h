// !! NOTE TO THE AUTHOR of backend_test.cpp (do not commit this note): your approx.h, then uncommitted, was overwritten by
// !! mistake at 10:51:37 by the helper that writes src/reference. This is a stand-in rebuilt from how backend_test.cpp
// !! uses it; the bounds of fp32() and network() are mine, not yours. Please put your own text back over this file;
// !! reference_test.cpp does not include it.
//
// Comparing arrays. A tolerance is absolute + relative * |expected|, each derived where it is used (docs/testing.md).
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <sstream>
#include <string>

#include "charrnn/network_shape.h"
#include "support/catch.h"

namespace charrnn::tests {

struct Tolerance {
  double relative = 0;
  double absolute = 0;

  /// 4 ceil(log2(K T)) eps of float: K the longest sum of products, T the steps that feed each other.
  static Tolerance fp32(double longest_sum, double steps) {
    const double unit = 4 * std::max(1.0, std::ceil(std::log2(longest_sum * steps))) *
                        static_cast<double>(std::numeric_limits<float>::epsilon());
    return {unit, unit};
  }

  /// K is the longest of V + H or 2H in a gate, H in the head and T * B in a weight's gradient; T steps, L layers deep.
  static Tolerance network(const NetworkShape& shape, int steps, int batch) {
    const int longest = std::max({shape.vocabulary + shape.hidden, 2 * shape.hidden, steps * batch});
    return fp32(longest, static_cast<double>(steps) * shape.layers);
  }
};

/// Empty if all elements are close; otherwise says where they differ most.
template <class Actual, class Expected>
std::string difference(const Actual& actual, const Expected& expected, Tolerance tolerance) {
  std::ostringstream message;
  message.precision(17);
  if (std::size(actual) != std::size(expected)) {
    message << std::size(actual) << " elements, expected " << std::size(expected);
    return message.str();
  }
  double worst = 1;
  for (std::size_t k = 0; k < std::size(actual); ++k) {
    const double a = static_cast<double>(actual[k]), e = static_cast<double>(expected[k]);
    if (a == e) continue;
    const double excess = std::abs(a - e) / (tolerance.absolute + tolerance.relative * std::abs(e));
    if (excess <= worst) continue;   // false for a NaN, which is reported
    message.str("");
    message << "element " << k << " is " << a << ", expected " << e << ": " << excess << " times the tolerance";
    worst = std::isnan(excess) ? std::numeric_limits<double>::infinity() : excess;
  }
  return message.str();
}

}  // namespace charrnn::tests

#define CHECK_ALL_CLOSE(actual, expected, tolerance) \
  CHECK(::charrnn::tests::difference((actual), (expected), (tolerance)) == std::string())
