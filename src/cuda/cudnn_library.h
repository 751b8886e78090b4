// cuDNN, opened at first use: libcharrnn_cuda.so does not link with it, and works without it.
#pragma once

#include <functional>
#include <string>

#if !defined(CHARRNN_NO_CUDNN)  // defined where the build found no cudnn.h
#include <cudnn.h>

#include <memory>
#include <type_traits>

namespace charrnn::cuda {

// Every function of cuDNN that is called.
#define CHARRNN_CUDNN_FUNCTIONS(X) \
  X(cudnnGetVersion)               \
  X(cudnnGetErrorString)           \
  X(cudnnGetLastErrorString)       \
  X(cudnnCreate)                   \
  X(cudnnDestroy)                  \
  X(cudnnSetStream)                \
  X(cudnnCreateTensorDescriptor)   \
  X(cudnnDestroyTensorDescriptor)  \
  X(cudnnSetTensorNdDescriptor)    \
  X(cudnnGetTensorNdDescriptor)    \
  X(cudnnCreateDropoutDescriptor)  \
  X(cudnnDestroyDropoutDescriptor) \
  X(cudnnSetDropoutDescriptor)     \
  X(cudnnCreateRNNDescriptor)      \
  X(cudnnDestroyRNNDescriptor)     \
  X(cudnnSetRNNDescriptor_v8)      \
  X(cudnnCreateRNNDataDescriptor)  \
  X(cudnnDestroyRNNDataDescriptor) \
  X(cudnnSetRNNDataDescriptor)     \
  X(cudnnGetRNNTempSpaceSizes)     \
  X(cudnnGetRNNWeightSpaceSize)    \
  X(cudnnGetRNNWeightParams)       \
  X(cudnnRNNForward)               \
  X(cudnnRNNBackwardData_v8)       \
  X(cudnnRNNBackwardWeights_v8)

struct CudnnFunctions {
#define CHARRNN_MEMBER(name) decltype(&::name) name = nullptr;  // NOLINT(bugprone-macro-parentheses): it is a name
  CHARRNN_CUDNN_FUNCTIONS(CHARRNN_MEMBER)
#undef CHARRNN_MEMBER
};

struct CudnnLibrary {
  CudnnFunctions functions;
  std::string version;  // "9.19.0"
  std::string problem;  // a sentence why it cannot be used; empty: it can
};

/// The table of what `find` knows: the address of a function by its name, or null.
CudnnLibrary read_cudnn(const std::function<void*(const char*)>& find);
/// Opens the library `file`, which then stays open.
CudnnLibrary open_cudnn(const char* file);
/// The one that this process uses: cuDNN that is in the process already, else libcudnn.so.9. Looked for once.
const CudnnLibrary& cudnn_library();

/// @throws DeviceError with cuDNN's own sentence
void check(cudnnStatus_t status, const char* what);

template <class Handle, auto kDestroy>
struct CudnnDestroyer {
  using pointer = Handle;
  void operator()(Handle handle) const noexcept { static_cast<void>((cudnn_library().functions.*kDestroy)(handle)); }
};
/// A handle or descriptor of cuDNN. It destroys itself; what a destructor cannot report is dropped.
template <class Handle, auto kDestroy>
using CudnnOwned = std::unique_ptr<std::remove_pointer_t<Handle>, CudnnDestroyer<Handle, kDestroy>>;

using CudnnHandle = CudnnOwned<cudnnHandle_t, &CudnnFunctions::cudnnDestroy>;
using CudnnTensor = CudnnOwned<cudnnTensorDescriptor_t, &CudnnFunctions::cudnnDestroyTensorDescriptor>;
using CudnnDropout = CudnnOwned<cudnnDropoutDescriptor_t, &CudnnFunctions::cudnnDestroyDropoutDescriptor>;
using CudnnRnn = CudnnOwned<cudnnRNNDescriptor_t, &CudnnFunctions::cudnnDestroyRNNDescriptor>;
using CudnnData = CudnnOwned<cudnnRNNDataDescriptor_t, &CudnnFunctions::cudnnDestroyRNNDataDescriptor>;

/// A new one. @param create  the function for it
template <class Owned>
Owned make_cudnn(cudnnStatus_t (*create)(typename Owned::pointer*), const char* what) {
  typename Owned::pointer made = nullptr;
  check(create(&made), what);
  return Owned(made);
}

}  // namespace charrnn::cuda
#endif
