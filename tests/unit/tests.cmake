# Tests of this folder.
charrnn_test(config_test SOURCES unit/config_test.cpp USES charrnn_config)

# Libraries that only play the CUDA backend: one that works, one without its door, and one that needs another that the
# loader does not find.
add_library(charrnn_fake_cuda MODULE unit/fake_cuda_plugin.cpp)
add_library(charrnn_fake_doorless MODULE unit/fake_empty.cpp)
add_library(charrnn_fake_absent SHARED unit/fake_empty.cpp)
add_library(charrnn_fake_needy MODULE unit/fake_empty.cpp)
target_link_options(charrnn_fake_needy PRIVATE -Wl,--no-as-needed)
target_link_libraries(charrnn_fake_needy PRIVATE charrnn_fake_absent)
set_target_properties(charrnn_fake_needy PROPERTIES SKIP_BUILD_RPATH ON)
foreach(name charrnn_fake_cuda charrnn_fake_doorless charrnn_fake_absent charrnn_fake_needy)
  target_link_libraries(${name} PRIVATE charrnn_options)
  set_target_properties(${name} PROPERTIES LIBRARY_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/fakes)
endforeach()
charrnn_test(cuda_library_test SOURCES unit/cuda_library_test.cpp USES charrnn_backends)
target_compile_definitions(cuda_library_test PRIVATE
  CHARRNN_FAKE_CUDA="$<TARGET_FILE:charrnn_fake_cuda>"
  CHARRNN_FAKE_DOORLESS="$<TARGET_FILE:charrnn_fake_doorless>"
  CHARRNN_FAKE_NEEDY="$<TARGET_FILE:charrnn_fake_needy>")
add_dependencies(cuda_library_test charrnn_fake_cuda charrnn_fake_doorless charrnn_fake_needy)
