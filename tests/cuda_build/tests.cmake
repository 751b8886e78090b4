# How the CUDA backend is built: what its library shows, and the budget of its kernels.
add_library(throwing_library MODULE cuda_build/throwing_library.cpp)
target_link_libraries(throwing_library PRIVATE charrnn_options)
target_link_options(throwing_library PRIVATE
  -Wl,--version-script=${PROJECT_SOURCE_DIR}/src/cuda/charrnn_cuda.map)
charrnn_test(cuda_build_test SOURCES cuda_build/library_test.cpp USES ${CMAKE_DL_LIBS})
target_compile_definitions(cuda_build_test PRIVATE CHARRNN_THROWING_LIBRARY="$<TARGET_FILE:throwing_library>")
add_dependencies(cuda_build_test throwing_library)

if(TARGET charrnn_cuda)
  add_test(NAME cuda_exports COMMAND cuda_build/exports_test $<TARGET_FILE:charrnn_program> $<TARGET_FILE:charrnn_cuda>
    WORKING_DIRECTORY ${CMAKE_CURRENT_SOURCE_DIR})
  add_test(NAME cuda_budget_finds_planted_faults
    COMMAND python3 ${CMAKE_CURRENT_SOURCE_DIR}/cuda_build/budget_test.py ${PROJECT_SOURCE_DIR})
  set_tests_properties(cuda_exports cuda_budget_finds_planted_faults PROPERTIES LABELS cuda_build TIMEOUT 300)
  set_tests_properties(cuda_budget_finds_planted_faults PROPERTIES SKIP_RETURN_CODE 77)
endif()
