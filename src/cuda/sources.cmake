# The CUDA backend's sources, once: nvcc and g++ build the library from them, and g++ builds them a second time to run
# on the CPU (tests/host_cuda).
set(CHARRNN_CUDA_SOURCES
  src/cuda/check.cpp
  src/cuda/products.cpp
  src/cuda/cuda_network.cpp
  src/cuda/recurrence.cpp
  src/cuda/fused_recurrence.cpp
  src/cuda/cudnn_library.cpp
  src/cuda/cudnn_recurrence.cpp
  src/cuda/cuda_session.cpp
  src/cuda/cuda_backend.cpp
  src/cuda/plugin.cpp)
set(CHARRNN_CUDA_KERNELS
  kernels/windows.cu
  kernels/cell_steps.cu
  kernels/softmax_xent.cu
  kernels/column_sums.cu
  kernels/parameters.cu
  kernels/update.cu
  kernels/draw.cu)
# With Thrust in it, which takes nvcc ten times as long.
set(CHARRNN_CUDA_THRUST
  src/cuda/text_scan.cu)
