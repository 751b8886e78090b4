#include "charrnn/vocabulary.h"

#include "charrnn/error.h"
#include "support/catch.h"

namespace charrnn {
namespace {

using Catch::Matchers::Contains;

TEST_CASE("a vocabulary is the distinct bytes of a text in ascending order", "[data][vocabulary]") {
  const Vocabulary v = Vocabulary::of("hello");
  REQUIRE(v.size() == 4);
  CHECK(std::vector<std::uint8_t>(v.bytes().begin(), v.bytes().end()) == std::vector<std::uint8_t>{'e', 'h', 'l', 'o'});
  CHECK(v.find('e') == 0);
  CHECK(v.find('o') == 3);
  CHECK(v.find('x') == -1);
  CHECK(v.byte(1) == 'h');
  CHECK_THROWS_AS(v.byte(4), std::out_of_range);
  CHECK(v.encode("hello", "a text") == std::vector<TokenId>{1, 0, 2, 2, 3});
  CHECK(v == Vocabulary::of("leoh"));
  CHECK_FALSE(v == Vocabulary::of("hell"));
  CHECK(Vocabulary::of("").size() == 0);
}

TEST_CASE("bytes sort as unsigned numbers and decode to what they were", "[data][vocabulary]") {
  std::string all;
  for (int i = 255; i >= 0; --i) all.push_back(static_cast<char>(i));
  const Vocabulary v = Vocabulary::of(all);
  REQUIRE(v.size() == 256);
  for (int i = 0; i < 256; ++i) CHECK(v.byte(i) == i);
  CHECK(v.decode(v.encode(all, "all")) == all);
}

TEST_CASE("a vocabulary keeps the order that it is given", "[data][vocabulary]") {
  const Vocabulary v({'z', 'a', 0xFF});
  CHECK(v.find('z') == 0);
  CHECK(v.find('a') == 1);
  CHECK(v.find(0xFF) == 2);
  CHECK(v.decode(std::vector<TokenId>{2, 1, 0}) ==
        "\xFF"
        "az");
}

TEST_CASE("a malformed vocabulary is refused", "[data][vocabulary]") {
  CHECK_THROWS_AS(Vocabulary(std::vector<std::uint8_t>{}), FormatError);
  CHECK_THROWS_AS(Vocabulary(std::vector<std::uint8_t>(257, 'a')), FormatError);
  CHECK_THROWS_WITH(Vocabulary({'a', '\n', 'b', '\n'}), Contains("'\\n' twice, at 1 and 3"));
}

TEST_CASE("a character outside the vocabulary is named with its offset", "[data][vocabulary]") {
  const Vocabulary v = Vocabulary::of("hello");
  CHECK_THROWS_AS(v.encode("hell\xC3\xB6", "the prime"), DataError);
  CHECK_THROWS_WITH(v.encode("hell\xC3\xB6", "the prime"),
                    Contains("the prime: the character 0xC3 at offset 4") && Contains("vocabulary of 4 characters"));
}

TEST_CASE("bytes are shown as a person would write them", "[data][vocabulary]") {
  CHECK(printable('a') == "'a'");
  CHECK(printable(' ') == "' '");
  CHECK(printable('\n') == "'\\n'");
  CHECK(printable('\'') == "'\\''");
  CHECK(printable('\\') == "'\\\\'");
  CHECK(printable(0) == "0x00");
  CHECK(printable(0x7F) == "0x7F");
  CHECK(printable(0x80) == "0x80");
}

}  // namespace
}  // namespace charrnn
