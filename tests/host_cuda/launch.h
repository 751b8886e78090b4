// Launching a kernel: packs the call with its arguments by value and queues it. Part of the code under test (it is
// instantiated there), so it stays small.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <memory>
#include <tuple>

namespace host_cuda {

/// A launch as the library sees it. `call(arguments)` is the kernel's body for one thread.
struct Launch {
  const char* name = nullptr;
  const void* kernel = nullptr;
  dim3 grid, block;
  std::size_t shared_bytes = 0;
  void (*call)(const void* arguments) = nullptr;
  std::shared_ptr<const void> arguments;
  std::size_t argument_bytes = 0;  // a kernel may read its parameters: they are memory of the host here
};

cudaError_t queue(Launch launch, cudaStream_t stream);

template <class... Parameters>
cudaError_t launch(const char* name, void (*kernel)(Parameters...), dim3 grid, dim3 block, std::size_t shared_bytes,
                   cudaStream_t stream, Parameters... arguments) {
  struct Call {
    void (*kernel)(Parameters...);
    std::tuple<Parameters...> arguments;
  };
  Launch launch;
  launch.name = name;
  launch.kernel = reinterpret_cast<const void*>(kernel);
  launch.grid = grid;
  launch.block = block;
  launch.shared_bytes = shared_bytes;
  launch.call = [](const void* packed) {
    const auto* call = static_cast<const Call*>(packed);
    std::apply(call->kernel, call->arguments);
  };
  launch.arguments = std::make_shared<Call>(Call{kernel, std::tuple<Parameters...>(arguments...)});
  launch.argument_bytes = sizeof(Call);
  return queue(std::move(launch), stream);
}

}  // namespace host_cuda
