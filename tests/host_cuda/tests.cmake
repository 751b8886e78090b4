# The library's own tests. Files that end in .cu are compiled as the backend is, with every access checked.
host_cuda_library(host_cuda_test_objects SOURCES test_kernels.cu test_kernel_faults.cu test_streams.cu)
charrnn_test(host_cuda_test SOURCES test_library.cpp USES host_cuda_test_objects)

# In a library that a program opens, which knows nothing of it.
host_cuda_library(host_cuda_module_objects SOURCES test_module.cu)
add_library(host_cuda_module MODULE $<TARGET_OBJECTS:host_cuda_module_objects>)
set_target_properties(host_cuda_module PROPERTIES LINKER_LANGUAGE CXX)
target_link_libraries(host_cuda_module PRIVATE host_cuda)
add_executable(host_cuda_module_main module_main.cpp)
target_link_libraries(host_cuda_module_main PRIVATE charrnn_options Threads::Threads ${CMAKE_DL_LIBS})
add_test(NAME host_cuda_opened_library
  COMMAND host_cuda_module_main $<TARGET_FILE:host_cuda_module> 0)
# The race is found there too, and a program that nobody asks does not pass with it.
add_test(NAME host_cuda_opened_library_with_a_race
  COMMAND bash -c "\"$1\" \"$2\" 1 2>&1 | grep 'race: test_module.cu:[0-9]*: reversed'; [ \"$PIPESTATUS $?\" = '86 0' ]"
    bash $<TARGET_FILE:host_cuda_module_main> $<TARGET_FILE:host_cuda_module>)
set_tests_properties(host_cuda_opened_library host_cuda_opened_library_with_a_race PROPERTIES LABELS host_cuda_test)
