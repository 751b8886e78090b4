// The text: a memory-mapped file or a text from the config. Mapped, never copied: a 5 GB file costs no private memory.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "charrnn/config.h"
#include "charrnn/vocabulary.h"

namespace charrnn {

/// Called now and then during long work with the fraction done, [0, 1].
using Progress = std::function<void(double fraction)>;

class Corpus {
 public:
  /// Opens, maps and indexes (one pass: sha256 and which bytes occur).
  /// @throws DataError (exit 3): missing, a folder, a FIFO or device, unreadable, empty, one character, one distinct
  ///         character. A file that shrinks later ends the process with exit 3 and a message (SIGBUS), not a crash.
  static Corpus open(const CorpusConfig& config, const Progress& progress = {});

  /// The whole text; valid as long as this object. size() is 64-bit.
  /// A file that grows keeps the size that it had when it was opened.
  std::string_view text() const noexcept;
  const std::string& source() const noexcept { return source_; }  // absolute path, or "text in the config"
  const std::string& sha256() const noexcept { return sha256_; }  // hex
  const Vocabulary& vocabulary() const noexcept { return vocabulary_; }

 private:
  class Mapping;  // RAII over mmap(2)
  friend Corpus open_text_file(const std::filesystem::path& file, const Progress& progress);
  Corpus() = default;
  void index(const Progress& progress);

  std::shared_ptr<const Mapping> mapping_;
  std::shared_ptr<const std::string> owned_;
  std::string source_;
  std::string sha256_;
  Vocabulary vocabulary_;
};

/// Where a corpus path leads: itself if it is there (relative to the working directory), else the same path in the data
/// folder that tools/get-data fills ($CHARRNN_DATA, else $XDG_DATA_HOME/charrnn, else ~/.local/share/charrnn).
/// @throws DataError naming both places and `tools/get-data` where neither exists
std::filesystem::path find_corpus(const std::string& path);
std::filesystem::path data_folder();

/// The sha256 and the distinct bytes of a text in one pass, on which Corpus::open rests; for `eval --text` files too:
/// what cannot be trained on but can be scored, a text of one distinct character, is not refused.
/// @throws DataError as Corpus::open otherwise; `file` is not looked for in the data folder
Corpus open_text_file(const std::filesystem::path& file, const Progress& progress = {});

}  // namespace charrnn
