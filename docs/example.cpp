// The library in ten lines: feed a text to a trained network, then let it go on by itself, the likeliest character
// first.
#include <algorithm>
#include <iostream>

#include "charrnn/charrnn.h"

int main(int argc, char** argv) try {
  const std::string text = argc > 2 ? argv[2] : "\n";
  charrnn::Rnn rnn = charrnn::Rnn::load(argc > 1 ? argv[1] : "runs/shakespeare");
  std::span<const float> y;
  for (const charrnn::TokenId x : rnn.vocabulary().encode(text, "the text")) y = rnn.step(x);
  for (int i = 0; i < 40; ++i) {
    const auto x = static_cast<charrnn::TokenId>(std::max_element(y.begin(), y.end()) - y.begin());
    std::cout << static_cast<char>(rnn.vocabulary().byte(x));
    y = rnn.step(x);
  }
  std::cout << std::endl;
} catch (const charrnn::Error& error) {
  std::cerr << error.what() << std::endl;
  return static_cast<int>(error.code());
}
