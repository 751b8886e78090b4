// The float approximations of kernels/math.h against the standard library in double.
#include <cmath>
#include <limits>

#include "kernels/math.h"
#include "support/catch.h"

using namespace charrnn;

namespace {

/// Largest relative error of f over a fine grid of [from, to], in units of float's epsilon.
template <class F, class G>
double worst_error(F f, G exact, double from, double to) {
  double worst = 0;
  constexpr int kPoints = 200000;
  for (int i = 0; i <= kPoints; ++i) {
    const auto x = static_cast<float>(from + (to - from) * i / kPoints);
    const double e = exact(static_cast<double>(x));
    if (e == 0) continue;
    worst = std::max(worst, std::abs(static_cast<double>(f(x)) - e) / std::abs(e));
  }
  return worst / std::numeric_limits<float>::epsilon();
}

}  // namespace

TEST_CASE("exp is within 2 ulp", "[math]") {
  // Rounding of the polynomial's last steps and of the product with 2^k: half an ulp each, and what the reduction
  // leaves.
  CHECK(worst_error([](float x) { return exp_of(x); }, [](double x) { return std::exp(x); }, -86, 87) < 2);
}

TEST_CASE("sigmoid is within 3 ulp", "[math]") {
  CHECK(worst_error([](float x) { return sigmoid(x); }, [](double x) { return 1 / (1 + std::exp(-x)); }, -80, 40) < 3);
}

TEST_CASE("tanh is within 4 ulp, near zero too", "[math]") {
  const auto f = [](float x) { return tanh_of(x); };
  const auto exact = [](double x) { return std::tanh(x); };
  CHECK(worst_error(f, exact, -10, 10) < 4);
  CHECK(worst_error(f, exact, -1e-3, 1e-3) < 4);
  CHECK(worst_error(f, exact, 0.6, 0.65) < 4);  // where the two branches meet
}

TEST_CASE("extremes saturate and NaN stays NaN", "[math]") {
  const float inf = std::numeric_limits<float>::infinity();
  const float nan = std::numeric_limits<float>::quiet_NaN();
  CHECK(sigmoid(inf) == 1.0F);
  CHECK(sigmoid(-inf) < 1e-37F);
  CHECK(tanh_of(inf) == 1.0F);
  CHECK(tanh_of(-inf) == -1.0F);
  CHECK(tanh_of(0.0F) == 0.0F);
  CHECK(std::isnan(exp_of(nan)));
  CHECK(std::isnan(sigmoid(nan)));
  CHECK(std::isnan(tanh_of(nan)));
}
