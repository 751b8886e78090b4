// Parts of the library by themselves.
#include <set>

#include "host_cuda/fibre.h"
#include "host_cuda/random.h"
#include "host_cuda/timeline.h"
#include "support/catch.h"

using namespace host_cuda;

TEST_CASE("an order visits each of n things once") {
  for (std::uint64_t n = 1; n < 100; ++n) {
    for (std::uint64_t seed = 0; seed < 5; ++seed) {
      Dice dice(seed);
      const Order order(n, dice);
      std::set<std::uint64_t> seen;
      for (std::uint64_t i = 0; i < n; ++i) seen.insert(order[i]);
      REQUIRE(seen.size() == n);
      REQUIRE(*seen.rbegin() == n - 1);
    }
  }
}

TEST_CASE("a clock that has joined another has seen what either has") {
  Clock a;
  Clock b;
  a.see(1, 10);
  b.see(3, 7);
  b.see(1, 4);
  a.join(b);
  CHECK(a.has_seen(1, 10));
  CHECK(a.has_seen(3, 7));
  CHECK_FALSE(a.has_seen(3, 8));
  CHECK_FALSE(a.has_seen(2, 1));
}

namespace {

Fibre* first = nullptr;
Fibre* main_fibre = nullptr;
int steps = 0;

void count() {
  for (;;) {
    ++steps;
    first->switch_to(*main_fibre);
  }
}

}  // namespace

TEST_CASE("a fibre goes on where it was left, and can begin again") {
  Fibre here;
  Fibre fibre(count);
  first = &fibre;
  main_fibre = &here;
  steps = 0;
  here.switch_to(fibre);
  here.switch_to(fibre);
  CHECK(steps == 2);
  fibre.restart();
  here.switch_to(fibre);
  CHECK(steps == 3);
}
