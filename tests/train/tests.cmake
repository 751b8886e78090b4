# Tests of this folder.

# A library that plays a GPU and computes on the CPU.
add_library(charrnn_fake_gpu MODULE train/fake_gpu.cpp)
set_target_properties(charrnn_fake_gpu PROPERTIES CXX_VISIBILITY_PRESET hidden VISIBILITY_INLINES_HIDDEN OFF
  LIBRARY_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/fakes)
target_link_options(charrnn_fake_gpu PRIVATE -Wl,--exclude-libs,ALL)   # its CPU backend is not the program's
if(NOT CHARRNN_SANITIZE)
  target_link_options(charrnn_fake_gpu PRIVATE -Wl,--no-undefined)   # a sanitizer's own functions are the program's
endif()
target_link_libraries(charrnn_fake_gpu PRIVATE charrnn_cpu)

charrnn_test(train_test SOURCES train/train_test.cpp train/gpu_test.cpp
  USES charrnn_train charrnn_reference nlohmann_json::nlohmann_json LABEL threads)
target_compile_definitions(train_test PRIVATE CHARRNN_FAKE_GPU="$<TARGET_FILE:charrnn_fake_gpu>")
add_dependencies(train_test charrnn_fake_gpu)
charrnn_bf16_test(train_bf16 train_test ~[gpu])   # the fake GPU has a precision of its own
# Only there: its cases are not registered one by one.
add_executable(bf16_test train/bf16_test.cpp)
target_include_directories(bf16_test PRIVATE ${CMAKE_CURRENT_SOURCE_DIR})
target_link_libraries(bf16_test PRIVATE charrnn_options charrnn_train nlohmann_json::nlohmann_json
  Catch2::Catch2WithMain)
charrnn_bf16_test(bf16_learns bf16_test)
