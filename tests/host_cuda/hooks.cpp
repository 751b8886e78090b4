// What the compiler calls in instrumented code: at each load and store (-fsanitize=thread, whose runtime is not linked)
// and at each misaligned pointer or index out of bounds (-fsanitize=alignment,bounds). And the C library's functions
// that touch memory without being instrumented.
#include <fmt/format.h>

#include <cstring>

#include "host_cuda/checker.h"
#include "host_cuda/grid.h"
#include "host_cuda/report.h"

using host_cuda::current_mode;
using host_cuda::Mode;
using host_cuda::on_access;
using host_cuda::Touch;

extern "C" {

void __tsan_init() {}
void __tsan_func_entry(void* /*caller*/) {}
void __tsan_func_exit() {}

#define CHARRNN_HOOKS(bytes)                                                                                         \
  void __tsan_read##bytes(void* at) { on_access(at, bytes, Touch::kRead, __builtin_return_address(0)); }             \
  void __tsan_write##bytes(void* at) { on_access(at, bytes, Touch::kWrite, __builtin_return_address(0)); }           \
  void __tsan_unaligned_read##bytes(void* at) { on_access(at, bytes, Touch::kRead, __builtin_return_address(0)); }   \
  void __tsan_unaligned_write##bytes(void* at) { on_access(at, bytes, Touch::kWrite, __builtin_return_address(0)); } \
  void __tsan_volatile_read##bytes(void* at) { on_access(at, bytes, Touch::kRead, __builtin_return_address(0)); }    \
  void __tsan_volatile_write##bytes(void* at) { on_access(at, bytes, Touch::kWrite, __builtin_return_address(0)); }
CHARRNN_HOOKS(1)
CHARRNN_HOOKS(2)
CHARRNN_HOOKS(4)
CHARRNN_HOOKS(8)
CHARRNN_HOOKS(16)
#undef CHARRNN_HOOKS

void __tsan_read_range(void* at, std::size_t bytes) { on_access(at, bytes, Touch::kRead, __builtin_return_address(0)); }
void __tsan_write_range(void* at, std::size_t bytes) {
  on_access(at, bytes, Touch::kWrite, __builtin_return_address(0));
}
void __tsan_vptr_update(void** /*at*/, void* /*value*/) {}
void __tsan_vptr_read(void** /*at*/) {}

// std::atomic in instrumented code. The strongest order throughout: the callers' orders are weaker or equal.
#define CHARRNN_ATOMICS(bits, type)                                                                              \
  type __tsan_atomic##bits##_load(const volatile type* at, int) {                                                \
    on_access(const_cast<type*>(at), sizeof(type), Touch::kAtomic, __builtin_return_address(0));                 \
    return __atomic_load_n(at, __ATOMIC_SEQ_CST);                                                                \
  }                                                                                                              \
  void __tsan_atomic##bits##_store(volatile type* at, type value, int) {                                         \
    on_access(const_cast<type*>(at), sizeof(type), Touch::kAtomic, __builtin_return_address(0));                 \
    __atomic_store_n(at, value, __ATOMIC_SEQ_CST);                                                               \
  }                                                                                                              \
  type __tsan_atomic##bits##_exchange(volatile type* at, type value, int) {                                      \
    on_access(const_cast<type*>(at), sizeof(type), Touch::kAtomic, __builtin_return_address(0));                 \
    return __atomic_exchange_n(at, value, __ATOMIC_SEQ_CST);                                                     \
  }                                                                                                              \
  int __tsan_atomic##bits##_compare_exchange_strong(volatile type* at, type* expected, type value, int, int) {   \
    on_access(const_cast<type*>(at), sizeof(type), Touch::kAtomic, __builtin_return_address(0));                 \
    return __atomic_compare_exchange_n(at, expected, value, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST) ? 1 : 0;  \
  }                                                                                                              \
  int __tsan_atomic##bits##_compare_exchange_weak(volatile type* at, type* expected, type value, int a, int b) { \
    return __tsan_atomic##bits##_compare_exchange_strong(at, expected, value, a, b);                             \
  }                                                                                                              \
  type __tsan_atomic##bits##_compare_exchange_val(volatile type* at, type expected, type value, int, int) {      \
    on_access(const_cast<type*>(at), sizeof(type), Touch::kAtomic, __builtin_return_address(0));                 \
    __atomic_compare_exchange_n(at, &expected, value, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);                \
    return expected;                                                                                             \
  }
#define CHARRNN_FETCH(bits, type, what)                                                          \
  type __tsan_atomic##bits##_fetch_##what(volatile type* at, type value, int) {                  \
    on_access(const_cast<type*>(at), sizeof(type), Touch::kAtomic, __builtin_return_address(0)); \
    return __atomic_fetch_##what(at, value, __ATOMIC_SEQ_CST);                                   \
  }
