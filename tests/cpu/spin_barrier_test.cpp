// Threads that meet at a barrier, more of them than cores too.
#include "cpu/spin_barrier.h"

#include <atomic>
#include <thread>
#include <vector>

#include "cpu/thread_pool.h"
#include "support/catch.h"

using namespace charrnn::cpu;

TEST_CASE("what every party wrote before a meeting all see after it", "[lane][threads]") {
  for (const int parties : {1, 2, 3, 7}) {
    constexpr int kRounds = 500;
    ThreadPool pool(parties);
    SpinBarrier barrier(parties);
    std::vector<int> written(static_cast<std::size_t>(parties));  // not atomic: the barrier alone orders them
    std::vector<int> wrong(static_cast<std::size_t>(parties));
    pool.run(parties, [&](int worker) {
      const auto mine = static_cast<std::size_t>(worker);
      for (int round = 1; round <= kRounds; ++round) {
        written[mine] = round;
        const std::uint64_t ticket = barrier.arrive();
        if (written[mine] != round) ++wrong[mine];  // between the halves a party's own work goes on
        barrier.wait(ticket);
        for (const int other : written) wrong[mine] += other == round ? 0 : 1;
        barrier.meet();  // nobody writes the next round before all have read this one
      }
    });
    for (const int count : wrong) CHECK(count == 0);
  }
}

TEST_CASE("nobody passes a meeting before the last has come", "[lane][threads]") {
  ThreadPool pool(3);
  SpinBarrier barrier(3);
  std::atomic<int> came = 0;
  std::atomic<bool> early = false;
  pool.run(3, [&](int worker) {
    for (int round = 1; round <= 20; ++round) {
      while (came < 3 * (round - 1) + worker) std::this_thread::yield();  // they come one after the other
      ++came;
      const std::uint64_t ticket = barrier.arrive();
      barrier.wait(ticket);
      if (came < 3 * round) early = true;
    }
  });
  CHECK_FALSE(early);
  CHECK(came == 60);
}
