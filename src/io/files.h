// Files that are old or new, never half: write, fsync, rename, fsync of the folder.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <limits>
#include <string>
#include <string_view>
#include <vector>

namespace charrnn {

namespace fs = std::filesystem;

/// Writes and fsyncs a file that does not yet exist (within a temporary folder). Loops over short writes and EINTR.
/// @throws RunError with path and errno's text; what was written is removed
void write_new_file(const fs::path& file, const std::vector<std::string_view>& pieces);

/// Replaces `file` by way of a temporary one beside it. @throws RunError
void replace_file(const fs::path& file, std::string_view content);

/// Renames `from` to `to` (both in the same folder) and fsyncs the folder. @throws RunError
void rename_durably(const fs::path& from, const fs::path& to);

/// Makes `link` a symbolic link to `target` (relative), atomically. @throws RunError
void replace_symlink(const fs::path& link, const fs::path& target);

/// Makes one folder that does not yet exist, in a folder that does. @throws RunError
void make_folder(const fs::path& folder);

/// Makes a folder and its parents where they are missing, and fsyncs what holds the new ones. @throws RunError
void make_folders(const fs::path& folder);

/// Fsyncs a folder, which makes durable what names stand in it. @throws RunError
void sync_folder(const fs::path& folder);

/// Puts the folder `fresh` in the place of `folder` (both in the same parent), durably, and removes the old one. At no
/// moment is there neither: the two are exchanged in one step where the file system can, else the old one stands under
/// aside_name() for a moment. @throws RunError
void replace_folder(const fs::path& fresh, const fs::path& folder);

/// Removes a folder and the files in it. It loses its name first, so that it is never seen half removed.
/// False if something of it is left (under a name that begins with kTemporaryPrefix).
bool remove_folder(const fs::path& folder) noexcept;

/// @throws FormatError (exit 3) when it is missing, no regular file, unreadable, or larger than `limit_bytes`
std::string read_file(const fs::path& file, std::uintmax_t limit_bytes = std::numeric_limits<std::uintmax_t>::max());

/// The first `bytes` of a file (fewer where it is shorter) and the size of the whole. @throws FormatError as read_file
struct FileStart {
  std::string bytes;
  std::uintmax_t size = 0;
};
FileStart read_start(const fs::path& file, std::uintmax_t bytes);

/// Names that belong to a save under way, or are left of one that was killed: `.tmp-NAME-PID` and `.old-NAME-PID`.
inline constexpr std::string_view kTemporaryPrefix = ".tmp-";
inline constexpr std::string_view kAsidePrefix = ".old-";
fs::path temporary_name(const fs::path& path);
fs::path aside_name(const fs::path& path);
/// NAME of such a name; empty if `name` is none with this prefix.
std::string original_name(std::string_view prefix, const std::string& name);

namespace io::testing {

/// What is to happen instead of a system call, or to it.
struct Fault {
  int error = 0;                                                  // errno to fail with; 0: the call is made
  std::size_t at_most = std::numeric_limits<std::size_t>::max();  // bytes that a write may take
  bool skip = false;                                              // the call is not made and succeeds
};

/// For tests only, null otherwise: called before each system call of this file that changes something, with the call's
/// name (mkdir, open, write, fsync, close, rename, exchange, symlink, unlink, rmdir) and its path. A test kills the
/// process in it, or makes the call fail.
extern Fault (*before_syscall)(const char* call, const fs::path& path);

}  // namespace io::testing

}  // namespace charrnn
