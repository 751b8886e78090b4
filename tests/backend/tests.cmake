# Tests of this folder.
charrnn_test(backend_test SOURCES backend/backend_test.cpp backend/math_test.cpp backend/thread_pool_test.cpp
  USES charrnn_backends charrnn_model charrnn_reference LABEL threads)
charrnn_test(reference_test SOURCES backend/reference_test.cpp USES charrnn_reference nlohmann_json::nlohmann_json)
charrnn_test(pytorch_test SOURCES backend/pytorch_test.cpp USES charrnn_backends nlohmann_json::nlohmann_json)
charrnn_bf16_test(backend_bf16 backend_test)
charrnn_bf16_test(pytorch_bf16 pytorch_test [window])   # ten steps of optimizers are held in fp32

# The tests tagged [pytorch], on fresh numbers: add the programs that have some to the end of the command.
find_program(CHARRNN_PYTORCH python NO_DEFAULT_PATH PATHS ${PROJECT_SOURCE_DIR}/build/pytorch/bin
  DOC "A python with torch, for the test pytorch_fixtures; tools/pytorch/setup makes one")
add_test(NAME pytorch_fixtures
  COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/backend/pytorch_fixtures.sh
    "${CHARRNN_PYTORCH}" 20250521 ${CMAKE_CURRENT_BINARY_DIR}/pytorch_fixtures
    $<TARGET_FILE:reference_test> $<TARGET_FILE:pytorch_test>)
set_tests_properties(pytorch_fixtures PROPERTIES SKIP_RETURN_CODE 77)
