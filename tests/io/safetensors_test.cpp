// The reader against every malformed file that is known to have hurt one (the lists of safetensors and of GGUF
// readers).
#include "io/safetensors.h"

#include "io/checkpoints.h"
#include "support/largest_allocation.h"

using namespace charrnn;
using namespace charrnn::tests;

namespace {

constexpr std::size_t kSmallBlocks = 4096;  // messages, and the parser's buffers

std::string with_length(std::uint64_t length, const std::string& rest) {
  std::string bytes(8, '\0');
  std::memcpy(bytes.data(), &length, 8);
  return bytes + rest;
}

std::string file_of(const std::string& header, std::size_t data_bytes = 0) {
  return with_length(header.size(), header + std::string(data_bytes, '\1'));
}

std::string tensor(const std::string& name, const std::string& shape, const std::string& offsets,
                   const std::string& dtype = "F32") {
  return "\"" + name + "\":{\"dtype\":\"" + dtype + "\",\"shape\":" + shape + ",\"data_offsets\":" + offsets + "}";
}

/// Parses what must be refused, holds it to the size of its allocations, and gives the message.
std::string refusal(const std::string& bytes) {
  std::string message;
  const std::string copy = bytes;
  reset_largest_allocation();
  try {
    SafetensorsFile::parse(bytes, "m.safetensors");
  } catch (const FormatError& error) {
    message = error.what();
  }
  const std::size_t largest = largest_allocation();
  CHECK(largest <= 2 * bytes.size() + kSmallBlocks);
  INFO(message);
  CHECK(message.size() < 1000);
  CHECK(message.rfind("m.safetensors: ", 0) == 0);
  CHECK(std::all_of(message.begin(), message.end(), [](char c) { return c >= ' ' && c < 127; }));
  return message;
}

void check_refused(const std::string& bytes, const std::string& part) {
  const std::string message = refusal(bytes);
  INFO(message);
  INFO(part);
  CHECK(contains(message, part));
}

}  // namespace

TEST_CASE("what is written reads back, with a header padded to 8 bytes", "[io][safetensors]") {
  const std::vector<float> a{1, 2, 3, 4, 5, 6}, b{-0.0F, 7};
  const std::vector<TensorToWrite> tensors{
      {"a", {2, 3}, a}, {"none", {0, 4}, {}}, {"b\n\"", {2}, b}, {"scalar", {}, {a.data(), 1}}};
  const std::map<std::string, std::string> metadata{{"k", "line\nline \"q\" \xC3\xA9"}, {"empty", ""}};
  const std::string bytes = format_safetensors(tensors, metadata);
  CHECK(bytes == format_safetensors(tensors, metadata));
  const SafetensorsFile file = SafetensorsFile::parse(bytes, "f");
  CHECK(file.header().data_offset % 8 == 0);
  CHECK(file.header().metadata == metadata);
  REQUIRE(file.header().tensors.size() == 4);
  std::vector<float> back(6);
  file.copy_f32("a", std::vector<std::uint64_t>{2, 3}, back);
  CHECK(same_bits(back, a));
  back.resize(2);
  file.copy_f32("b\n\"", std::vector<std::uint64_t>{2}, back);
  CHECK(same_bits(back, b));
  back.resize(0);
  file.copy_f32("none", std::vector<std::uint64_t>{0, 4}, back);
  back.resize(1);
  file.copy_f32("scalar", std::vector<std::uint64_t>{}, back);
  CHECK(back[0] == 1);

  TempFolder folder;
  write_all(folder / "m", bytes);
  CHECK(SafetensorsFile::read(folder / "m").header().tensors.size() == 4);
  CHECK(SafetensorsFile::read_header(folder / "m").metadata == metadata);
}

