// A library with nothing in it that the program looks for.
extern "C" int charrnn_fake_nothing() { return 0; }
