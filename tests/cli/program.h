// Runs the real program as a user would, in a folder of its own.
#pragma once

#include <fcntl.h>
#include <pty.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <utility>
#include <vector>

#include "cli/matchers.h"
#include "support/catch.h"
#include "support/temp_folder.h"

namespace charrnn::testing {

namespace fs = std::filesystem;

inline std::string slurp(const fs::path& file) {
  std::ifstream in(file, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

inline void spill(const fs::path& file, const std::string& content) {
  std::ofstream(file, std::ios::binary) << content;
}

struct Outcome {
  int code = -1;    // exit code; 1000 + number if a signal killed it
  std::string out;  // stdout
  std::string err;  // stderr
};

/// A folder that is removed with this object, and programs run in it.
class Workplace {
 public:
  Workplace() {
    fs::create_directory(root_ / "work");
    set("CHARRNN_CONFIGS", "");
    set("CHARRNN_CUDA_LIBRARY", "");
    set("CHARRNN_DATA", (root_ / "data").string());
    set("NO_COLOR", "");
    set("CLICOLOR_FORCE", "");
  }
  fs::path path(const std::string& name) const { return root_ / "work" / name; }
  void set(const std::string& variable, const std::string& value) { environment_.emplace_back(variable, value); }

  Outcome run(std::vector<std::string> arguments, const std::string& program = CHARRNN_PROGRAM) {
    return wait(start(std::move(arguments), program));
  }

  /// Starts the program; stdout goes to `out_file` if one is named.
  pid_t start(std::vector<std::string> arguments, const std::string& program = CHARRNN_PROGRAM,
              const std::string& out_file = "") {
    arguments.insert(arguments.begin(), program);
    std::vector<char*> argv;
    for (std::string& argument : arguments) argv.push_back(argument.data());
    argv.push_back(nullptr);
    const std::string out = out_file.empty() ? (root_ / "out").string() : out_file;
    const std::string err = (root_ / "err").string();
    const std::string work = (root_ / "work").string();
    const pid_t child = fork();
    REQUIRE(child >= 0);
    if (child == 0) {
      for (const auto& [name, value] : environment_) setenv(name.c_str(), value.c_str(), 1);
      const int out_fd = open(out.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
      const int err_fd = open(err.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
      if (out_fd < 0 || err_fd < 0 || dup2(out_fd, STDOUT_FILENO) < 0 || dup2(err_fd, STDERR_FILENO) < 0) _exit(126);
      if (chdir(work.c_str()) != 0) _exit(126);
      execv(program.c_str(), argv.data());
      _exit(127);
    }
    return child;
  }

  Outcome wait(pid_t child) {
    int status = 0;
    REQUIRE(waitpid(child, &status, 0) == child);
    Outcome outcome;
    outcome.code = WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
    outcome.out = slurp(root_ / "out");
    outcome.err = slurp(root_ / "err");
    return outcome;
  }

  /// Runs the program with a terminal of 100 columns for stdin, stdout and stderr; all that it shows is in `out`.
  Outcome run_on_terminal(std::vector<std::string> arguments) {
    const std::string program = CHARRNN_PROGRAM;
    arguments.insert(arguments.begin(), program);
    std::vector<char*> argv;
    for (std::string& argument : arguments) argv.push_back(argument.data());
    argv.push_back(nullptr);
    const std::string work = (root_ / "work").string();
    winsize size{};
    size.ws_row = 30;
    size.ws_col = 100;
    int terminal = -1;
    const pid_t child = forkpty(&terminal, nullptr, nullptr, &size);
    REQUIRE(child >= 0);
    if (child == 0) {
      for (const auto& [name, value] : environment_) setenv(name.c_str(), value.c_str(), 1);
      setenv("TERM", "xterm", 1);
      if (chdir(work.c_str()) == 0) execv(program.c_str(), argv.data());
      _exit(127);
    }
    Outcome outcome;
    char buffer[4096];
    for (ssize_t n = 0;
         (n = read(terminal, buffer, sizeof buffer)) > 0;) {  // fails with EIO when the program has ended
      outcome.out.append(buffer, static_cast<std::size_t>(n));
    }
    close(terminal);
    int status = 0;
    REQUIRE(waitpid(child, &status, 0) == child);
    outcome.code = WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
    return outcome;
  }

 private:
  tests::TempFolder folder_;
  fs::path root_ = fs::canonical(folder_.path());
  std::vector<std::pair<std::string, std::string>> environment_;
};

}  // namespace charrnn::testing
