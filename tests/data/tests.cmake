# Tests of this folder.
charrnn_test(data_vocabulary_test SOURCES data/vocabulary_test.cpp USES charrnn_data)
charrnn_test(data_corpus_test SOURCES data/corpus_test.cpp USES charrnn_data)
charrnn_test(data_streams_test SOURCES data/streams_test.cpp USES charrnn_data)
charrnn_test(data_loader_test SOURCES data/loader_test.cpp USES charrnn_data LABEL threads)
