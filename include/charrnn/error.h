// Errors as types. Each carries the exit code that the command line returns for it (README, "Exit codes").
#pragma once

#include <stdexcept>
#include <string>

namespace charrnn {

enum class ExitCode : int {
  kOk = 0,
  kRuntime = 1,        // the run failed: numerics, disk full, a failed write
  kUsage = 2,          // command line or config
  kData = 3,           // text or checkpoint
  kDevice = 4,         // device, or a precision that it lacks
  kRequeue = 75,       // saved, asks to be run again
  kInterrupted = 130,  // SIGINT, after saving
  kTerminated = 143,   // SIGTERM, after saving
};

/// Base of everything this library throws. The message says what, where, what was expected and what to do next.
class Error : public std::runtime_error {
 public:
  Error(ExitCode code, const std::string& message) : std::runtime_error(message), code_(code) {}
  ExitCode code() const noexcept { return code_; }

 private:
  ExitCode code_;
};

struct RunError : Error {  // 1: the run cannot go on
  explicit RunError(const std::string& m) : Error(ExitCode::kRuntime, m) {}
};
struct ConfigError : Error {  // 2: command line, config, a folder that is in use
  explicit ConfigError(const std::string& m) : Error(ExitCode::kUsage, m) {}
};
struct DataError : Error {  // 3: text that cannot be used, a character outside the vocabulary
  explicit DataError(const std::string& m) : Error(ExitCode::kData, m) {}
};
struct FormatError : Error {  // 3: a checkpoint that is malformed, incomplete or does not belong here
  explicit FormatError(const std::string& m) : Error(ExitCode::kData, m) {}
};
struct DeviceError : Error {  // 4: device missing, out of memory, precision missing
  explicit DeviceError(const std::string& m) : Error(ExitCode::kDevice, m) {}
};
struct ShapeError : Error {  // 1: a caller of the library passed sizes that do not fit together
  explicit ShapeError(const std::string& m) : Error(ExitCode::kRuntime, m) {}
};

}  // namespace charrnn
