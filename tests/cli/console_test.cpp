#include "cli/console.h"

#include "cli/console_observer.h"
#include "cli/options.h"
#include "support/catch.h"

namespace charrnn {

TEST_CASE("numbers are written for people", "[console]") {
  CHECK(format_count(0) == "0");
  CHECK(format_count(999) == "999");
  CHECK(format_count(1000) == "1,000");
  CHECK(format_count(5458432) == "5,458,432");
  CHECK(format_count(-1234) == "-1,234");
  CHECK(format_count(-123) == "-123");
  CHECK(format_bytes(0) == "0 B");
  CHECK(format_bytes(1023) == "1023 B");
  CHECK(format_bytes(1536) == "1.5 KiB");
  CHECK(format_bytes(3.0 * (1ULL << 40U)) == "3.0 TiB");
  CHECK(format_duration(0) == "0:00");
  CHECK(format_duration(75) == "1:15");
  CHECK(format_duration(3661) == "1:01:01");
  CHECK(format_duration(-1) == "?");
}

TEST_CASE("a text that is UTF-8 goes into JSON as it is", "[console]") {
  for (const std::string text : {"", "plain \\x41 \\ text", "\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80", "\xEF\xBF\xBF"}) {
    bool escaped = true;
    CHECK(escape_for_json(text, escaped) == text);
    CHECK(!escaped);
  }
}

TEST_CASE("a text that is not UTF-8 is escaped so that it can be undone", "[console]") {
  const auto [bytes, expected] = GENERATE(table<std::string, std::string>({
      {"a\xFFz", "a\\xFFz"},
      {"\\\x80", "\\\\\\x80"},
      {"\xC3", "\\xC3"},                             // cut off
      {"\xC0\x80", "\\xC0\\x80"},                    // overlong
      {"\xE0\x80\x80", "\\xE0\\x80\\x80"},           // overlong
      {"\xED\xA0\x80", "\\xED\\xA0\\x80"},           // a surrogate
      {"\xF4\x90\x80\x80", "\\xF4\\x90\\x80\\x80"},  // above U+10FFFF
      {"\xE2\x82\xAC\xE2\x82", "\xE2\x82\xAC\\xE2\\x82"},
  }));
  bool escaped = false;
  CHECK(escape_for_json(bytes, escaped) == expected);
  CHECK(escaped);
}

TEST_CASE("a table's columns are aligned, numbers on the right", "[console]") {
  CHECK(format_table({{"name", "size"}, {"a", "1"}, {"bcdef", "234"}}) ==
        "name   size\n"
        "a         1\n"
        "bcdef   234\n");
}

TEST_CASE("the nearest known word is suggested, and nothing for what is far", "[options]") {
  const std::vector<std::string> known{"--temperature", "--length", "--top-k"};
  CHECK(did_you_mean("--temprature", known) == " (did you mean --temperature?)");
  CHECK(did_you_mean("--temp", known) == " (did you mean --temperature?)");
  CHECK(did_you_mean("--lenght", known) == " (did you mean --length?)");
  CHECK(did_you_mean("trian", {"train", "sample"}) == " (did you mean train?)");  // neighbours swapped
  CHECK(did_you_mean("--zzzzzzzz", known).empty());
  CHECK(did_you_mean(std::string(100000, 'x'), known).empty());
}

TEST_CASE("a step is one line", "[console]") {
  CHECK(format_step({.step = 12,
                     .total_steps = 21150,
                     .epoch = 0.0284,
                     .nats_per_char = 3.21,
                     .learning_rate = 0.002,
                     .gradient_norm = 0.412,
                     .step_ms = 35.2,
                     .chars_per_s = 71023}) ==
        "step 12/21150  epoch 0.03  loss 3.2100  lr 2.0e-03  |g| 0.412  35.2 ms  71023 char/s");
}

TEST_CASE("flags are read, and wrong ones are refused", "[options]") {
  std::string run;
  std::string text;
  std::int64_t n = 3;
  double x = 0.5;
  bool flag = false;
  std::vector<std::string> list;
  Options options("test", "A test.");
  options.positional("RUN", run, "a run");
  options.text("--text", text, "a text");
  options.whole("--number", n, "a number", 1, 10);
  options.number("--real", x, "a real");
  options.flag("--flag", flag, "a flag");
  options.list("--set", list, "settings");

  SECTION("all kinds") {
    REQUIRE(options.parse(
        {"--set", "a=[1,2]", "--text", "", "folder", "--number=7", "--real", "-1.5", "--flag", "--set", "b={c: d}"}));
    CHECK(run == "folder");
    CHECK(text.empty());
    CHECK(options.given("--text"));
    CHECK(n == 7);
    CHECK(x == -1.5);
    CHECK(flag);
    CHECK(list == std::vector<std::string>{"a=[1,2]", "b={c: d}"});
  }
  SECTION("values stay what they are") {
    REQUIRE(options.parse({"r", "--text", "[a, b]"}));
    CHECK(text == "[a, b]");
  }
  SECTION("a value that looks like a flag") {
    REQUIRE(options.parse({"r", "--text=--number"}));
    CHECK(text == "--number");
  }
  SECTION("values with line breaks and quotes") {
    REQUIRE(options.parse({"r", "--text", "\"a'\n\\n\""}));
    CHECK(text == "\"a'\n\\n\"");
  }
  SECTION("wrong") {
    const Arguments wrong =
        GENERATE(Arguments{}, Arguments{"r", "--nmber", "3"}, Arguments{"r", "more"}, Arguments{"r", "--number", "11"},
                 Arguments{"r", "--number", "0"}, Arguments{"r", "--number", "x"}, Arguments{"r", "--number"},
                 Arguments{"r", "--number", "99999999999999999999"}, Arguments{"r", "--real", "abc"},
                 Arguments{"r", "--text"}, Arguments{"r", "--text", "a", "--text", "b"});
    CHECK_THROWS_AS(options.parse(wrong), UsageError);
  }
}

}  // namespace charrnn
