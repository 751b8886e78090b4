// What a kernel calls: positions, barriers, warp operations, atomics, and NVIDIA's names for arithmetic. Templates here
// are compiled with the kernels, so that their loads and stores are checked; the rest is in grid.cpp.
#pragma once

#include <cuda_runtime_api.h>

#include <cmath>
#include <cstdint>
#include <type_traits>

namespace host_cuda {

// Constant for a thread: the compiler may keep the answers, and no load is seen by the checker.
__attribute__((const)) uint3 thread_index();
__attribute__((const)) uint3 block_index();
__attribute__((const)) dim3 block_size();
__attribute__((const)) dim3 grid_size();
__attribute__((const)) void* dynamic_shared();

enum class BarrierVote { kNone, kCount, kAnd, kOr };
/// All threads of the block; memory is ordered. The place is for reports, and two places are a divergent barrier.
int barrier(BarrierVote vote, int predicate, const char* file, int line);

enum class WarpOperation { kSync, kShuffle, kVote, kMatch, kExchange };
/// What the lanes of a warp brought to a common operation. The values hold until this lane's next one.
struct WarpValues {
  unsigned lanes;  // that took part
  const std::uint64_t* value;
};
/// Waits for the lanes of `mask`. Orders memory for kSync alone.
WarpValues warp_meet(unsigned mask, WarpOperation operation, std::uint64_t value, const char* file, int line);
/// The lane that a shuffle reads, reported if it took no part.
std::uint64_t warp_value(const WarpValues& values, unsigned lane);
unsigned lane();
void threadfence();

/// Checks an atomic access to device or shared memory; the access itself is then made by the library.
enum class Atomic { kAdd, kMax, kMin, kExchange, kAnd, kOr };
int atomic(Atomic what, int* at, int value);
unsigned atomic(Atomic what, unsigned* at, unsigned value);
unsigned long long atomic(Atomic what, unsigned long long* at, unsigned long long value);
float atomic(Atomic what, float* at, float value);
double atomic(Atomic what, double* at, double value);
int atomic_compare(int* at, int expected, int value);
unsigned atomic_compare(unsigned* at, unsigned expected, unsigned value);
unsigned long long atomic_compare(unsigned long long* at, unsigned long long expected, unsigned long long value);

template <class To, class From>
inline To bits_as(From from) {
  static_assert(sizeof(To) == sizeof(From));
  return __builtin_bit_cast(To, from);
}

template <class T>
inline std::uint64_t to_word(T value) {
  static_assert(sizeof(T) == 2 || sizeof(T) == 4 || sizeof(T) == 8);
  if constexpr (sizeof(T) == 8) {
    return bits_as<std::uint64_t>(value);
  } else if constexpr (sizeof(T) == 4) {
    return bits_as<std::uint32_t>(value);
  } else {
    return bits_as<std::uint16_t>(value);
  }
}
template <class T>
inline T from_word(std::uint64_t word) {
  if constexpr (sizeof(T) == 8) {
    return bits_as<T>(word);
  } else if constexpr (sizeof(T) == 4) {
    return bits_as<T>(static_cast<std::uint32_t>(word));
  } else {
    return bits_as<T>(static_cast<std::uint16_t>(word));
  }
}

// The four shuffles, as the PTX manual defines shfl.sync: segments of `width` lanes; a lane whose source lies outside
// its segment keeps its own value.
enum class Shuffle { kIndex, kUp, kDown, kXor };
template <class T>
inline T shuffle(Shuffle how, unsigned mask, T value, int argument, int width, const char* file, int line) {
  const WarpValues all = warp_meet(mask, WarpOperation::kShuffle, to_word(value), file, line);
  const int self = static_cast<int>(lane());
  const int first = self & ~(width - 1);
  const int last = first + width - 1;
  int source = self;
  switch (how) {
    case Shuffle::kIndex: source = first + (argument & (width - 1)); break;
    case Shuffle::kUp: source = self - argument < first ? self : self - argument; break;
    case Shuffle::kDown: source = self + argument > last ? self : self + argument; break;
    case Shuffle::kXor: source = (self ^ argument) > last ? self : self ^ argument; break;
  }
  return from_word<T>(warp_value(all, static_cast<unsigned>(source)));
}

unsigned ballot(unsigned mask, bool predicate, const char* file, int line);

}  // namespace host_cuda

