#include "data/corpus.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <pwd.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <system_error>
#include <utility>
#include <vector>

#include "charrnn/error.h"
#include "io/sha256.h"

namespace charrnn {
namespace {

std::string reason(int error) { return std::generic_category().message(error); }

// A file that is cut shorter while it is mapped leaves pages with nothing behind them: touching one raises SIGBUS, and
// so does a disk that fails. No exception can leave a signal handler, and there is no text to go on with: the handler
// writes a message that was prepared when the file was mapped and ends the process. It knows our mappings by a list
// that only grows; free places in it are used again, so that the handler may walk it without a lock.
struct Guard {
  std::atomic<std::uintptr_t> begin{0}, end{0};  // begin 0: free
  std::atomic<const char*> message{nullptr};
  std::atomic<std::size_t> message_bytes{0};
  Guard* next = nullptr;
};

std::atomic<Guard*> guards{nullptr};
struct sigaction previous_action;

void on_bus_error(int signal, siginfo_t* info, void*) {
  if (info->si_code > 0) {  // a fault, not a signal that another process sent: only then si_addr means something
    const auto address = reinterpret_cast<std::uintptr_t>(info->si_addr);
    for (const Guard* g = guards.load(std::memory_order_acquire); g != nullptr; g = g->next) {
      const std::uintptr_t begin = g->begin.load(std::memory_order_acquire);
      if (begin == 0 || address < begin || address >= g->end.load(std::memory_order_relaxed)) continue;
      const char* message = g->message.load(std::memory_order_relaxed);
      std::size_t left = g->message_bytes.load(std::memory_order_relaxed);
      while (left > 0) {
        const ssize_t n = ::write(STDERR_FILENO, message, left);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) break;
        message += n;
        left -= static_cast<std::size_t>(n);
      }
      ::_exit(static_cast<int>(ExitCode::kData));
    }
  }
  // Not ours: as if this handler were not there. A fault happens again when the instruction is tried again.
  ::sigaction(SIGBUS, &previous_action, nullptr);
  if (info->si_code <= 0) ::raise(signal);
}

Guard* add_guard(std::uintptr_t begin, std::size_t bytes, const std::string& message) {
  static std::mutex mutex;
  const std::lock_guard lock(mutex);
  static const bool installed = [] {
    struct sigaction action {};
    action.sa_sigaction = on_bus_error;
    action.sa_flags = SA_SIGINFO;
    sigemptyset(&action.sa_mask);
    return ::sigaction(SIGBUS, &action, &previous_action) == 0;
  }();
  static_cast<void>(installed);  // it fails only for a signal number that does not exist
  Guard* g = guards.load(std::memory_order_relaxed);
  while (g != nullptr && g->begin.load(std::memory_order_relaxed) != 0) g = g->next;
  if (g == nullptr) {
    g = new Guard;  // lives as long as the process, reachable from `guards`
    g->next = guards.load(std::memory_order_relaxed);
    guards.store(g, std::memory_order_release);
  }
  g->message.store(message.data(), std::memory_order_relaxed);
  g->message_bytes.store(message.size(), std::memory_order_relaxed);
  g->end.store(begin + bytes, std::memory_order_relaxed);
  g->begin.store(begin, std::memory_order_release);
  return g;
}

/// Throws what is wrong with a file of this kind, if anything.
void check_kind(const std::string& name, const struct stat& status) {
  const char* kind = S_ISREG(status.st_mode)    ? nullptr
                     : S_ISDIR(status.st_mode)  ? "a directory"
                     : S_ISFIFO(status.st_mode) ? "a named pipe (FIFO)"
                     : S_ISCHR(status.st_mode)  ? "a character device"
                     : S_ISBLK(status.st_mode)  ? "a block device"
                     : S_ISSOCK(status.st_mode) ? "a socket"
                                                : "not a file";
  if (kind == nullptr) return;
  throw DataError(fmt::format("{}: is {}, expected a regular file, which can be mapped into memory; {}", name, kind,
                              S_ISDIR(status.st_mode) ? "name a text file in it, or join its files into one (cat)"
                                                      : "copy what it yields to a file and name that"));
}

[[noreturn]] void refuse_missing(const std::string& name) {
  throw DataError(
      fmt::format("{}: there is no such file, expected a text; check the path, or fetch one of the known "
                  "texts with tools/get-data",
                  name));
}

[[noreturn]] void refuse_unreadable(const std::string& name, int error) {
  throw DataError(fmt::format("{}: cannot be read ({}); check the permissions of the file and of the folders above it",
                              name, reason(error)));
}

void check_length(const std::string& name, std::int64_t characters) {
  if (characters >= 2) return;
  throw DataError(
      characters == 0
          ? fmt::format("{}: is empty, expected a text of at least 2 characters; give it some text", name)
          : fmt::format("{}: has 1 character, expected at least 2: there is nothing to predict; give it more "
                        "text",
                        name));
}

class FileDescriptor {
 public:
  explicit FileDescriptor(int fd) noexcept : fd_(fd) {}
  FileDescriptor(const FileDescriptor&) = delete;
  FileDescriptor& operator=(const FileDescriptor&) = delete;
  FileDescriptor(FileDescriptor&& o) noexcept : fd_(std::exchange(o.fd_, -1)) {}
  ~FileDescriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  FileDescriptor& operator=(FileDescriptor&& o) noexcept {
    std::swap(fd_, o.fd_);
    return *this;
  }
  int get() const noexcept { return fd_; }

