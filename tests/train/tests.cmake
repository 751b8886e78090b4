# Tests of this folder.
charrnn_test(train_test SOURCES train/train_test.cpp
  USES charrnn_train charrnn_reference nlohmann_json::nlohmann_json LABEL threads)
