// What is known of each byte of checked memory: who wrote it last and who has read it since (the shadow).
#pragma once

#include <cstdint>

#include "host_cuda/timeline.h"

namespace host_cuda {

/// How many threads of an operation a mark stands for, when they were not ordered among themselves.
enum class Reach : unsigned { kThread, kWarp, kBlock, kGrid };

/// An access: when, and by which thread at which time of its phase (Position).
struct Mark {
  Moment moment = 0;  // 0: none
  unsigned thread : 10 = 0;
  unsigned time : 19 = 0;
  unsigned reach : 2 = 0;
  unsigned atomic : 1 = 0;
};
static_assert(sizeof(Mark) == 8);

/// Two readers are kept: more that are not ordered among themselves, on three streams, are rare, and another seed makes
/// other two of them stay.
struct Cell {
  Mark writer;  // none: not initialised
  Mark readers[2];

  bool operator==(const Cell& o) const { return __builtin_memcmp(this, &o, sizeof o) == 0; }
};
static_assert(sizeof(Cell) == 24);

}  // namespace host_cuda
