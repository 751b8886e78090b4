#include "io/files.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <system_error>
#include <utility>

#include "charrnn/error.h"

namespace charrnn {

namespace io::testing {
Fault (*before_syscall)(const char* call, const fs::path& path) = nullptr;
}

namespace {

std::string errno_text(int error) { return std::generic_category().message(error); }

/// Makes a call that returns -1 and sets errno on failure, again after EINTR. `bytes` is handed to it, or less.
template <class Call>
auto system_call(const char* name, const fs::path& path, std::size_t bytes, Call call) {
  using Result = decltype(call(bytes));
  while (true) {
    std::size_t now = bytes;
    if (io::testing::before_syscall != nullptr) {
      const io::testing::Fault fault = io::testing::before_syscall(name, path);
      if (fault.error == EINTR) continue;
      errno = fault.error;
      if (fault.error != 0) return Result{-1};
      if (fault.skip) return Result{0};
      now = std::min(bytes, fault.at_most);
    }
    const Result result = call(now);
    if (result >= 0 || errno != EINTR) return result;
  }
}

template <class Call>
int system_call(const char* name, const fs::path& path, Call call) {
  return system_call(name, path, 0, [&call](std::size_t) { return call(); });
}

/// @param bytes  what was to be written in all, 0 if it was not about bytes
[[noreturn]] void fail(const char* what, const fs::path& path, int error, std::uintmax_t bytes = 0) {
  std::string message = fmt::format("{}: cannot {}: {}", path.string(), what, errno_text(error));
  if (error == ENOSPC || error == EDQUOT) {
    struct statvfs space {};
    const fs::path parent = path.has_parent_path() ? path.parent_path() : fs::path(".");
    if (bytes > 0) message += fmt::format("; {} bytes are needed", bytes);
    if (error == ENOSPC && statvfs(parent.c_str(), &space) == 0) {
      message += fmt::format("{} {} are free on that file system", bytes > 0 ? "," : ";",
                             static_cast<std::uintmax_t>(space.f_bavail) * space.f_frsize);
    }
    message += ". Free some space there, or write elsewhere with --output";
  } else if (error == EROFS || error == EACCES || error == EPERM) {
    message += ". Make the folder writable, or write elsewhere with --output";
  }
  throw RunError(message);
}

class FileDescriptor {
 public:
  explicit FileDescriptor(int raw) noexcept : raw_(raw) {}
  FileDescriptor(const FileDescriptor&) = delete;
  FileDescriptor& operator=(const FileDescriptor&) = delete;
  ~FileDescriptor() {
    if (raw_ >= 0) ::close(raw_);
  }
  int get() const noexcept { return raw_; }
  int release() noexcept { return std::exchange(raw_, -1); }

 private:
  int raw_;
};

fs::path parent_of(const fs::path& path) { return path.has_parent_path() ? path.parent_path() : fs::path("."); }

std::string own_name(const fs::path& path) {  // of "a/b/" too
  return path.has_filename() ? path.filename().string() : path.parent_path().filename().string();
}

fs::path with_prefix(std::string_view prefix, const fs::path& path) {
  const fs::path plain = path.has_filename() ? path : path.parent_path();
  return plain.parent_path() / fmt::format("{}{}-{}", prefix, own_name(path), ::getpid());
}

void rename_path(const fs::path& from, const fs::path& to) {
  if (system_call("rename", to, [&] { return std::rename(from.c_str(), to.c_str()); }) != 0) {
    fail("rename to this", to, errno);
  }
}

/// Best effort: a file that cannot be removed is not worse than the error that is being reported.
void remove_quietly(const fs::path& path) noexcept {
  system_call("unlink", path, [&] { return ::unlink(path.c_str()); });
}

bool exists_somehow(const fs::path& path) {  // a dangling link is something too
  struct stat status {};
  return ::lstat(path.c_str(), &status) == 0;
}

/// Opens a regular file for reading. FIFOs and devices do not block: they are refused.
struct InputFile {
  FileDescriptor fd;
  std::uintmax_t size = 0;