#define CHARRNN_ALL_ATOMICS(bits, type) \
  CHARRNN_ATOMICS(bits, type)           \
  CHARRNN_FETCH(bits, type, add)        \
  CHARRNN_FETCH(bits, type, sub)        \
  CHARRNN_FETCH(bits, type, and)        \
  CHARRNN_FETCH(bits, type, or)         \
  CHARRNN_FETCH(bits, type, xor)        \
  CHARRNN_FETCH(bits, type, nand)
CHARRNN_ALL_ATOMICS(8, unsigned char)
CHARRNN_ALL_ATOMICS(16, unsigned short)
CHARRNN_ALL_ATOMICS(32, unsigned)
CHARRNN_ALL_ATOMICS(64, unsigned long)
#undef CHARRNN_ALL_ATOMICS
#undef CHARRNN_FETCH
#undef CHARRNN_ATOMICS

void __tsan_atomic_thread_fence(int /*order*/) { __atomic_thread_fence(__ATOMIC_SEQ_CST); }
void __tsan_atomic_signal_fence(int /*order*/) {}

// What the compiler says of a place (its layout is that of GCC's libubsan).
struct SourceLocation {
  const char* file;
  std::uint32_t line;
  std::uint32_t column;
};
struct TypeMismatch {
  SourceLocation location;
  const void* type;
  unsigned char log_alignment;
  unsigned char kind;
};
struct OutOfBounds {
  SourceLocation location;
  const void* array;
  const void* index;
};

}  // extern "C"

namespace {

std::string place(const SourceLocation& location) {
  const char* slash = std::strrchr(location.file, '/');
  return fmt::format("{}:{}", slash == nullptr ? location.file : slash + 1, location.line);
}

std::string actor(Mode who) { return who == Mode::kThread ? host_cuda::running.name : "the host"; }

}  // namespace

extern "C" {

void __ubsan_handle_type_mismatch_v1(TypeMismatch* data, void* pointer) {
  const Mode who = current_mode();
  if (who == Mode::kLibrary) return;
  const std::size_t alignment = std::size_t{1} << data->log_alignment;
  if (pointer == nullptr || reinterpret_cast<std::uintptr_t>(pointer) % alignment == 0) return;
  {
    const std::lock_guard held(host_cuda::lock());
    const host_cuda::ModeScope library(Mode::kLibrary);
    host_cuda::report("misaligned", fmt::format("{}: {}: {} is no multiple of {} bytes", place(data->location),
                                                actor(who), pointer, alignment));
  }
  if (who != Mode::kThread) return;
  // The processor would fault at an aligned vector load; so does a GPU.
  if (host_cuda::settings().sticky) host_cuda::break_device(cudaErrorMisalignedAddress);
  host_cuda::abandon_kernel();
}
void __ubsan_handle_type_mismatch_v1_abort(TypeMismatch* data, void* pointer) {
  __ubsan_handle_type_mismatch_v1(data, pointer);
}

void __ubsan_handle_out_of_bounds(OutOfBounds* data, std::uintptr_t index) {
  const Mode who = current_mode();
  if (who == Mode::kLibrary) return;
  const std::lock_guard held(host_cuda::lock());
  const host_cuda::ModeScope library(Mode::kLibrary);
  host_cuda::report("out of bounds", fmt::format("{}: {}: index {} is outside of the array", place(data->location),
                                                 actor(who), static_cast<std::intptr_t>(index)));
}
void __ubsan_handle_out_of_bounds_abort(OutOfBounds* data, std::uintptr_t index) {
  __ubsan_handle_out_of_bounds(data, index);
}

// With -Wl,--wrap these stand before the C library's. The program's calls reach them from instrumented and from other
// code alike.
void* __real_memcpy(void* to, const void* from, std::size_t bytes);
void* __real_memmove(void* to, const void* from, std::size_t bytes);
void* __real_memset(void* to, int value, std::size_t bytes);

void* __wrap_memcpy(void* to, const void* from, std::size_t bytes) {
  if (bytes > 0) {
    on_access(from, bytes, Touch::kRead, __builtin_return_address(0));
    on_access(to, bytes, Touch::kWrite, __builtin_return_address(0));
  }
  return __real_memcpy(to, from, bytes);
}

void* __wrap_memmove(void* to, const void* from, std::size_t bytes) {
  if (bytes > 0) {
    on_access(from, bytes, Touch::kRead, __builtin_return_address(0));
    on_access(to, bytes, Touch::kWrite, __builtin_return_address(0));
  }
  return __real_memmove(to, from, bytes);
}

void* __wrap_memset(void* to, int value, std::size_t bytes) {
  if (bytes > 0) on_access(to, bytes, Touch::kWrite, __builtin_return_address(0));
  return __real_memset(to, value, bytes);
}

}  // extern "C"

namespace host_cuda {
void* real_memcpy(void* to, const void* from, std::size_t bytes) { return __real_memcpy(to, from, bytes); }
void* real_memset(void* to, int value, std::size_t bytes) { return __real_memset(to, value, bytes); }
}  // namespace host_cuda
