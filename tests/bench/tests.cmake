# The scripts of tools/bench, without PyTorch and without the program.
add_test(NAME bench_scripts COMMAND python3 -B ${CMAKE_CURRENT_SOURCE_DIR}/bench/bench_test.py ${PROJECT_SOURCE_DIR})
set_tests_properties(bench_scripts PROPERTIES LABELS bench TIMEOUT 120)
