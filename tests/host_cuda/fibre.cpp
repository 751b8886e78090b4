#include "host_cuda/fibre.h"

#include <sys/mman.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>

#if defined(__x86_64__)
// void host_cuda_switch(void** left, void* entered): saves what the calling convention says a call keeps, and the
// stack; takes both from where `entered` was left. 14 instructions; ucontext needs two system calls for the same.
asm(R"(
.text
.p2align 4
.globl host_cuda_switch
.hidden host_cuda_switch
.type host_cuda_switch, @function
host_cuda_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size host_cuda_switch, .-host_cuda_switch
)");
extern "C" void host_cuda_switch(void** left, void* entered);
#endif

namespace host_cuda {

Fibre::Fibre(void (*entry)()) : entry_(entry) {
  void* memory = mmap(nullptr, kStackBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) {
    std::perror("host_cuda: no memory for a fibre");
    std::abort();
  }
  stack_ = static_cast<char*>(memory);
  mprotect(stack_, 4096, PROT_NONE);
  // The tops of a thousand stacks that lie alike would all want the same few lines of the cache.
  static std::size_t made = 0;
  shift_ = made++ % 61 * 64;
  restart();
}

Fibre::~Fibre() {
  if (stack_ != nullptr) munmap(stack_, kStackBytes);
}

#if defined(__x86_64__)

void Fibre::switch_to(Fibre& to) { host_cuda_switch(&top_, to.top_); }

void Fibre::restart() {
  // As host_cuda_switch left it: six registers, then the address to return to. A function expects its stack 8 short of
  // a multiple of 16, as after a call.
  auto* top = reinterpret_cast<std::uintptr_t*>(stack_ + kStackBytes - shift_);
  *--top = 0;
  *--top = reinterpret_cast<std::uintptr_t>(entry_);
  for (int i = 0; i < 6; ++i) *--top = 0;
  top_ = top;
}

#else

void Fibre::switch_to(Fibre& to) { swapcontext(&context_, &to.context_); }

void Fibre::restart() {
  getcontext(&context_);
  context_.uc_stack.ss_sp = stack_;
  context_.uc_stack.ss_size = kStackBytes - shift_;
  context_.uc_link = nullptr;
  makecontext(&context_, entry_, 0);
}

#endif

}  // namespace host_cuda
