# Tests of this folder.
charrnn_test(io_safetensors_test SOURCES io/safetensors_test.cpp support/largest_allocation.cpp USES charrnn_io)
charrnn_test(io_checkpoint_test SOURCES io/checkpoint_test.cpp support/largest_allocation.cpp USES charrnn_io)
charrnn_test(io_run_folder_test SOURCES io/run_folder_test.cpp USES charrnn_io)
charrnn_test(io_crash_test SOURCES io/crash_test.cpp USES charrnn_io)