#define __syncthreads() host_cuda::barrier(host_cuda::BarrierVote::kNone, 0, __FILE__, __LINE__)
#define __syncthreads_count(p) host_cuda::barrier(host_cuda::BarrierVote::kCount, (p), __FILE__, __LINE__)
#define __syncthreads_and(p) host_cuda::barrier(host_cuda::BarrierVote::kAnd, (p), __FILE__, __LINE__)
#define __syncthreads_or(p) host_cuda::barrier(host_cuda::BarrierVote::kOr, (p), __FILE__, __LINE__)
#define __syncwarp(...)                                                                                           \
  static_cast<void>(host_cuda::warp_meet(host_cuda::mask_or_all(__VA_ARGS__), host_cuda::WarpOperation::kSync, 0, \
                                         __FILE__, __LINE__))

namespace host_cuda {
inline unsigned mask_or_all(unsigned mask = 0xffffffffU) { return mask; }
inline int width_or_all(int width = 32) { return width; }
}  // namespace host_cuda

// The last argument of a shuffle, its width, may be left out.
#define __shfl_sync(mask, value, source, ...)                                                                         \
  host_cuda::shuffle(host_cuda::Shuffle::kIndex, mask, value, source, host_cuda::width_or_all(__VA_ARGS__), __FILE__, \
                     __LINE__)
#define __shfl_up_sync(mask, value, delta, ...)                                     \
  host_cuda::shuffle(host_cuda::Shuffle::kUp, mask, value, static_cast<int>(delta), \
                     host_cuda::width_or_all(__VA_ARGS__), __FILE__, __LINE__)
#define __shfl_down_sync(mask, value, delta, ...)                                     \
  host_cuda::shuffle(host_cuda::Shuffle::kDown, mask, value, static_cast<int>(delta), \
                     host_cuda::width_or_all(__VA_ARGS__), __FILE__, __LINE__)
#define __shfl_xor_sync(mask, value, lanes, ...)                                     \
  host_cuda::shuffle(host_cuda::Shuffle::kXor, mask, value, static_cast<int>(lanes), \
                     host_cuda::width_or_all(__VA_ARGS__), __FILE__, __LINE__)
#define __ballot_sync(mask, predicate) host_cuda::ballot(mask, (predicate) != 0, __FILE__, __LINE__)
#define __any_sync(mask, predicate) static_cast<int>(host_cuda::ballot(mask, (predicate) != 0, __FILE__, __LINE__) != 0)
#define __all_sync(mask, predicate) static_cast<int>(host_cuda::ballot(mask, (predicate) == 0, __FILE__, __LINE__) == 0)
#define __activemask() host_cuda::active_mask()

namespace host_cuda {
unsigned active_mask();
}

#define __threadfence() host_cuda::threadfence()
#define __threadfence_block() host_cuda::threadfence()
#define __threadfence_system() host_cuda::threadfence()

template <class T>
inline T atomicAdd(T* at, std::type_identity_t<T> value) {
  return host_cuda::atomic(host_cuda::Atomic::kAdd, at, value);
}
template <class T>
inline T atomicMax(T* at, std::type_identity_t<T> value) {
  return host_cuda::atomic(host_cuda::Atomic::kMax, at, value);
}
template <class T>
inline T atomicMin(T* at, std::type_identity_t<T> value) {
  return host_cuda::atomic(host_cuda::Atomic::kMin, at, value);
}
template <class T>
inline T atomicExch(T* at, std::type_identity_t<T> value) {
  return host_cuda::atomic(host_cuda::Atomic::kExchange, at, value);
}
template <class T>
inline T atomicAnd(T* at, std::type_identity_t<T> value) {
  return host_cuda::atomic(host_cuda::Atomic::kAnd, at, value);
}
template <class T>
inline T atomicOr(T* at, std::type_identity_t<T> value) {
  return host_cuda::atomic(host_cuda::Atomic::kOr, at, value);
}
template <class T>
inline T atomicCAS(T* at, std::type_identity_t<T> expected, std::type_identity_t<T> value) {
  return host_cuda::atomic_compare(at, expected, value);
}

