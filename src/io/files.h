// Files that are old or new, never half: write, fsync, rename, fsync of the folder.
#pragma once

#include <cstdint>
#include <filesystem>
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

/// @throws FormatError (exit 3) when it is missing, no regular file, unreadable, or larger than `limit_bytes`
std::string read_file(const fs::path& file, std::uintmax_t limit_bytes);

}  // namespace charrnn
