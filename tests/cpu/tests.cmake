# Tests of this folder.
charrnn_test(row_ops_test SOURCES cpu/row_ops_test.cpp cpu/vector_functions.cpp USES charrnn_cpu_math hwy::hwy)
set_source_files_properties(cpu/vector_functions.cpp PROPERTIES COMPILE_OPTIONS "-ffp-contract=fast")   # as row_ops.cpp

charrnn_test(cpu_session_test SOURCES cpu/session_test.cpp support/largest_allocation.cpp
  USES charrnn_backends charrnn_model LABEL threads)
charrnn_bf16_test(cpu_session_bf16 cpu_session_test)

charrnn_test(lane_test SOURCES cpu/lane_sampler_test.cpp cpu/lane_kernels_test.cpp cpu/spin_barrier_test.cpp
  USES charrnn_cpu charrnn_model charrnn_reference hwy::hwy LABEL threads)
