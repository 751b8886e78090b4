// Finds and opens libcharrnn_cuda.so, the CUDA backend, at run time.
#pragma once

#include <string>

#include "backend/cuda_plugin.h"

namespace charrnn {

inline constexpr const char* kCudaLibraryFile = "libcharrnn_cuda.so";
inline constexpr const char* kCudaLibraryVariable = "CHARRNN_CUDA_LIBRARY";  // a file, in place of the search

struct CudaLibrary {
  const CudaPlugin* plugin = nullptr;
  std::string file;        // that was opened or tried; empty: none was found
  std::string missing;     // why there is no plugin, in one sentence without its full stop
  bool asked_for = false;  // by the variable: then its absence is an error
};

/// The file that $CHARRNN_CUDA_LIBRARY names, else the library beside the program, else in ../lib from there. It stays
/// open until the process ends.
CudaLibrary open_cuda_library();

}  // namespace charrnn
