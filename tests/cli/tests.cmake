# Tests of this folder.
charrnn_test(sampling_test SOURCES cli/draw_test.cpp cli/sampler_test.cpp cli/evaluator_test.cpp cli/rnn_test.cpp
  USES charrnn_model)
charrnn_test(console_test SOURCES cli/console_test.cpp USES charrnn_console)
charrnn_test(program_test SOURCES cli/program_test.cpp cli/run_commands_test.cpp
  USES charrnn_layout nlohmann_json::nlohmann_json)
add_executable(charrnn_example ${PROJECT_SOURCE_DIR}/docs/example.cpp)
target_link_libraries(charrnn_example PRIVATE charrnn_model)
target_compile_definitions(program_test PRIVATE CHARRNN_EXAMPLE="${CMAKE_BINARY_DIR}/charrnn_example")
target_compile_definitions(program_test PRIVATE CHARRNN_FAKE_CUDA="$<TARGET_FILE:charrnn_fake_cuda>"
                                                CHARRNN_FAKE_GPU="$<TARGET_FILE:charrnn_fake_gpu>")
add_dependencies(program_test charrnn_program charrnn_example charrnn_fake_cuda charrnn_fake_gpu)
