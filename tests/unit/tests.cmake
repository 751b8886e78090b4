# Tests of this folder.
charrnn_test(config_test SOURCES unit/config_test.cpp USES charrnn_config)