// Loads and stores with a hint about the caches: here the access alone.
template <class T>
inline T __ldg(const T* at) {
  return *at;
}
template <class T>
inline T __ldcs(const T* at) {
  return *at;
}
template <class T>
inline T __ldcg(const T* at) {
  return *at;
}
template <class T>
inline T __ldca(const T* at) {
  return *at;
}
template <class T>
inline void __stcs(T* at, std::type_identity_t<T> value) {
  *at = value;
}
template <class T>
inline void __stcg(T* at, std::type_identity_t<T> value) {
  *at = value;
}
template <class T>
inline void __stwt(T* at, std::type_identity_t<T> value) {
  *at = value;
}

inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __clz(int x) { return x == 0 ? 32 : __builtin_clz(static_cast<unsigned>(x)); }
inline int __clzll(long long x) { return x == 0 ? 64 : __builtin_clzll(static_cast<unsigned long long>(x)); }
inline unsigned __brev(unsigned x) {
  unsigned r = 0;
  for (int i = 0; i < 32; ++i) r |= (x >> i & 1U) << (31 - i);
  return r;
}
inline unsigned __umulhi(unsigned a, unsigned b) {
  return static_cast<unsigned>(static_cast<std::uint64_t>(a) * b >> 32U);
}
inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
  __extension__ using Wide = unsigned __int128;
  return static_cast<unsigned long long>(static_cast<Wide>(a) * b >> 64U);
}

inline unsigned __float_as_uint(float x) { return host_cuda::bits_as<unsigned>(x); }
inline int __float_as_int(float x) { return host_cuda::bits_as<int>(x); }
inline float __uint_as_float(unsigned x) { return host_cuda::bits_as<float>(x); }
inline float __int_as_float(int x) { return host_cuda::bits_as<float>(x); }
inline long long __double_as_longlong(double x) { return host_cuda::bits_as<long long>(x); }
inline double __longlong_as_double(long long x) { return host_cuda::bits_as<double>(x); }

inline float __fmaf_rn(float a, float b, float c) { return std::fma(a, b, c); }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __fsqrt_rn(float a) { return std::sqrt(a); }
inline float __frcp_rn(float a) { return 1.0F / a; }
inline float __fdividef(float a, float b) { return a / b; }
inline float __saturatef(float a) { return std::fmin(std::fmax(a, 0.0F), 1.0F); }
inline int __float2int_rn(float x) { return static_cast<int>(std::nearbyint(x)); }
inline int __float2int_rz(float x) { return static_cast<int>(x); }
inline float rsqrtf(float x) { return 1.0F / std::sqrt(x); }
inline double rsqrt(double x) { return 1.0 / std::sqrt(x); }
// The C library has functions of these names: so macros.
#define __expf(x) std::exp(static_cast<float>(x))
#define __exp10f(x) std::pow(10.0F, static_cast<float>(x))
#define __logf(x) std::log(static_cast<float>(x))
#define __log2f(x) std::log2(static_cast<float>(x))
#define __powf(x, y) std::pow(static_cast<float>(x), static_cast<float>(y))
#define __sinf(x) std::sin(static_cast<float>(x))
#define __cosf(x) std::cos(static_cast<float>(x))
#define __tanhf(x) std::tanh(static_cast<float>(x))

// CUDA declares min and max for each arithmetic type, in the global namespace.
#define CHARRNN_MIN_MAX(type)                               \
  inline type min(type a, type b) { return b < a ? b : a; } \
  inline type max(type a, type b) { return a < b ? b : a; }
CHARRNN_MIN_MAX(int)
CHARRNN_MIN_MAX(unsigned)
CHARRNN_MIN_MAX(long)
CHARRNN_MIN_MAX(unsigned long)
CHARRNN_MIN_MAX(long long)
CHARRNN_MIN_MAX(unsigned long long)
#undef CHARRNN_MIN_MAX
inline float min(float a, float b) { return std::fmin(a, b); }
inline float max(float a, float b) { return std::fmax(a, b); }
inline double min(double a, double b) { return std::fmin(a, b); }
inline double max(double a, double b) { return std::fmax(a, b); }
