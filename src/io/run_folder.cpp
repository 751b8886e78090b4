#include "io/run_folder.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <climits>
#include <cstring>
#include <map>
#include <system_error>
#include <utility>

#include "charrnn/error.h"
#include "io/files.h"

namespace charrnn {

namespace {

constexpr std::string_view kStepPrefix = "step-";
constexpr const char* kCheckpoints = "checkpoints";
constexpr const char* kLatest = "latest";
constexpr const char* kBest = "best";

std::string errno_text(int error) { return std::generic_category().message(error); }

std::string step_name(std::int64_t step) { return fmt::format("{}{:08}", kStepPrefix, step); }

/// The step of a name step-NNNNNNNN, or -1. Only names that step_name would give.
std::int64_t step_of(const std::string& name) {
  if (!name.starts_with(kStepPrefix)) return -1;
  std::int64_t step = -1;
  const char* end = name.data() + name.size();
  const auto [at, error] = std::from_chars(name.data() + kStepPrefix.size(), end, step);
  return error == std::errc() && at == end && step >= 0 && step_name(step) == name ? step : -1;
}

std::vector<fs::path> entries_of(const fs::path& folder) {
  std::vector<fs::path> entries;
  std::error_code error;
  for (fs::directory_iterator i(folder, error), end; !error && i != end; i.increment(error))
    entries.push_back(i->path());
  std::sort(entries.begin(), entries.end());
  return entries;
}

/// The step that a link in the run's root points at, or -1.
std::int64_t step_of_link(const fs::path& link) {
  std::error_code error;
  const fs::path target = fs::read_symlink(link, error);
  return error ? -1 : step_of(target.filename().string());
}

fs::path link_target(std::int64_t step) { return fs::path(kCheckpoints) / step_name(step); }

std::string host_and_pid() {
  std::array<char, HOST_NAME_MAX + 1> host{};
  if (::gethostname(host.data(), host.size() - 1) != 0) std::strcpy(host.data(), "unknown");
  return fmt::format("{}:{}", host.data(), ::getpid());
}

void remove_link(const fs::path& link) {
  std::error_code error;
  if (!fs::remove(link, error) && error) {
    throw RunError(fmt::format("{}: cannot be removed: {}", link.string(), error.message()));
  }
}

/// Complete as far as can be seen without reading it all; for what rotation counts.
bool looks_complete(const fs::path& checkpoint) {
  try {
    static_cast<void>(peek_checkpoint(checkpoint));
    return true;
  } catch (const Error&) {
    return false;
  }
}

}  // namespace

RunFolder::RunFolder(std::filesystem::path root) : root_(std::move(root)) {
  if (root_.empty()) throw ConfigError("run.dir is empty, expected a folder");
  make_folders(root_ / kCheckpoints);
  const fs::path lock = root_ / "lock";
  constexpr mode_t kMode = 0666;
  lock_fd_ = ::open(lock.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, kMode);
  if (lock_fd_ < 0) {
    throw RunError(
        fmt::format("{}: cannot open the lock: {}. Make the folder writable, or write elsewhere with --output",
                    lock.string(), errno_text(errno)));
  }
  while (::flock(lock_fd_, LOCK_EX | LOCK_NB) != 0) {
    const int error = errno;
    if (error == EINTR) continue;
    std::array<char, 320> content{};
    const ssize_t n = ::pread(lock_fd_, content.data(), content.size() - 1, 0);
    ::close(std::exchange(lock_fd_, -1));
    if (error != EWOULDBLOCK) {
      throw RunError(fmt::format("{}: cannot be locked: {}; write to a file system that has locks, with --output",
                                 lock.string(), errno_text(error)));
    }
    std::string holder(content.data(), n > 0 ? static_cast<std::size_t>(n) : 0);
    holder.erase(std::find(holder.begin(), holder.end(), '\n'), holder.end());
    throw ConfigError(
        fmt::format("{}: is in use by another run{}; wait for it to end, or choose another folder with "
                    "--output",
                    root_.string(), holder.empty() ? "" : fmt::format(" ({})", holder)));
  }
  const std::string holder = host_and_pid() + "\n";
  // Only a help for messages: without it, on a full disk say, the lock holds all the same.
  if (::ftruncate(lock_fd_, 0) == 0) {
    static_cast<void>(::pwrite(lock_fd_, holder.data(), holder.size(), 0) != 0);
  }
}

RunFolder::~RunFolder() {
  if (lock_fd_ < 0) return;
  // The file stays: to remove it would let a third run lock a new one while a second waits on the old.
  static_cast<void>(::ftruncate(lock_fd_, 0) != 0);
  ::close(lock_fd_);
}

std::filesystem::path RunFolder::checkpoint_folder(std::int64_t step) const { return root_ / link_target(step); }

bool RunFolder::holds_run() const {
  std::error_code error;
  const std::uintmax_t bytes = fs::file_size(metrics_file(), error);
  return (!error && bytes > 0) || !list_checkpoints(root_).empty();
}

std::optional<std::filesystem::path> RunFolder::newest_good(std::vector<std::string>& notes) const {
  const auto all = list_checkpoints(root_);
  for (auto i = all.rbegin(); i != all.rend(); ++i) {
    try {
      static_cast<void>(load_checkpoint(i->second, LoadState::kYes));
      return i->second;
    } catch (const FormatError& error) {
      notes.push_back(fmt::format("the checkpoint of step {} is passed over: {}", i->first, error.what()));
    }
  }
  return std::nullopt;
}

void RunFolder::save(const Checkpoint& checkpoint, bool is_best, int keep) {
  const std::int64_t step = checkpoint.step;
  save_checkpoint(checkpoint_folder(step), checkpoint);
  if (is_best) replace_symlink(root_ / kBest, link_target(step));
  replace_symlink(root_ / kLatest, link_target(step));

  const std::int64_t best = step_of_link(root_ / kBest);
  const auto all = list_checkpoints(root_);
  int kept = 0;
  for (auto i = all.rbegin(); i != all.rend(); ++i) {
    if (i->first > step) continue;
    if (kept < std::max(keep, 1)) {
      // A damaged one is no help after a crash, so it does not count; it goes once enough good ones are newer.
      if (i->first == step || looks_complete(i->second)) ++kept;
      continue;
    }
    if (i->first != best) remove_folder(i->second);
  }
}

void RunFolder::relink(std::int64_t step, std::int64_t best_step) {
  if (step_of_link(root_ / kLatest) != step) replace_symlink(root_ / kLatest, link_target(step));
  const bool best_is_here = best_step > 0 && looks_complete(checkpoint_folder(best_step));
  if (best_is_here && step_of_link(root_ / kBest) != best_step) replace_symlink(root_ / kBest, link_target(best_step));
}

void RunFolder::trial_save(const Checkpoint& checkpoint) {
  const fs::path folder = root_ / kCheckpoints / fmt::format("{}trial", kTemporaryPrefix);
  remove_folder(folder);
  save_checkpoint(folder, checkpoint);
  try {
    const Checkpoint back = load_checkpoint(folder, checkpoint.state ? LoadState::kYes : LoadState::kNo);
    if (back.step != checkpoint.step || back.parameters.size() != checkpoint.parameters.size()) {
      throw FormatError(folder.string() + ": reads back as another checkpoint");
    }
  } catch (const Error& error) {
    remove_folder(folder);
    throw RunError(
        fmt::format("a trial checkpoint was written but cannot be read back: {}; no run is started, write "
                    "elsewhere with --output",
                    error.what()));
  }
  if (!remove_folder(folder)) {
    throw RunError(fmt::format("{}: the trial checkpoint cannot be removed; old checkpoints could not be either",
                               folder.string()));
  }
}

void RunFolder::forget_after(std::int64_t step) {
  // The links first: one that points at nothing would be worse than a folder too many.
  if (step_of_link(root_ / kBest) > step) remove_link(root_ / kBest);
  const auto all = list_checkpoints(root_);
  std::int64_t newest = -1;
  for (const auto& [at, folder] : all) {
    if (at <= step) newest = at;
  }
  if (newest >= 0) {
    replace_symlink(root_ / kLatest, link_target(newest));
  } else {
    remove_link(root_ / kLatest);
  }
  for (const auto& [at, folder] : all) {
    if (at > step && !remove_folder(folder)) {
      throw RunError(
          fmt::format("{}: cannot be removed, and would be taken for the newest checkpoint later", folder.string()));
    }
  }
}

void RunFolder::remove_leftovers() {
  for (const fs::path& entry : entries_of(root_)) {  // which may hold files of others too: only names of ours
    const std::string original = original_name(kTemporaryPrefix, entry.filename().string());
    if (original == kBest || original == kLatest || original == config_file().filename()) remove_folder(entry);
  }
  const fs::path checkpoints = root_ / kCheckpoints;
  for (const fs::path& entry : entries_of(checkpoints)) {
    const std::string name = entry.filename().string();
    if (name.starts_with(kTemporaryPrefix)) remove_folder(entry);
    const std::string original = original_name(kAsidePrefix, name);
    if (original.empty()) continue;
    std::error_code error;
    if (fs::exists(fs::symlink_status(checkpoints / original, error))) {
      remove_folder(entry);
    } else {
      rename_durably(entry, checkpoints / original);
    }
  }
}

bool RunFolder::cut_log(const std::filesystem::path& file, std::int64_t bytes) {
  const int fd = ::open(file.c_str(), O_WRONLY | O_CLOEXEC);
  if (fd < 0 && errno == ENOENT) return bytes <= 0;
  struct stat status {};
  int error = fd < 0 ? errno : 0;
  if (error == 0 && ::fstat(fd, &status) != 0) error = errno;
  const bool long_enough = status.st_size >= bytes;
  if (error == 0 && status.st_size > bytes && (::ftruncate(fd, bytes) != 0 || ::fsync(fd) != 0)) error = errno;
  if (fd >= 0) ::close(fd);
  if (error != 0)
    throw RunError(fmt::format("{}: cannot be cut to {} bytes: {}", file.string(), bytes, errno_text(error)));
  return long_enough;
}

std::vector<std::pair<std::int64_t, std::filesystem::path>> list_checkpoints(const std::filesystem::path& run) {
  std::map<std::int64_t, fs::path> found;
  std::map<std::int64_t, fs::path> aside;
  for (const fs::path& entry : entries_of(run / kCheckpoints)) {
    std::error_code error;
    if (!fs::is_directory(entry, error)) continue;
    const std::string name = entry.filename().string();
    if (const std::int64_t step = step_of(name); step >= 0) found.emplace(step, entry);
    if (const std::int64_t step = step_of(original_name(kAsidePrefix, name)); step >= 0) aside.emplace(step, entry);
  }
  found.merge(aside);
  return {found.begin(), found.end()};
}

}  // namespace charrnn
