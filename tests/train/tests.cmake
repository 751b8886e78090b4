# Tests of this folder.

# A library that plays a GPU and computes on the CPU, with the CPU backend's own sources (its static library is not made
# to be part of a shared one).
get_target_property(cpu_sources charrnn_cpu SOURCES)
list(TRANSFORM cpu_sources PREPEND ${PROJECT_SOURCE_DIR}/src/cpu/)
get_target_property(layout_sources charrnn_layout SOURCES)
list(TRANSFORM layout_sources PREPEND ${PROJECT_SOURCE_DIR}/src/backend/)
get_source_file_property(row_ops_options ${PROJECT_SOURCE_DIR}/src/cpu/row_ops.cpp TARGET_DIRECTORY charrnn_cpu
  COMPILE_OPTIONS)
set_source_files_properties(${PROJECT_SOURCE_DIR}/src/cpu/row_ops.cpp PROPERTIES COMPILE_OPTIONS "${row_ops_options}")
add_library(charrnn_fake_gpu MODULE train/fake_gpu.cpp ${cpu_sources} ${layout_sources})
set_target_properties(charrnn_fake_gpu PROPERTIES CXX_VISIBILITY_PRESET hidden VISIBILITY_INLINES_HIDDEN OFF
  LIBRARY_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/fakes)
if(NOT CHARRNN_SANITIZE)
  target_link_options(charrnn_fake_gpu PRIVATE -Wl,--no-undefined)   # a sanitizer's own functions are the program's
endif()
target_link_libraries(charrnn_fake_gpu PRIVATE charrnn_options Threads::Threads DNNL::dnnl OpenMP::OpenMP_CXX)

charrnn_test(train_test SOURCES train/train_test.cpp train/gpu_test.cpp
  USES charrnn_train charrnn_reference nlohmann_json::nlohmann_json LABEL threads)
target_compile_definitions(train_test PRIVATE CHARRNN_FAKE_GPU="$<TARGET_FILE:charrnn_fake_gpu>")
add_dependencies(train_test charrnn_fake_gpu)