 private:
  int fd_;
};

std::filesystem::path absolute_path(const std::filesystem::path& file) {
  const std::filesystem::path path = std::filesystem::absolute(file);
  // "a/../b" is not "b" where a is a symbolic link: such a path stays as it is.
  const bool climbs = std::any_of(path.begin(), path.end(), [](const auto& part) { return part == ".."; });
  return climbs ? path : path.lexically_normal();
}

std::string environment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

/// stat(2): whether there is something. Throws where that cannot be told.
bool is_there(const std::filesystem::path& path) {
  struct stat status {};
  if (::stat(path.c_str(), &status) == 0) return true;
  if (errno != ENOENT && errno != ENOTDIR) refuse_unreadable(path.string(), errno);
  return false;
}

}  // namespace

class Corpus::Mapping {
 public:
  /// `name` stands for the file in messages.
  explicit Mapping(const std::string& name) : name_(name) {
    struct stat status {};
    // Looked at before it is opened: opening a FIFO waits for a writer, opening a device may do things.
    if (::stat(name.c_str(), &status) != 0) {
      if (errno == ENOENT || errno == ENOTDIR) refuse_missing(name);
      refuse_unreadable(name, errno);
    }
    check_kind(name, status);
    file_ = FileDescriptor(::open(name.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
    if (file_.get() < 0 || ::fstat(file_.get(), &status) != 0) refuse_unreadable(name, errno);
    check_kind(name, status);
    check_length(name, status.st_size);
    size_ = static_cast<std::size_t>(status.st_size);
    // Shared, so that no page can ever become private to this process.
    void* const address = ::mmap(nullptr, size_, PROT_READ, MAP_SHARED, file_.get(), 0);
    if (address == MAP_FAILED) {
      throw DataError(
          fmt::format("{}: its {} bytes cannot be mapped into memory ({}); copy it to a local disk, or raise "
                      "the limit on address space (ulimit -v)",
                      name, size_, reason(errno)));
    }
    data_ = static_cast<const char*>(address);
    message_ = fmt::format(
        "error: {}: could not be read while in use: it was cut shorter than the {} characters that it "
        "had at the start, or the disk failed; put the text back and start again: the run goes on from "
        "its last checkpoint\n",
        name, size_);
    guard_ = add_guard(reinterpret_cast<std::uintptr_t>(data_), size_, message_);
  }
  ~Mapping() {
    ::munmap(const_cast<char*>(data_), size_);
    guard_->begin.store(0, std::memory_order_release);
  }
  Mapping(const Mapping&) = delete;
  Mapping& operator=(const Mapping&) = delete;

  std::string_view text() const noexcept { return {data_, size_}; }
  void advise(int advice) const noexcept {
    static_cast<void>(::madvise(const_cast<char*>(data_), size_, advice));  // only a hint: refused, it costs time
  }

  /// A file that was cut while it was indexed is better told now than by SIGBUS later.
  void check_size() const {
    struct stat status {};
    if (::fstat(file_.get(), &status) != 0 || static_cast<std::size_t>(status.st_size) >= size_) return;
    throw DataError(
        fmt::format("{}: changed while it was read: it had {} characters at the start and has {} now; wait "
                    "until it is written, then start again",
                    name_, size_, status.st_size));
  }

 private:
  std::string name_;
  std::string message_;
  FileDescriptor file_{-1};  // kept: it stays this file's when the name is given to another
  const char* data_ = nullptr;
  std::size_t size_ = 0;
  Guard* guard_ = nullptr;
};

std::string_view Corpus::text() const noexcept {
  if (mapping_) return mapping_->text();
  return owned_ ? std::string_view(*owned_) : std::string_view();
}

void Corpus::index(const Progress& progress) {
  constexpr std::size_t kChunk = std::size_t{4} << 20;  // read once from memory for the hash, again from the cache
  const std::string_view all = text();
  Sha256 hash;
  std::array<bool, 256> seen{};
  for (std::size_t done = 0; done < all.size();) {
    const std::string_view chunk = all.substr(done, kChunk);
    hash.update(chunk);
    for (const char c : chunk) seen[static_cast<std::uint8_t>(c)] = true;
    done += chunk.size();
    if (progress) progress(static_cast<double>(done) / static_cast<double>(all.size()));
  }
  sha256_ = hash.hex();
  vocabulary_ = Vocabulary::of(seen);
}

Corpus open_text_file(const std::filesystem::path& file, const Progress& progress) {
  // Such a path would end at the NUL byte for the system, and name another file than the one that was meant.
  if (file.native().find('\0') != std::string::npos) {
    throw DataError(fmt::format("{}: the path of the text has a NUL byte in it, expected the path of a file",
                                file.native().c_str()));
  }
  if (file.empty()) throw DataError("the path of the text is empty, expected the path of a file");
  Corpus corpus;
  corpus.source_ = absolute_path(file).string();
  auto mapping = std::make_shared<const Corpus::Mapping>(corpus.source_);
  corpus.mapping_ = mapping;
  mapping->advise(MADV_SEQUENTIAL);
  corpus.index(progress);
  // Training reads in B places, but forwards in each: the usual read-ahead serves that, and MADV_RANDOM would turn it
  // off.
  mapping->advise(MADV_NORMAL);
  mapping->check_size();
  return corpus;
}

Corpus Corpus::open(const CorpusConfig& config, const Progress& progress) {
  Corpus corpus;
  if (config.text) {
    corpus.source_ = "text in the config";
    check_length(corpus.source_, static_cast<std::int64_t>(config.text->size()));
    corpus.owned_ = std::make_shared<const std::string>(*config.text);
    corpus.index(progress);
  } else {
    corpus = open_text_file(find_corpus(config.path), progress);
  }
  if (corpus.vocabulary_.size() < 2) {
    throw DataError(
        fmt::format("{}: all its {} characters are {}, expected at least 2 distinct ones: there is nothing to "
                    "learn; give it another text",
                    corpus.source_, corpus.text().size(), printable(corpus.vocabulary_.byte(0))));
  }
  return corpus;
}

std::filesystem::path data_folder() {
  if (const std::string own = environment("CHARRNN_DATA"); !own.empty()) return own;
  // The XDG rules say that a relative path there is to be ignored.
  if (const std::filesystem::path xdg = environment("XDG_DATA_HOME"); xdg.is_absolute()) return xdg / "charrnn";
  std::filesystem::path home = environment("HOME");
  if (home.empty()) {
    std::vector<char> buffer(1 << 14);
    passwd entry{};
    passwd* found = nullptr;
    if (::getpwuid_r(::getuid(), &entry, buffer.data(), buffer.size(), &found) == 0 && found != nullptr) {
      home = found->pw_dir;
    }
  }
  return home / ".local" / "share" / "charrnn";
}

std::filesystem::path find_corpus(const std::string& path) {
  if (path.empty() || path.find('\0') != std::string::npos) return path;  // open_text_file says what is wrong with it
  if (is_there(path)) return path;
  if (std::filesystem::path(path).is_absolute()) refuse_missing(path);
  std::filesystem::path in_folder = data_folder() / path;
  if (is_there(in_folder)) return in_folder;
  throw DataError(
      fmt::format("{}: there is no such file here ({}) nor in the data folder ({}), expected a text; check "
                  "corpus.path, or fetch one of the known texts with tools/get-data",
                  path, absolute_path(path).string(), in_folder.string()));
}

}  // namespace charrnn
