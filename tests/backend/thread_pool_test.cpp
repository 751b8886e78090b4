// The pool: who runs, what is thrown, and how items are dealt.
#include <atomic>
#include <stdexcept>
#include <vector>

#include "cpu/thread_pool.h"
#include "support/catch.h"

using namespace charrnn::cpu;

TEST_CASE("each of the workers asked for runs once, whatever ran before", "[pool][threads]") {
  ThreadPool pool(3);
  for (int round = 0; round < 200; ++round) {
    const int count = round % 4 == 3 ? 0 : 1 + round % 3;
    std::vector<std::atomic<int>> runs(3);
    pool.run(count, [&](int worker) { ++runs[static_cast<std::size_t>(worker)]; });
    for (int worker = 0; worker < 3; ++worker)
      CHECK(runs[static_cast<std::size_t>(worker)] == (worker < count ? 1 : 0));
  }
}

TEST_CASE("what a worker throws reaches the caller, and the pool lives on", "[pool][threads]") {
  ThreadPool pool(3);
  for (int bad = 0; bad < 3; ++bad) {
    std::atomic<int> others = 0;
    const auto task = [&](int worker) {
      if (worker == bad) throw std::runtime_error("worker " + std::to_string(worker));
      ++others;
    };
    CHECK_THROWS_WITH(pool.run(3, task), "worker " + std::to_string(bad));
    CHECK(others == 2);
  }
  std::atomic<int> all = 0;
  pool.run(3, [&](int) { ++all; });
  CHECK(all == 3);
}

TEST_CASE("ranges cover all items once and differ by at most a grain", "[pool]") {
  for (const std::int64_t n : {0, 1, 5, 16, 37, 100}) {
    for (const int parts : {1, 2, 3, 7}) {
      for (const std::int64_t grain : {1, 16}) {
        std::int64_t next = 0;
        for (int part = 0; part < parts; ++part) {
          const Range r = split_range(n, part, parts, grain);
          CHECK(r.begin == next);
          CHECK(r.size() <= ((n + grain - 1) / grain / parts + 1) * grain);
          next = r.end;
        }
        CHECK(next == n);
      }
    }
  }
}
