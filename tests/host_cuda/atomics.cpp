// Atomic functions of kernels. A thread runs until it waits, so the access itself needs no care; it is checked as one
// that other atomic accesses may meet.
#include <algorithm>

#include "host_cuda/checker.h"
#include "host_cuda/device_functions.h"

namespace host_cuda {

namespace {

template <class T, class Change>
T change(T* at, const void* instruction, Change to) {
  on_access(at, sizeof(T), Touch::kAtomic, instruction);
  const T before = *at;
  *at = to(before);
  return before;
}

template <class T>
T changed(Atomic what, T before, T value) {
  switch (what) {
    case Atomic::kAdd: return static_cast<T>(before + value);
    case Atomic::kMax: return std::max(before, value);
    case Atomic::kMin: return std::min(before, value);
    case Atomic::kExchange: return value;
    case Atomic::kAnd:
    case Atomic::kOr: break;
  }
  if constexpr (std::is_integral_v<T>) {
    return what == Atomic::kAnd ? before & value : before | value;
  } else {
    return before;
  }
}

}  // namespace

#define CHARRNN_ATOMIC(type)                                                                                         \
  type atomic(Atomic what, type* at, type value) {                                                                   \
    return change(at, __builtin_return_address(0), [&](type before) { return changed<type>(what, before, value); }); \
  }
CHARRNN_ATOMIC(unsigned)
CHARRNN_ATOMIC(unsigned long long)
CHARRNN_ATOMIC(float)
CHARRNN_ATOMIC(double)
#undef CHARRNN_ATOMIC

int atomic(Atomic what, int* at, int value) {
  return change(at, __builtin_return_address(0), [&](int before) {
    if (what != Atomic::kAdd) return changed<int>(what, before, value);
    return static_cast<int>(static_cast<unsigned>(before) + static_cast<unsigned>(value));  // wraps, as on a device
  });
}

#define CHARRNN_ATOMIC(type)                                                                                          \
  type atomic_compare(type* at, type expected, type value) {                                                          \
    return change(at, __builtin_return_address(0), [&](type before) { return before == expected ? value : before; }); \
  }
CHARRNN_ATOMIC(int)
CHARRNN_ATOMIC(unsigned)
CHARRNN_ATOMIC(unsigned long long)
#undef CHARRNN_ATOMIC

}  // namespace host_cuda
