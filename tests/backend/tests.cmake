# Tests of this folder.
charrnn_test(backend_test SOURCES backend/backend_test.cpp backend/math_test.cpp
  USES charrnn_backends charrnn_model charrnn_reference)
