# The library's own tests. Files that end in .cu are compiled as the backend is, with every access checked.
host_cuda_library(host_cuda_test_objects SOURCES test_kernels.cu test_kernel_faults.cu test_streams.cu)
charrnn_test(host_cuda_test SOURCES test_library.cpp USES host_cuda_test_objects)
