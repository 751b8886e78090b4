// src/cuda/text_scan.cu with Thrust's C++ backend instead of its CUDA one. It is not instrumented, so the checker sees
// nothing of it.
#define THRUST_DEVICE_SYSTEM THRUST_DEVICE_SYSTEM_CPP
#include "cuda/text_scan.cu"
