# Tests of this folder.
charrnn_test(io_safetensors_test SOURCES io/safetensors_test.cpp io/largest_allocation.cpp USES charrnn_io)
