# The CUDA backend's sources, once: nvcc and g++ build the library from them, and g++ builds them a second time to run
# on the CPU (tests/host_cuda).
set(CHARRNN_CUDA_SOURCES
  src/cuda/check.cpp
)
set(CHARRNN_CUDA_KERNELS
)
