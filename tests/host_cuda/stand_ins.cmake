# The stand-ins of cuBLASLt and cuDNN (STAND_INS.md) and their tests. Included where the library host_cuda is made.
#   host_cuda         has cuBLASLt, if its header is there
#   host_cuda_cudnn   cuDNN, as objects to link beside it, so that a program may also be run without cuDNN. Its
#                     functions are exported: the backend looks them up by name
target_sources(host_cuda PRIVATE library_support.cpp)
if(EXISTS ${CHARRNN_CUDA_INCLUDE}/cublasLt.h)
  target_sources(host_cuda PRIVATE cublaslt.cpp)
  if(COMMAND charrnn_test)
    charrnn_test(host_cuda_cublaslt_test SOURCES test_cublaslt.cpp USES host_cuda)
  endif()
else()
  message(STATUS "host_cuda: cuBLASLt and cuDNN are left out: no cublasLt.h in ${CHARRNN_CUDA_INCLUDE}")
  return()
endif()

find_path(CHARRNN_CUDNN_INCLUDE cudnn.h HINTS ${CHARRNN_CUDA_INCLUDE} ${CHARRNN_CUDA_INCLUDE}/../../cudnn/include)
if(NOT CHARRNN_CUDNN_INCLUDE)
  message(STATUS "host_cuda: cuDNN is left out: no cudnn.h (CHARRNN_CUDNN_INCLUDE)")
  return()
endif()
add_library(host_cuda_cudnn OBJECT cudnn.cpp cudnn_descriptors.cpp cudnn_rnn.cpp)
set_target_properties(host_cuda_cudnn PROPERTIES POSITION_INDEPENDENT_CODE ON)
target_compile_options(host_cuda_cudnn PRIVATE -O2)
target_include_directories(host_cuda_cudnn SYSTEM PUBLIC ${CHARRNN_CUDNN_INCLUDE})
target_link_libraries(host_cuda_cudnn PUBLIC host_cuda)
target_link_options(host_cuda_cudnn INTERFACE "LINKER:--export-dynamic-symbol=cudnn*")
if(COMMAND charrnn_test)
  charrnn_test(host_cuda_cudnn_test SOURCES test_cudnn.cpp USES host_cuda_cudnn charrnn_reference)
endif()
