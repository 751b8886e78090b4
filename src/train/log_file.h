// A log that only grows. A write that fails is kept and tried again with the next, so that a full disk for a while
// loses no line.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

namespace charrnn {

class LogFile {
 public:
  /// Opens for appending. @throws RunError
  explicit LogFile(std::filesystem::path file);
  ~LogFile();
  LogFile(const LogFile&) = delete;
  LogFile& operator=(const LogFile&) = delete;

  /// False if the text (and what was pending) could not be written yet.
  bool append(std::string_view text);
  /// Writes what is pending and fsyncs. @throws RunError if that fails
  void sync();
  std::int64_t size() const { return size_; }  // bytes, once sync() has returned

 private:
  bool flush();

  std::filesystem::path file_;
  std::string pending_;
  std::int64_t size_ = 0;
  int fd_ = -1;
};

}  // namespace charrnn