  explicit InputFile(const fs::path& file) : fd(::open(file.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY)) {
    if (fd.get() < 0) {
      throw FormatError(fmt::format("{}: cannot be read: {}", file.string(), errno_text(errno)));
    }
    struct stat status {};
    if (::fstat(fd.get(), &status) != 0) {
      throw FormatError(fmt::format("{}: cannot be read: {}", file.string(), errno_text(errno)));
    }
    if (!S_ISREG(status.st_mode)) {
      throw FormatError(fmt::format("{}: is {}, expected a regular file", file.string(),
                                    S_ISDIR(status.st_mode) ? "a folder" : "a pipe or a device"));
    }
    size = static_cast<std::uintmax_t>(status.st_size);
  }
};

std::string read_bytes(const InputFile& in, const fs::path& file, std::uintmax_t bytes) {
  std::string content(bytes, '\0');
  std::size_t done = 0;
  while (done < content.size()) {
    const ssize_t n = ::read(in.fd.get(), content.data() + done, content.size() - done);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) throw FormatError(fmt::format("{}: cannot be read: {}", file.string(), errno_text(errno)));
    if (n == 0) {
      throw FormatError(fmt::format("{}: ends after {} bytes, expected {}: it changed while it was read", file.string(),
                                    done, content.size()));
    }
    done += static_cast<std::size_t>(n);
  }
  return content;
}

}  // namespace

fs::path temporary_name(const fs::path& path) { return with_prefix(kTemporaryPrefix, path); }
fs::path aside_name(const fs::path& path) { return with_prefix(kAsidePrefix, path); }

std::string original_name(std::string_view prefix, const std::string& name) {
  const std::size_t dash = name.rfind('-');
  if (!name.starts_with(prefix) || dash == std::string::npos || dash <= prefix.size()) return {};
  return name.substr(prefix.size(), dash - prefix.size());
}

void write_new_file(const fs::path& file, const std::vector<std::string_view>& pieces) {
  std::uintmax_t total = 0;
  for (const std::string_view piece : pieces) total += piece.size();
  FileDescriptor fd(system_call("open", file, [&file] {
    constexpr mode_t kMode = 0666;  // less the umask
    return ::open(file.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, kMode);
  }));
  if (fd.get() < 0) fail("create", file, errno, total);
  try {
    for (std::string_view piece : pieces) {
      while (!piece.empty()) {
        const ssize_t n =
            system_call("write", file, piece.size(), [&](std::size_t n) { return ::write(fd.get(), piece.data(), n); });
        if (n < 0) fail("write", file, errno, total);
        if (n == 0) fail("write", file, ENOSPC, total);  // POSIX leaves this open; a loop on it would not end
        piece.remove_prefix(static_cast<std::size_t>(n));
      }
    }
    // After a failed fsync the kernel may have dropped the pages: the file is given up, fsync is not tried again.
    if (system_call("fsync", file, [&fd] { return ::fsync(fd.get()); }) != 0) fail("fsync", file, errno, total);
    // Network file systems report a full disk or quota here. After EINTR Linux has closed it: close is made once.
    const int closed = ::close(fd.release());
    const int error = errno;
    const int injected = system_call("close", file, [] { return 0; });
    if (closed != 0 && error != EINTR) fail("close", file, error, total);
    if (injected != 0) fail("close", file, errno, total);
  } catch (...) {
    remove_quietly(file);
    throw;
  }
}

