// A CUDA device made of the CPU, for tests: what the stand-ins of libraries (cuBLASLt, cuDNN) and the tests themselves
// use. Code under test sees none of this: it includes NVIDIA's own headers and links with our definitions (README.md).
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace host_cuda {

/// What an operation does when its turn comes. Operations are lazy: they run when something forces them (a
/// synchronisation, a blocking copy), in an order that a seeded scheduler picks within what streams and events allow.
using Work = std::function<void()>;

/// Puts work on a stream; on a capturing stream it becomes a node of the graph. `work` owns what it needs by value.
/// @param name  what reports call it: "cublasLtMatmul", "cudnnRNNForward", the kernel's name
cudaError_t enqueue(cudaStream_t stream, const std::string& name, Work work);

enum class Access { kRead, kWrite };

/// Called by an operation's work for the memory that it touches: the same checks as a kernel's loads and stores get
/// (inside an allocation, initialised before it is read, no race with another stream or the host, no pageable memory).
/// `what` names the operand in a report. @returns false, having reported, if the range is not device-accessible memory:
/// the work must then not touch it.
bool touch(const void* memory, std::size_t bytes, Access access, const char* what);

/// A finding that is no memory access: a misuse of an interface, reported like the rest.
void report(const std::string& kind, const std::string& text);

/// Counts a call of a CUDA interface function. @returns true if this is the one that Settings::fail_at chose: the
/// caller then does nothing and returns its interface's error (out of memory, execution failed).
bool call_must_fail(const char* function);

struct Settings {
  std::uint64_t seed = 0;                // of the scheduler
  std::size_t memory_bytes = 1U << 30U;  // of the device
  int devices = 1;
  int compute_major = 9, compute_minor = 0;
  std::int64_t fail_at = 0;  // the N-th call (from 1) of an interface function that can fail, fails; 0: none
  bool check = true;         // loads and stores
  bool sticky = false;  // a kernel's access outside of an allocation breaks the device, as on a GPU: the kernel ends
                        // and every call from then on answers cudaErrorIllegalAddress
};
/// Starts afresh: waits for nothing, forgets reports and memory. Not while work is queued.
/// Defaults come from the environment, so that a whole program can be run: HOST_CUDA_SEED, HOST_CUDA_MEMORY (bytes),
/// HOST_CUDA_DEVICES, HOST_CUDA_COMPUTE ("9.0"), HOST_CUDA_FAIL_AT, HOST_CUDA_CHECK (0|1),
/// HOST_CUDA_STICKY (0|1).
void reset(const Settings& settings);
Settings settings_from_environment();

struct Report {
  std::string kind;  // race | out of bounds | uninitialised | misaligned | host | barrier | stream | capture | misuse
  std::string text;  // kernel, source line where known, address, who else
};
/// What was found since reset(). At the end of a process with findings that nobody read, they are printed to stderr and
/// the process exits with code 86, so that a program under test cannot pass with one.
std::vector<Report> take_reports();

/// Breaks the device from here on: every call answers `error`, until reset().
void break_device(cudaError_t error);

/// While one lives, code of the host may touch device memory as a device would, after the host has waited for whatever
/// wrote it: for Thrust's CPP backend, which runs on the host what CUDA runs on the device.
struct ActsAsDevice {
  ActsAsDevice();
  ~ActsAsDevice();
  ActsAsDevice(const ActsAsDevice&) = delete;
  ActsAsDevice& operator=(const ActsAsDevice&) = delete;
};

/// Counts since reset().
struct Counts {
  std::int64_t launches = 0;  // kernels that ran
  std::int64_t profiler_starts = 0;
  std::int64_t profiler_stops = 0;
};
Counts counts();

/// Calls counted by call_must_fail() since reset(), for tests that fail each of them in turn.
std::int64_t calls();
/// Device and pinned memory, streams, events, graphs and handles that are still there.
std::vector<std::string> leaks();

}  // namespace host_cuda
