#include "data/corpus.h"

#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <functional>
#include <optional>

#include "charrnn/error.h"
#include "data/text_files.h"
#include "support/catch.h"

namespace charrnn {
namespace {

using Catch::Matchers::Contains;
using test::TempFolder;

CorpusConfig at(const std::filesystem::path& path) {
  CorpusConfig c;
  c.path = path.string();
  return c;
}

CorpusConfig inline_text(const std::string& text) {
  CorpusConfig c;
  c.text = text;
  return c;
}

/// Sets a variable of the environment, or unsets it, until the end of the scope.
class Environment {
 public:
  Environment(const char* name, const std::optional<std::string>& value) : name_(name) {
    if (const char* old = ::getenv(name)) old_ = old;
    set(value);
  }
  ~Environment() { set(old_); }
  Environment(const Environment&) = delete;
  Environment& operator=(const Environment&) = delete;

 private:
  void set(const std::optional<std::string>& value) {
    if (value)
      ::setenv(name_, value->c_str(), 1);
    else
      ::unsetenv(name_);
  }
  const char* name_;
  std::optional<std::string> old_;
};

struct ChildResult {
  int status = 0;      // of waitpid(2)
  std::string output;  // stderr
};

/// Runs `work` in a child process; its end there is exit code 0.
ChildResult in_child(const std::function<void()>& work) {
  int ends[2];
  REQUIRE(::pipe(ends) == 0);
  const pid_t child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    ::dup2(ends[1], STDERR_FILENO);
    ::close(ends[0]);
    ::close(ends[1]);
    work();
    ::_exit(0);
  }
  ::close(ends[1]);
  ChildResult result;
  char buffer[4096];
  for (ssize_t n; (n = ::read(ends[0], buffer, sizeof buffer)) > 0;) {
    result.output.append(buffer, static_cast<std::size_t>(n));
  }
  ::close(ends[0]);
  REQUIRE(::waitpid(child, &result.status, 0) == child);
  return result;
}

bool exited_with(const ChildResult& r, int code) { return WIFEXITED(r.status) && WEXITSTATUS(r.status) == code; }

void touch(const char* address) { static_cast<void>(*static_cast<const volatile char*>(address)); }

TEST_CASE("a file is mapped, hashed and indexed in one pass", "[data][corpus]") {
  const TempFolder folder;
  const std::filesystem::path file = folder.file("abc.txt", "abc");
  std::vector<double> fractions;
  const Corpus corpus = Corpus::open(at(file), [&](double f) { fractions.push_back(f); });
  CHECK(corpus.text() == "abc");
  CHECK(corpus.source() == file.string());
  CHECK(corpus.sha256() == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");  // FIPS 180-2, B.1
  CHECK(corpus.vocabulary() == Vocabulary::of("abc"));
  CHECK(fractions == std::vector<double>{1.0});
}

TEST_CASE("a text of several pieces is indexed whole", "[data][corpus]") {
  const TempFolder folder;
  std::string text(9 << 20, 'a');
  text[5 << 20] = 'b';
  text.back() = 'c';
  std::vector<double> fractions;
  const Corpus corpus = Corpus::open(at(folder.file("long.txt", text)), [&](double f) { fractions.push_back(f); });
  CHECK(corpus.vocabulary() == Vocabulary::of("abc"));
  CHECK(corpus.sha256() == Corpus::open(inline_text(text)).sha256());
  REQUIRE(fractions.size() == 3);
  CHECK(fractions[0] == Approx(4.0 / 9));
  CHECK(fractions[2] == 1.0);
}

TEST_CASE("a text in the config is a corpus of its own", "[data][corpus]") {
  std::optional<Corpus> first = Corpus::open(inline_text("hello"));
  const Corpus copy = *first;
  first.reset();
  CHECK(copy.text() == "hello");
  CHECK(copy.source() == "text in the config");
  CHECK(copy.vocabulary().size() == 4);
  CHECK(copy.sha256() == "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824");
  CHECK_THROWS_AS(Corpus::open(inline_text("")), DataError);
  CHECK_THROWS_AS(Corpus::open(inline_text("a")), DataError);
  CHECK_THROWS_WITH(Corpus::open(inline_text("aaaa")), Contains("all its 4 characters are 'a'"));
}

TEST_CASE("a mapping lives as long as its last copy", "[data][corpus]") {
  const TempFolder folder;
  std::optional<Corpus> first = Corpus::open(at(folder.file("a.txt", "some text")));
  const Corpus copy = *first;
  Corpus moved = std::move(*first);
  first.reset();
  CHECK(copy.text() == "some text");
  CHECK(moved.text().data() == copy.text().data());
}

TEST_CASE("texts that are only unusual work: all are bytes", "[data][corpus]") {
  const TempFolder folder;
  const std::string text = GENERATE(as<std::string>(), "a line\r\nand another\r\n",  // CRLF
                                    std::string("a\0b\0", 4),                        // NUL bytes
                                    "\xEF\xBB\xBFtext",                              // byte order mark
                                    "\xFF\xFE\x80 not UTF-8 \xC3",                   // invalid UTF-8
                                    "\xC0\xAF overlong, \xED\xA0\x80 surrogate", "ab");
  const Corpus corpus = Corpus::open(at(folder.file("odd.txt", text)));
  CHECK(corpus.text() == text);
  CHECK(corpus.vocabulary() == Vocabulary::of(text));
  CHECK(corpus.vocabulary().decode(corpus.vocabulary().encode(text, "text")) == text);
}

TEST_CASE("texts of faulty kinds are refused, each with what is wrong", "[data][corpus]") {
  const TempFolder folder;
  const auto refused = [](const std::filesystem::path& path, const std::string& why, const std::string& hint) {
    INFO(path);
    try {
      Corpus::open(at(path));
      FAIL("was taken");
    } catch (const DataError& e) {
      CHECK(e.code() == ExitCode::kData);
      CHECK_THAT(e.what(), Contains(path.string()) && Contains(why) && Contains(hint));
    }
  };
  refused(folder.path() / "nothing.txt", "there is no such file", "tools/get-data");
  refused(folder.path(), "is a directory", "name a text file in it");
  refused(folder.file("empty.txt", ""), "is empty", "give it some text");
  refused(folder.file("one.txt", "a"), "has 1 character", "more text");
  refused(folder.file("same.txt", std::string(100, '\n')), "all its 100 characters are '\\n'", "another text");
  refused("/dev/zero", "is a character device", "copy what it yields to a file");
  refused("/dev/null", "is a character device", "copy what it yields to a file");
  refused(folder.file("file", "abc") / "below", "there is no such file", "tools/get-data");

  const std::filesystem::path fifo = folder.path() / "fifo";
  REQUIRE(::mkfifo(fifo.c_str(), 0600) == 0);
  refused(fifo, "is a named pipe (FIFO)", "copy what it yields to a file");  // and does not wait for a writer

  std::filesystem::create_symlink(folder.path() / "gone", folder.path() / "dangling");
  refused(folder.path() / "dangling", "there is no such file", "check the path");
  std::filesystem::create_symlink("loop", folder.path() / "loop");
  refused(folder.path() / "loop", "cannot be read", "check the permissions");
  refused(folder.path() / std::string(300, 'x'), "cannot be read (File name too long)", "check");

  CHECK_THROWS_AS(Corpus::open(at("")), DataError);
  CHECK_THROWS_WITH(Corpus::open(at(std::string("abc\0def", 7))), Contains("NUL byte"));
}

TEST_CASE("a symbolic link to a text is a text", "[data][corpus]") {
  const TempFolder folder;
  std::filesystem::create_symlink(folder.file("real.txt", "real text"), folder.path() / "link.txt");
  const Corpus corpus = Corpus::open(at(folder.path() / "link.txt"));
  CHECK(corpus.text() == "real text");
  CHECK(corpus.source() == (folder.path() / "link.txt").string());
}

TEST_CASE("a file without permission to read is refused", "[data][corpus]") {
  const TempFolder folder;
  const std::filesystem::path file = folder.file("secret.txt", "abc");
  std::filesystem::permissions(folder.path(), std::filesystem::perms(0755));
  std::filesystem::permissions(file, std::filesystem::perms::none);
  const ChildResult r = in_child([&] {
    if (::geteuid() == 0 && ::setresuid(65534, 65534, 65534) != 0) ::_exit(9);  // root may read everything
    try {
      Corpus::open(at(file));
    } catch (const DataError& e) {
      const std::string what = e.what();
      static_cast<void>(!::write(STDERR_FILENO, what.data(), what.size()));
      ::_exit(3);
    }
  });
  if (exited_with(r, 9)) return;
  CHECK(exited_with(r, 3));
  CHECK_THAT(r.output, Contains(file.string() + ": cannot be read (Permission denied)"));
}

TEST_CASE("a text to score may be of one distinct character, a text to train on may not", "[data][corpus]") {
  const TempFolder folder;
  const std::filesystem::path file = folder.file("same.txt", "aaaa");
  const Corpus corpus = open_text_file(file);
  CHECK(corpus.vocabulary().size() == 1);
  CHECK(corpus.text() == "aaaa");
  CHECK_THROWS_AS(Corpus::open(at(file)), DataError);
  CHECK_THROWS_WITH(open_text_file(folder.path() / "none.txt"), Contains("there is no such file"));
}

TEST_CASE("a corpus that is not here is looked for in the data folder", "[data][corpus]") {
  const TempFolder folder;
  const Environment data("CHARRNN_DATA", folder.path().string());
  const std::filesystem::path file = folder.file("charrnn-test-corpus.txt", "to be or not");
  CHECK(find_corpus("charrnn-test-corpus.txt") == file);
  CHECK(Corpus::open(at("charrnn-test-corpus.txt")).source() == file.string());
  CHECK(find_corpus(file.string()) == file);
  CHECK_THROWS_AS(find_corpus("charrnn-no-such-corpus.txt"), DataError);
  CHECK_THROWS_WITH(find_corpus("charrnn-no-such-corpus.txt"),
                    Contains((std::filesystem::current_path() / "charrnn-no-such-corpus.txt").string()) &&
                        Contains((folder.path() / "charrnn-no-such-corpus.txt").string()) &&
                        Contains("tools/get-data"));
}

TEST_CASE("the data folder follows the XDG rules", "[data][corpus]") {
  const Environment home("HOME", "/home/somebody");
  SECTION("our own variable first") {
    const Environment own("CHARRNN_DATA", "/texts"), xdg("XDG_DATA_HOME", "/xdg");
    CHECK(data_folder() == "/texts");
  }
  const Environment own("CHARRNN_DATA", std::nullopt);
  SECTION("then XDG_DATA_HOME") {
    const Environment xdg("XDG_DATA_HOME", "/xdg");
    CHECK(data_folder() == "/xdg/charrnn");
  }
  SECTION("which is ignored where it is relative or empty") {
    const Environment xdg("XDG_DATA_HOME", GENERATE(as<std::string>(), "", "relative"));
    CHECK(data_folder() == "/home/somebody/.local/share/charrnn");
  }
  SECTION("then the home folder, which the system knows where the environment does not") {
    const Environment xdg("XDG_DATA_HOME", std::nullopt);
    CHECK(data_folder() == "/home/somebody/.local/share/charrnn");
    const Environment no_home("HOME", std::nullopt);
    CHECK(data_folder().string().ends_with(".local/share/charrnn"));
  }
}

TEST_CASE("a file that grows keeps the text that it had", "[data][corpus]") {
  const TempFolder folder;
  const std::filesystem::path file = folder.file("grows.txt", "first");
  const Corpus corpus = Corpus::open(at(file));
  std::ofstream(file, std::ios::app) << " and more";
  CHECK(corpus.text() == "first");
}

TEST_CASE("a file that is cut while it is indexed is refused", "[data][corpus]") {
  const TempFolder folder;
  const std::filesystem::path file = folder.file("cut.txt", "first text");
  CHECK_THROWS_WITH(Corpus::open(at(file), [&](double) { std::filesystem::resize_file(file, 4); }),
                    Contains("changed while it was read") && Contains("10 characters") && Contains("has 4 now"));
}

TEST_CASE("a file that shrinks later ends the process with exit code 3 and a message", "[data][corpus]") {
  const TempFolder folder;
  const std::filesystem::path first = folder.file("first.txt", std::string(100'000, 'a') + "b");
  const std::filesystem::path second = folder.file("second.txt", std::string(50'000, 'a') + "b");
  const ChildResult r = in_child([&] {
    const Corpus kept = Corpus::open(at(first));
    { const Corpus closed = Corpus::open(at(second)); }  // its place in the list of mappings is free again
    const Corpus cut = Corpus::open(at(second));
    std::filesystem::resize_file(second, 0);
    touch(kept.text().data() + 90'000);  // still there
    touch(cut.text().data() + 40'000);
    ::_exit(98);
  });
  CHECK(exited_with(r, 3));
  CHECK_THAT(r.output, Contains(second.string() + ": could not be read while in use") && Contains("50001 characters") &&
                           Contains("start again") && Catch::Matchers::EndsWith("\n"));
}

TEST_CASE("a bus error that is not ours is what it would be without us", "[data][corpus]") {
  const TempFolder folder;
  const std::filesystem::path ours = folder.file("ours.txt", "some text");
  const std::filesystem::path other = folder.file("other.txt", std::string(10'000, 'a'));
  const bool sent = GENERATE(false, true);
  const ChildResult r = in_child([&] {
    const Corpus corpus = Corpus::open(at(ours));
    if (sent) {
      ::raise(SIGBUS);
    } else {
      const int fd = ::open(other.c_str(), O_RDWR | O_CLOEXEC);
      void* const mapped = ::mmap(nullptr, 10'000, PROT_READ, MAP_SHARED, fd, 0);
      if (::ftruncate(fd, 0) == 0) touch(static_cast<const char*>(mapped) + 5000);
    }
    ::_exit(98);
  });
  CHECK_FALSE(exited_with(r, 3));
  CHECK_FALSE(exited_with(r, 98));
  CHECK(r.output.find("ours.txt") == std::string::npos);
#ifndef CHARRNN_SANITIZED  // a sanitizer's own handler is the one before ours
  CHECK(WIFSIGNALED(r.status));
  CHECK(WTERMSIG(r.status) == SIGBUS);
#endif
}

// Reads 5 GiB of zeros: on request only.
TEST_CASE("a file of 5 GiB is indexed", "[data][corpus][.slow]") {
  const TempFolder folder;
  const std::filesystem::path file = folder.file("sparse.txt", "");
  std::filesystem::resize_file(file, std::uintmax_t{5} << 30);
  std::fstream(file, std::ios::in | std::ios::out | std::ios::binary)
      .seekp((std::int64_t{5} << 30) - 7)
      .write("text", 4);
  const Corpus corpus = Corpus::open(at(file));
  CHECK(corpus.text().size() == std::size_t{5} << 30);
  CHECK(corpus.vocabulary() == Vocabulary::of(std::string_view("\0text", 5)));
}

}  // namespace
}  // namespace charrnn
