// A fibre: a stack of its own that runs until it hands over to another one. CUDA threads are fibres here, because a
// barrier must let each of a block's threads go on from the middle of a kernel.
#pragma once

#include <cstddef>

#if !defined(__x86_64__)
#include <ucontext.h>
#endif

namespace host_cuda {

class Fibre {
 public:
  static constexpr std::size_t kStackBytes = 256U << 10U;  // touched only as far as a kernel uses it

  /// A fibre with a stack that calls entry(), which never returns. The lowest page of the stack is a trap.
  explicit Fibre(void (*entry)());
  /// The fibre that runs already, on the stack of its thread.
  Fibre() = default;
  ~Fibre();
  Fibre(const Fibre&) = delete;
  Fibre& operator=(const Fibre&) = delete;

  /// Leaves this fibre, which runs, for `to`. Returns when something switches back.
  void switch_to(Fibre& to);
  /// Forgets where it was: the next switch to it calls entry() again. Not while it runs.
  void restart();

  const char* stack() const { return stack_; }

 private:
  void (*entry_)() = nullptr;
  char* stack_ = nullptr;
  std::size_t shift_ = 0;  // bytes left free at the top
#if defined(__x86_64__)
  void* top_ = nullptr;  // where the stack stood when it was left
#else
  ucontext_t context_{};
#endif
};

}  // namespace host_cuda
