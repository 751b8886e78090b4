#include "cpu/memory.h"

#include <algorithm>
#include <fstream>
#include <limits>

#include "charrnn/error.h"

namespace charrnn::cpu {

namespace {

constexpr std::size_t kUnlimited = std::numeric_limits<std::size_t>::max();

/// The number in a one-line file of the control group's file system; kUnlimited where there is none ("max", no file).
std::size_t number_in(const char* file) {
  std::size_t value = 0;
  std::ifstream in(file);
  return in >> value ? value : kUnlimited;
}

std::size_t available_to_system() {
  std::ifstream file("/proc/meminfo");
  for (std::string name; file >> name;) {
    std::size_t kibibytes = 0;
    if (name == "MemAvailable:" && file >> kibibytes) return kibibytes << 10;
    file.ignore(std::numeric_limits<std::streamsize>::max(), '\n');
  }
  return kUnlimited;
}

}  // namespace

std::size_t available_memory() {
  const std::size_t limit = number_in("/sys/fs/cgroup/memory.max"), used = number_in("/sys/fs/cgroup/memory.current");
  const std::size_t in_group = limit == kUnlimited || used == kUnlimited ? kUnlimited : limit - std::min(limit, used);
  return std::min(in_group, available_to_system());
}

void require_memory(std::size_t bytes, const std::string& what) {
  const std::size_t available = available_memory();
  if (bytes <= available) return;
  throw DeviceError("cpu: " + what + " needs " + std::to_string(bytes >> 20) + " MiB, and " +
                    std::to_string(available >> 20) +
                    " MiB are available; make model.hidden, train.batch or train.sequence smaller");
}

}  // namespace charrnn::cpu
