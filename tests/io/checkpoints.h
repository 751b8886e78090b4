// Small checkpoints with known contents, and what the tests of this folder ask of errors.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "backend/parameter_layout.h"
#include "charrnn/checkpoint.h"
#include "charrnn/error.h"
#include "io/files.h"
#include "support/catch.h"
#include "support/temp_folder.h"

namespace charrnn::tests {

namespace fs = std::filesystem;

/// While one lives, nothing waits for the disk: what fsync is for, no test can see.
class NoSync {
 public:
  NoSync() { io::testing::before_syscall = skip; }
  ~NoSync() { io::testing::before_syscall = nullptr; }
  NoSync(const NoSync&) = delete;
  NoSync& operator=(const NoSync&) = delete;

 private:
  static io::testing::Fault skip(const char* call, const fs::path& /*path*/) {
    return {.skip = std::strcmp(call, "fsync") == 0};
  }
};

/// L, H, V and B all differ, so that a swapped axis cannot pass.
inline Checkpoint small_checkpoint(std::int64_t step, Cell cell = Cell::kLstm,
                                   OptimizerKind optimizer = OptimizerKind::kRmsprop) {
  Checkpoint c;
  c.config.corpus.path = "/texts/plays.txt";
  c.config.model.cell = cell;
  c.config.model.layers = 2;
  c.config.model.hidden = 5;
  c.config.train.batch = 3;
  c.config.train.optimizer.name = optimizer;
  c.vocabulary = Vocabulary::of("\n abc\x80\xff");  // V = 7
  c.step = step;
  c.validation_nats = 1.0 / 3.0 + static_cast<double>(step);
  const ParameterLayout layout(c.shape());
  std::mt19937 random(static_cast<std::uint32_t>(step + 1));
  const auto values = [&random] { return static_cast<float>(static_cast<std::int32_t>(random())) * 1e-9F; };
  const auto arena = [&] {
    std::vector<float> a(layout.arena_size());
    for (const ParameterTensor& t : layout.tensors()) {
      std::generate_n(a.begin() + static_cast<std::ptrdiff_t>(t.offset), t.count(), values);
    }
    return a;
  };
  c.parameters = arena();
  TrainingState& s = c.state.emplace();
  s.step = step;
  if (optimizer != OptimizerKind::kSgd) s.moment1 = arena();
  if (optimizer == OptimizerKind::kAdam) s.moment2 = arena();
  s.batch = 3;
  s.h.resize(2 * 3 * 5);
  std::generate(s.h.begin(), s.h.end(), values);
  if (has_cell_state(cell)) {
    s.c.resize(2 * 3 * 5);
    std::generate(s.c.begin(), s.c.end(), values);
  }
  s.best_validation = 0.1 + 0.2;  // 17 digits
  s.best_step = step / 2;
  s.validations_without_best = 2;
  s.plateau_scale = std::nextafter(1.0, 0.0);
  s.scheduled_best = std::numeric_limits<double>::infinity();
  s.plateau_bad = 1;
  s.skipped_in_a_row = 3;
  s.skipped_total = 1'000'000'000'000;
  s.loss_scale = 32768;
  s.since_overflow = 1999;
  s.text_sha256 = std::string(64, 'a');
  s.text_characters = 5'000'000'000;
  s.machine = "A CPU \"with\" AVX-512, fp32";
  s.threads = 2;
  s.metrics_bytes = std::numeric_limits<std::int64_t>::max();
  s.samples_bytes = 0;
  return c;
}

template <class T>
bool same_bits(const std::vector<T>& a, const std::vector<T>& b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0);
}

inline bool same_bits(double a, double b) { return std::memcmp(&a, &b, sizeof(a)) == 0; }

inline bool same_state(const TrainingState& a, const TrainingState& b) {
  return a.step == b.step && same_bits(a.moment1, b.moment1) && same_bits(a.moment2, b.moment2) && a.batch == b.batch &&
         same_bits(a.h, b.h) && same_bits(a.c, b.c) && same_bits(a.best_validation, b.best_validation) &&
         a.best_step == b.best_step && a.validations_without_best == b.validations_without_best &&
         same_bits(a.plateau_scale, b.plateau_scale) && same_bits(a.scheduled_best, b.scheduled_best) &&
         a.plateau_bad == b.plateau_bad && a.skipped_in_a_row == b.skipped_in_a_row &&
         a.skipped_total == b.skipped_total && same_bits(a.loss_scale, b.loss_scale) &&
         a.since_overflow == b.since_overflow && a.text_sha256 == b.text_sha256 &&
         a.text_characters == b.text_characters && a.machine == b.machine && a.threads == b.threads &&
         a.metrics_bytes == b.metrics_bytes && a.samples_bytes == b.samples_bytes;
}

/// All but the config, bit for bit.
inline bool same_checkpoint(const Checkpoint& a, const Checkpoint& b) {
  return a.step == b.step && a.vocabulary == b.vocabulary && same_bits(a.parameters, b.parameters) &&
         (same_bits(a.validation_nats, b.validation_nats) ||
          (std::isnan(a.validation_nats) && std::isnan(b.validation_nats))) &&
         a.state.has_value() == b.state.has_value() && (!a.state || same_state(*a.state, *b.state));
}

inline std::string read_all(const fs::path& file) {
  std::ifstream in(file, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
}

inline void write_all(const fs::path& file, const std::string& content) {
  fs::remove(
      file);  // a file that is cut and written again is flushed to the disk by some file systems, and that is slow
  std::ofstream(file, std::ios::binary) << content;
}

/// The message of the E that `action` throws; fails the test if it throws none.
template <class E, class Action>
std::string message_of(Action action) {
  try {
    action();
  } catch (const E& error) {
    CHECK(std::string(error.what()).size() < 2000);
    return error.what();
  }
  FAIL("nothing was thrown");
  return {};
}

inline bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

/// Names of what a folder holds, hidden ones too, sorted.
inline std::vector<std::string> names_in(const fs::path& folder) {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(folder)) names.push_back(entry.path().filename().string());
  std::sort(names.begin(), names.end());
  return names;
}

}  // namespace charrnn::tests
