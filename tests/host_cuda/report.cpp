#include "host_cuda/report.h"

#include <dlfcn.h>
#include <fmt/format.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <map>
#include <set>
#include <utility>

namespace host_cuda {

namespace {

constexpr std::size_t kMost = 200;  // more say nothing new

struct Findings {
  std::vector<Report> reports;
  std::set<std::pair<std::string, std::string>> seen;
  std::map<const void*, std::string> lines;  // asking for one starts a process
  std::int64_t calls = 0;
  Settings settings = settings_from_environment();
};

Findings& findings() {
  static auto* const only = new Findings;
  return *only;
}

/// What nobody took must not pass.
struct AtEnd {
  ~AtEnd() {
    const auto left = take_reports();
    if (left.empty()) return;
    std::fprintf(stderr, "host_cuda: %zu findings\n", left.size());
    for (const Report& one : left) std::fprintf(stderr, "  %s: %s\n", one.kind.c_str(), one.text.c_str());
    std::fflush(nullptr);
    _exit(86);
  }
} at_end;

void add(const std::string& kind, const std::string& text, const std::string& place) {
  const std::lock_guard held(lock());
  auto& all = findings();
  if (all.reports.size() >= kMost || !all.seen.emplace(kind, place).second) return;
  all.reports.push_back({kind, text});
}

std::string asked_of_addr2line(const char* file, std::uintptr_t offset) {
  const std::string command = fmt::format("addr2line -s -e '{}' {:#x} 2>/dev/null", file, offset);
  std::string line;
  if (FILE* out = popen(command.c_str(), "r"); out != nullptr) {
    char buffer[512];
    while (std::fgets(buffer, sizeof buffer, out) != nullptr) line += buffer;
    pclose(out);
  }
  line = line.substr(0, line.find_first_of("\n ("));
  return line.empty() || line[0] == '?' ? std::string() : line;
}

}  // namespace

std::recursive_mutex& lock() {
  static auto* const only = new std::recursive_mutex;
  return *only;
}

Settings& settings() { return findings().settings; }

std::string source_line(const void* instruction) {
  auto& known = findings().lines;
  if (const auto at = known.find(instruction); at != known.end()) return at->second;
  std::string line;
  if (Dl_info module{}; dladdr(instruction, &module) != 0 && module.dli_fname != nullptr) {
    // One back: a return address may belong to the next line already.
    const auto offset =
        reinterpret_cast<std::uintptr_t>(instruction) - reinterpret_cast<std::uintptr_t>(module.dli_fbase) - 1;
    line = asked_of_addr2line(module.dli_fname, offset);
  }
  if (line.empty()) line = fmt::format("{}", instruction);
  known[instruction] = line;
  return line;
}

void report(const std::string& kind, const std::string& text) { add(kind, text, text); }

void report_at(const char* kind, const std::string& text, const void* instruction) {
  const std::string line = source_line(instruction);
  add(kind, fmt::format("{}: {}", line, text), line);
}

std::vector<Report> take_reports() {
  const std::lock_guard held(lock());
  findings().seen.clear();
  return std::exchange(findings().reports, {});
}

void reset_reports() {
  findings().reports.clear();
  findings().seen.clear();
  findings().calls = 0;
}

bool call_must_fail(const char* /*function*/) {
  const std::lock_guard held(lock());
  return ++findings().calls == findings().settings.fail_at;
}

std::int64_t calls() {
  const std::lock_guard held(lock());
  return findings().calls;
}

Settings settings_from_environment() {
  Settings result;
  const auto number = [](const char* name, auto& value) {
    if (const char* text = std::getenv(name); text != nullptr) {
      value = static_cast<std::decay_t<decltype(value)>>(std::strtoull(text, nullptr, 10));
    }
  };
  number("HOST_CUDA_SEED", result.seed);
  number("HOST_CUDA_MEMORY", result.memory_bytes);
  number("HOST_CUDA_DEVICES", result.devices);
  number("HOST_CUDA_FAIL_AT", result.fail_at);
  int check = 1;
  number("HOST_CUDA_CHECK", check);
  result.check = check != 0;
  int sticky = 0;
  number("HOST_CUDA_STICKY", sticky);
  result.sticky = sticky != 0;
  if (const char* text = std::getenv("HOST_CUDA_COMPUTE"); text != nullptr) {
    std::sscanf(text, "%d.%d", &result.compute_major, &result.compute_minor);
  }
  return result;
}

}  // namespace host_cuda