TEST_CASE("a tensor is asked for by name, dtype and shape", "[io][safetensors]") {
  const SafetensorsFile file = SafetensorsFile::parse(
      file_of("{" + tensor("a", "[2]", "[0,8]") + "," + tensor("d", "[1]", "[8,16]", "F64") + "}", 16), "f");
  std::vector<float> to(2);
  using Shape = std::vector<std::uint64_t>;
  CHECK(contains(message_of<FormatError>([&] { file.copy_f32("b", Shape{2}, to); }), "f: has no tensor 'b'"));
  CHECK(contains(message_of<FormatError>([&] {
                   file.copy_f32("a", Shape{1, 2}, to);
                 }),
                 "shape is [2], expected [1, 2]"));
  CHECK(contains(message_of<FormatError>([&] { file.copy_f32("d", Shape{1}, to); }), "dtype is F64, expected F32"));
  to.resize(3);
  CHECK_THROWS_AS(file.copy_f32("a", Shape{2}, to), ShapeError);
}

TEST_CASE("the writer refuses what no file could hold", "[io][safetensors]") {
  const std::vector<float> a{1, 2};
  CHECK_THROWS_AS(format_safetensors({{"a", {3}, a}}, {}), ShapeError);
  CHECK_THROWS_AS(format_safetensors({{"a", {2}, a}, {"a", {2}, a}}, {}), ShapeError);
  CHECK_THROWS_AS(format_safetensors({{"a", {1ULL << 33U, 1ULL << 31U}, {}}}, {}), ShapeError);
  CHECK_THROWS_AS(format_safetensors({{"a", {2}, a}}, {{"k", "\xff"}}), RunError);
}

TEST_CASE("legal oddities are read", "[io][safetensors]") {
  CHECK(SafetensorsFile::parse(file_of("{}"), "f").header().tensors.empty());
  CHECK(SafetensorsFile::parse(file_of("{}   \n"), "f").header().tensors.empty());
  // Two empty tensors share an offset, and the order in the header is not that of the data.
  const std::string odd = "{" + tensor("b", "[1]", "[4,8]") + "," + tensor("e", "[0]", "[4,4]") + "," +
                          tensor("f", "[2,0]", "[4,4]") + "," + tensor("a", "[1]", "[0,4]") + "}";
  const SafetensorsFile file = SafetensorsFile::parse(file_of(odd, 8), "f");
  CHECK(file.header().tensors.front().name == "a");
  CHECK(file.header().tensors.back().name == "b");
}

TEST_CASE("files that are short or lie about their header are refused", "[io][safetensors]") {
  for (std::size_t bytes = 0; bytes < 8; ++bytes) check_refused(std::string(bytes, '\0'), "expected at least 8");
  check_refused(with_length(100'000'001, "{}"), "expected at most 100000000");
  check_refused(with_length(~0ULL, "{}"), "18446744073709551615 bytes, expected at most");
  check_refused(with_length(~0ULL - 7, "{}"), "expected at most");  // + 8 wraps to 0
  check_refused(with_length(100'000'000, "{}"), "but only 2 follow");
  check_refused(with_length(3, "{}"), "but only 2 follow");
  check_refused(with_length(0, "{}"), "begins with ''");
  check_refused(std::string("GGUF\3\0\0\0", 8), "says that its header has");
}

TEST_CASE("headers that are no JSON object are refused", "[io][safetensors]") {
  check_refused(file_of(" {}"), "begins with ' ', expected '{'");
  check_refused(file_of("\n{}"), "begins with '\\x0a'");
  check_refused(file_of("\xEF\xBB\xBF{}"), "begins with");
  check_refused(file_of("[]"), "begins with '['");
  check_refused(file_of("{"), "is not JSON");
  check_refused(file_of("{}}"), "is not JSON");
  check_refused(file_of("{} x"), "is not JSON");
  check_refused(file_of("{'a':1}"), "is not JSON");
  check_refused(file_of("{\"a\":1,}"), "the number 1");
  check_refused(file_of("{/**/}"), "is not JSON");
  check_refused(file_of(std::string("{}\0{", 4)), "NUL");
  check_refused(file_of("{\"a\":NaN}"), "is not JSON");
  check_refused(file_of("{\"\xff\":1}"), "is not UTF-8 at byte 2");
  check_refused(file_of("{\"\xC0\xAF\":1}"), "is not UTF-8");          // overlong
  check_refused(file_of("{\"\xED\xA0\x80\":1}"), "is not UTF-8");      // surrogate
  check_refused(file_of("{\"\xF5\x80\x80\x80\":1}"), "is not UTF-8");  // beyond the last code point
  check_refused(file_of("{\"a\":\"\xE2\x82"), "is not UTF-8");         // cut within a character
}