void sync_folder(const fs::path& folder) {
  const FileDescriptor fd(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (fd.get() < 0) fail("open", folder, errno);
  if (system_call("fsync", folder, [&fd] { return ::fsync(fd.get()); }) == 0) return;
  if (errno != EINVAL && errno != ENOTSUP) fail("fsync", folder, errno);  // those: a file system that needs none
}

void rename_durably(const fs::path& from, const fs::path& to) {
  rename_path(from, to);
  sync_folder(parent_of(to));
}

void replace_file(const fs::path& file, std::string_view content) {
  const fs::path temporary = temporary_name(file);
  if (exists_somehow(temporary)) remove_quietly(temporary);
  write_new_file(temporary, {content});
  try {
    rename_path(temporary, file);
  } catch (...) {
    remove_quietly(temporary);
    throw;
  }
  sync_folder(parent_of(file));
}

void replace_symlink(const fs::path& link, const fs::path& target) {
  const fs::path temporary = temporary_name(link);
  if (exists_somehow(temporary)) remove_quietly(temporary);
  if (system_call("symlink", link, [&] { return ::symlink(target.c_str(), temporary.c_str()); }) != 0) {
    fail("make this link", link, errno);
  }
  try {
    rename_path(temporary, link);
  } catch (...) {
    remove_quietly(temporary);
    throw;
  }
  sync_folder(parent_of(link));
}

void make_folder(const fs::path& folder) {
  constexpr mode_t kMode = 0777;  // less the umask
  if (system_call("mkdir", folder, [&] { return ::mkdir(folder.c_str(), kMode); }) != 0) fail("make", folder, errno);
}

void make_folders(const fs::path& folder) {
  std::vector<fs::path> missing;
  for (fs::path p = folder.has_filename() ? folder : folder.parent_path(); !p.empty(); p = p.parent_path()) {
    struct stat status {};
    if (::stat(p.c_str(), &status) == 0) {
      if (!S_ISDIR(status.st_mode)) fail("make a folder of", p, ENOTDIR);
      break;
    }
    if (errno != ENOENT) fail("look into", p, errno);
    missing.push_back(p);
  }
  while (!missing.empty()) {
    constexpr mode_t kMode = 0777;
    const fs::path& p = missing.back();
    if (system_call("mkdir", p, [&p] { return ::mkdir(p.c_str(), kMode); }) != 0) {
      const int error = errno;
      struct stat status {};  // made by somebody else meanwhile, or a dangling link
      if (error != EEXIST || ::stat(p.c_str(), &status) != 0 || !S_ISDIR(status.st_mode)) fail("make", p, error);
    }
    sync_folder(parent_of(p));
    missing.pop_back();
  }
}

void replace_folder(const fs::path& fresh, const fs::path& folder) {
  if (!exists_somehow(folder)) return rename_durably(fresh, folder);
  const int exchanged = system_call("exchange", folder, [&] {
    return ::renameat2(AT_FDCWD, fresh.c_str(), AT_FDCWD, folder.c_str(), RENAME_EXCHANGE);
  });
  if (exchanged == 0) {
    sync_folder(parent_of(folder));
    remove_folder(fresh);
    return;
  }
  if (errno != EINVAL && errno != ENOSYS && errno != ENOTSUP) fail("replace", folder, errno);
  const fs::path aside = aside_name(folder);  // the file system cannot exchange
  remove_folder(aside);
  rename_durably(folder, aside);
  try {
    rename_durably(fresh, folder);
  } catch (...) {
    if (!exists_somehow(folder)) static_cast<void>(std::rename(aside.c_str(), folder.c_str()));
    throw;
  }
  remove_folder(aside);
}

bool remove_folder(const fs::path& folder) noexcept {
  try {
    if (!exists_somehow(folder)) return true;
    fs::path doomed = folder;
    const std::string name = own_name(folder);
    if (!name.starts_with(kTemporaryPrefix) && !name.starts_with(kAsidePrefix)) {
      doomed = temporary_name(folder);
      if (!remove_folder(doomed)) return false;
      rename_path(folder, doomed);
    }
    std::error_code error;
    if (fs::is_directory(fs::symlink_status(doomed, error))) {
      std::vector<fs::path> entries;
      for (fs::directory_iterator i(doomed, error), end; !error && i != end; i.increment(error)) {
        entries.push_back(i->path());
      }
      for (const fs::path& entry : entries) {
        if (fs::is_directory(fs::symlink_status(entry, error))) {
          fs::remove_all(entry, error);  // none of ours
        } else {
          remove_quietly(entry);
        }
      }
      return system_call("rmdir", doomed, [&] { return ::rmdir(doomed.c_str()); }) == 0;
    }
    remove_quietly(doomed);
    return !exists_somehow(doomed);
  } catch (const std::exception&) {
    return false;
  }
}

std::string read_file(const fs::path& file, std::uintmax_t limit_bytes) {
  const InputFile in(file);
  if (in.size > limit_bytes) {
    throw FormatError(fmt::format("{}: has {} bytes, expected at most {}", file.string(), in.size, limit_bytes));
  }
  return read_bytes(in, file, in.size);
}

FileStart read_start(const fs::path& file, std::uintmax_t bytes) {
  const InputFile in(file);
  return {read_bytes(in, file, std::min(in.size, bytes)), in.size};
}

}  // namespace charrnn
