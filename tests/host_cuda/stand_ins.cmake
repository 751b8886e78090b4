# The stand-ins of cuBLASLt and cuDNN (STAND_INS.md) and their tests. Included where the library host_cuda is made.
target_sources(host_cuda PRIVATE ${CMAKE_CURRENT_LIST_DIR}/cublaslt.cpp ${CMAKE_CURRENT_LIST_DIR}/library_support.cpp)

if(COMMAND charrnn_test)
  charrnn_test(host_cuda_cublaslt_test SOURCES ${CMAKE_CURRENT_LIST_DIR}/test_cublaslt.cpp USES host_cuda)
endif()