TEST_CASE("nesting bombs are refused without recursion", "[io][safetensors]") {
  check_refused(file_of("{\"a\":" + std::string(100'000, '[')), "expected an object");
  check_refused(file_of("{\"__metadata__\":{\"a\":" + std::string(100'000, '[')), "expected a string");
  std::string objects = "{";
  for (int i = 0; i < 10'000; ++i) objects += "\"a\":{";
  check_refused(file_of(objects), "has the key");
  check_refused(file_of("{" + tensor("a", std::string(100, '['), "[0,4]") + "}"), "expected a list");
}

TEST_CASE("keys that stand twice are refused", "[io][safetensors]") {
  check_refused(file_of("{" + tensor("a", "[1]", "[0,4]") + "," + tensor("a", "[1]", "[4,8]") + "}", 8),
                "the key 'a' twice");
  check_refused(file_of("{\"a\":{\"dtype\":\"F32\",\"dtype\":\"F64\"}}"), "the key 'dtype' twice");
  check_refused(file_of("{\"__metadata__\":{\"k\":\"1\",\"k\":\"2\"}}"), "the key 'k' twice");
  check_refused(file_of("{\"__metadata__\":{},\"__metadata__\":{}}"), "'__metadata__' twice");
  check_refused(file_of("{" + tensor("a", "[1]", "[0,4]") + "," + tensor("\\u0061", "[1]", "[4,8]") + "}", 8), "twice");
}

TEST_CASE("entries that lack, add or mistype a field are refused", "[io][safetensors]") {
  check_refused(file_of("{\"a\":{}}"), "tensor 'a': has no dtype");
  check_refused(file_of("{\"a\":{\"dtype\":\"F32\",\"shape\":[]}}"), "has no data_offsets");
  check_refused(file_of("{\"a\":{\"dtype\":\"F32\",\"data_offsets\":[0,4]}}", 4), "has no shape");
  check_refused(file_of("{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4],\"stride\":1}}", 4),
                "the key 'stride'");
  check_refused(file_of("{\"a\":{\"dtype\":{\"x\":1},\"shape\":[1]}}"), "dtype is an object");
  check_refused(file_of("{\"a\":7}"), "its entry is the number 7");
  check_refused(file_of("{\"a\":[{\"dtype\":\"F32\"}]}"), "its entry is a list");
  check_refused(file_of("{\"\":{}}"), "name is empty");
  check_refused(file_of("{" + tensor("a", "1", "[0,4]") + "}", 4), "shape is the number 1");
  check_refused(file_of("{" + tensor("a", "[[1]]", "[0,4]") + "}", 4), "shape is a list, expected a list of whole");
  check_refused(file_of("{" + tensor("a", "[\"1\"]", "[0,4]") + "}", 4), "shape is the string '1'");
  check_refused(file_of("{" + tensor("a", "[null]", "[0,4]") + "}", 4), "shape is null");
  check_refused(file_of("{" + tensor("a", "[{}]", "[0,4]") + "}", 4), "shape is an object");
  check_refused(file_of("{" + tensor("a", "[1]", "[0]") + "}", 4), "data_offsets has 1 numbers");
  check_refused(file_of("{" + tensor("a", "[1]", "[0,4,8]") + "}", 4), "more than two");
  check_refused(file_of("{\"__metadata__\":{\"k\":1}}"), "'k' is the number 1, expected a string");
  check_refused(file_of("{\"__metadata__\":[]}"), "__metadata__ is a list");
  check_refused(file_of("{\"__metadata__\":\"x\"}"), "__metadata__ is the string 'x'");
  check_refused(file_of("{" + tensor("a", "[1,1,1,1,1,1,1,1,1]", "[0,4]") + "}", 4), "more than 8 dimensions");
}

TEST_CASE("numbers that are no unsigned 64-bit integers are refused", "[io][safetensors]") {
  for (const std::string bad :
       {"-1", "1.0", "1e0", "18446744073709551616", "1e400", "-0", "-9223372036854775809", "true"}) {
    INFO(bad);
    const std::string message = refusal(file_of("{" + tensor("a", "[" + bad + "]", "[0,4]") + "}", 4));
    INFO(message);
    CHECK((contains(message, "expected a list of whole numbers") || contains(message, "is not JSON")));
    refusal(file_of("{" + tensor("a", "[1]", "[" + bad + ",4]") + "}", 4));
    refusal(file_of("{" + tensor("a", "[1]", "[0," + bad + "]") + "}", 4));
  }
  check_refused(file_of("{" + tensor("a", "[01]", "[0,4]") + "}", 4), "is not JSON");
  check_refused(file_of("{" + tensor("a", "[0x1]", "[0,4]") + "}", 4), "is not JSON");
}

TEST_CASE("dtypes that are not read are refused by name", "[io][safetensors]") {
  for (const std::string dtype : {"F8_E4M3", "F4", "BOOL", "I16", "U64", "C64", "f32", "", "F32 "}) {
    check_refused(file_of("{" + tensor("a", "[1]", "[0,4]", dtype) + "}", 4), "dtype is '" + dtype + "', expected F32");
  }
}

TEST_CASE("shapes whose product overflows are refused", "[io][safetensors]") {
  const std::string over = "more bytes than 64 bits can count";
  check_refused(file_of("{" + tensor("a", "[4294967296,4294967296]", "[0,0]") + "}"), over);    // wraps to 0
  check_refused(file_of("{" + tensor("a", "[4294967296,4294967296,0]", "[0,0]") + "}"), over);  // before the 0
  check_refused(file_of("{" + tensor("a", "[4194305,4194305,211106198978564]", "[0,16]") + "}", 16), over);  // to 4
  check_refused(file_of("{" + tensor("a", "[4611686018427387904]", "[0,0]") + "}"), over);                   // times 4
  check_refused(file_of("{" + tensor("a", "[18446744073709551615,2]", "[0,4]") + "}", 4), over);
}

TEST_CASE("sizes unlike the offsets are refused", "[io][safetensors]") {
  check_refused(file_of("{" + tensor("a", "[1000000]", "[0,4]") + "}", 4),
                "needs 4000000 bytes, but data_offsets [0, 4] span 4");
  check_refused(file_of("{" + tensor("a", "[]", "[0,8]") + "}", 8), "needs 4 bytes");
  check_refused(file_of("{" + tensor("a", "[0]", "[0,4]") + "}", 4), "needs 0 bytes");
  check_refused(file_of("{" + tensor("a", "[2]", "[0,4]", "F64") + "}", 4), "needs 16 bytes");
}

TEST_CASE("offsets beyond, before or across each other are refused", "[io][safetensors]") {
  check_refused(file_of("{" + tensor("a", "[1]", "[8,4]") + "}", 8), "ends at 4, before its begin at 8");
  check_refused(file_of("{" + tensor("a", "[1]", "[0,4]") + "}", 3), "the file is cut short");
  check_refused(file_of("{" + tensor("a", "[1]", "[18446744073709551612,18446744073709551615]") + "}", 4), "cut short");
  check_refused(file_of("{" + tensor("a", "[1]", "[4,8]") + "}", 8),
                "begins at byte 4 of the data, expected 0: there is a hole");
  check_refused(file_of("{" + tensor("a", "[1]", "[0,4]") + "," + tensor("b", "[1]", "[8,12]") + "}", 12),
                "there is a hole");
  check_refused(file_of("{" + tensor("a", "[2]", "[0,8]") + "," + tensor("b", "[1]", "[4,8]") + "}", 8), "overlaps");
  check_refused(file_of("{" + tensor("a", "[1]", "[0,4]") + "," + tensor("b", "[1]", "[0,4]") + "}", 4), "overlaps");
  check_refused(file_of("{" + tensor("a", "[1]", "[0,4]") + "}", 5), "1 bytes behind the last tensor");
  check_refused(file_of("{}", 1), "1 bytes behind");
  // Sums of sizes that overflow only together.
  check_refused(file_of("{" + tensor("a", "[2305843009213693944]", "[0,9223372036854775776]") + "," +
                            tensor("b", "[2305843009213693944]", "[9223372036854775776,18446744073709551552]") + "}",
                        4),
                "cut short");
}

TEST_CASE("headers with very many entries are refused", "[io][safetensors]") {
  std::string many = "{";
  for (int i = 0; i < 5000; ++i) many += (i > 0 ? "," : "") + tensor(std::to_string(i), "[0]", "[0,0]");
  check_refused(file_of(many + "}"), "more than 4096 tensors");
  many = "{\"__metadata__\":{";
  for (int i = 0; i < 5000; ++i) many += (i > 0 ? ",\"" : "\"") + std::to_string(i) + "\":\"\"";
  check_refused(file_of(many + "}}"), "more than 4096 entries");
  std::string long_shape = "[1";
  for (int i = 0; i < 100'000; ++i) long_shape += ",1";
  check_refused(file_of("{" + tensor("a", long_shape + "]", "[0,4]") + "}", 4), "more than 8 dimensions");
}

TEST_CASE("a file cut at any length is refused", "[io][safetensors]") {
  const std::vector<float> a(64, 1.0F);
  const std::string bytes = format_safetensors({{"a", {8, 8}, a}, {"b", {64}, a}}, {{"config", std::string(200, 'x')}});
  for (std::size_t n = 0; n < bytes.size(); ++n) refusal(bytes.substr(0, n));
  for (std::size_t n = 1; n < 9; ++n) refusal(bytes + std::string(n, '\0'));
}

TEST_CASE("a changed byte of a header either is refused or leaves a file that is sound", "[io][safetensors]") {
  const std::vector<float> a(6, 1.0F);
  const std::string bytes = format_safetensors({{"a", {2, 3}, a}, {"b", {6}, a}}, {{"k", "v"}});
  const std::size_t header = SafetensorsFile::parse(bytes, "f").header().data_offset;
  std::size_t refused = 0;
  for (std::size_t at = 0; at < header; ++at) {
    for (const int bit : {0, 1, 2, 5, 7}) {
      std::string changed = bytes;
      changed[at] = static_cast<char>(static_cast<unsigned char>(changed[at]) ^ (1U << static_cast<unsigned>(bit)));
      try {
        const SafetensorsFile file = SafetensorsFile::parse(changed, "f");
        std::uint64_t end = 0;
        for (const TensorInfo& t : file.header().tensors) {
          CHECK(t.begin == end);
          end = t.end;
        }
        CHECK(end == changed.size() - file.header().data_offset);
      } catch (const FormatError&) {
        ++refused;
      }
    }
  }
  CHECK(refused > 3 * header);  // the rest changes a name, a space or a metadata text: the manifest's hash sees those
}

TEST_CASE("files that are missing, folders or pipes are refused", "[io][safetensors]") {
  TempFolder folder;
  CHECK(contains(message_of<FormatError>([&] { SafetensorsFile::read(folder / "none"); }), "No such file"));
  CHECK(contains(message_of<FormatError>([&] { SafetensorsFile::read(folder.path()); }), "is a folder"));
  CHECK_THROWS_AS(SafetensorsFile::read_header("/dev/zero"), FormatError);
  write_all(folder / "empty", "");
  CHECK_THROWS_AS(SafetensorsFile::read_header(folder / "empty"), FormatError);
}
