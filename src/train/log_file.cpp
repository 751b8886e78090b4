#include "train/log_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "charrnn/error.h"

namespace charrnn {

LogFile::LogFile(std::filesystem::path file) : file_(std::move(file)) {
  fd_ = open(file_.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
  if (fd_ < 0) throw RunError(file_.string() + ": cannot open for appending: " + std::strerror(errno));
  struct stat status {};
  if (fstat(fd_, &status) == 0) size_ = status.st_size;
}

LogFile::~LogFile() {
  static_cast<void>(flush());
  close(fd_);
}

bool LogFile::append(std::string_view text) {
  pending_ += text;
  return flush();
}

bool LogFile::flush() {
  while (!pending_.empty()) {
    const ssize_t written = write(fd_, pending_.data(), pending_.size());
    if (written < 0) {
      if (errno == EINTR) continue;
      return false;
    }
    pending_.erase(0, static_cast<std::size_t>(written));
    size_ += written;
  }
  return true;
}

void LogFile::sync() {
  if (!flush() || fsync(fd_) != 0) {
    throw RunError(file_.string() + ": cannot write: " + std::strerror(errno));
  }
}

}  // namespace charrnn
