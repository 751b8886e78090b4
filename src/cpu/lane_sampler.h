// Draws the characters of one text at the speed at which memory gives the weights: what Session::generate() is on a
// CPU, for one lane. A character waits for the one before, so that every weight is read once a character and used once:
// all there is to gain lies in the order in which weights stand, in keeping them near, and in not waiting.
//
// The units of each layer, and the characters of the head, are dealt to the threads in tiles (cpu/lane_kernels.h). A
// thread multiplies all gate rows of its units and makes their cells itself, so that threads meet once a layer, to
// exchange h, and once for the logits. All then draw the same character from the same logits, each for itself. The
// products with a layer's own h of the step before wait for nobody: each stands in front of a meeting, and makes up for
// threads that are late.
#pragma once

#include <chrono>
#include <cstddef>
#include <memory>
#include <span>
#include <vector>

#include "backend/backend.h"
#include "backend/draw.h"
#include "cpu/host_buffer.h"
#include "cpu/lane_kernels.h"
#include "cpu/spin_barrier.h"
#include "cpu/thread_pool.h"
#include "kernels/gate_map.h"

namespace charrnn::cpu {

struct LaneOptions {
  int threads = 0;        // 0: as many as the network keeps busy. At most those of the pool
  int workers = 0;        // of those threads that each run takes; 0: chosen from run to run. For tests
  bool portable = false;  // without instructions that only some processors have; for tests
};

/// What run() reads and writes. L layers, H hidden.
struct LaneRun {
  TokenId first = 0;                    // the character that is read first
  std::uint64_t stream = 0;             // of random numbers: this lane's
  const DrawSettings* draws = nullptr;  // first_stream and stream_step are not read
  std::span<float> h{};                 // [L,H] carried; unchanged after an exception
  std::span<float> c{};                 // [L,H] carried, LSTM; else empty
  std::span<TokenId> drawn{};           // [steps] overwritten: each is the input of the next step
};

/// A packed copy of the weights, in fp32 or bf16, and threads that run it. In bf16 weights and h stand in 16 bits;
/// sums, gates, c, biases, layer 0's table and logits are fp32. The same characters are drawn whatever the number of
/// threads.
class LaneSampler {
 public:
  /// Weights are zeros until pack(). `pool` outlives it. @throws DeviceError when memory is short
  LaneSampler(const ParameterLayout& layout, Precision precision, ThreadPool& pool, LaneOptions options = {});

  /// Takes the weights from `parameters` [arena_size].
  void pack(const float* parameters);

  /// Draws run.drawn.size() characters. Allocates nothing. Where threads lost more time to waiting than they gained, as
  /// they do if something else takes a core, the next runs are the calling thread's alone, from time to time with all
  /// again. @throws RunError for a logit that is not finite; ShapeError
  void run(const LaneRun& run);

  /// [V] that the last character of the last run() was drawn from.
  std::span<const float> logits() const {
    return {logits_.data(), static_cast<std::size_t>(layout_.shape().vocabulary)};
  }

  /// Most that work at a time.
  int threads() const { return static_cast<int>(shares_.size()); }
  const char* instructions() const { return kernels_.instructions; }
  /// Bytes of weights that are read for each character.
  std::size_t weight_bytes() const;
  /// About what one takes in memory.
  static std::size_t memory_bytes(const NetworkShape& shape, Precision precision);

 private:
  /// `rows` rows in tiles of `vectors` times 16 rows; the last tile may have fewer vectors.
  struct Tiling {
    int rows = 0, vectors = 1;
    int all_vectors() const { return (rows + kLaneRows - 1) / kLaneRows; }
    int tiles() const { return (all_vectors() + vectors - 1) / vectors; }
    int vectors_of(int tile) const;
    std::int64_t first_row(int tile) const { return std::int64_t{tile} * vectors * kLaneRows; }
  };
  /// The gate columns that W_ih or W_hh makes: [first, first + row.size()) in units of H. row[i]: the matrix's first
  /// row of the i-th of them.
  struct Columns {
    int first = 0;
    std::vector<std::int64_t> row;
  };
  /// A thread's tiles of one matrix: where they stand in its weights.
  struct Matrix {
    std::size_t offset_bytes = 0;
    std::size_t tile_bytes = 0;
  };
  /// What one thread owns. It alone writes this, and it comes to stand in its core's caches.
  struct Share {
    explicit Share(int vocabulary) : scratch(vocabulary) {}
    Range units{}, characters{};        // in tiles
    std::vector<Matrix> input, hidden;  // [L]; input.front() is not used
    Matrix head;
    HostBuffer storage;
    std::byte* weights = nullptr;  // in storage
    HostBuffer sums;               // [L, tiles, C, 16 vectors]
    // Of the worker of the same number.
    DrawScratch scratch;
    std::chrono::nanoseconds lost{};  // waiting for others that did not run
  };

  static Columns columns_of(const std::vector<GateBlock>& blocks, std::int64_t hidden);
  void lay_out(Share& share) const;
  template <class E>
  void pack_share(Share& share, const float* parameters);
  template <class E>
  void pack_matrix(std::byte* to, const float* from, const Columns& columns, const Tiling& tiling, Range tiles) const;
  void pack_start(float* to, const float* parameters, int layer, int tile, int character) const;

  void load_state(const LaneRun& run);
  void store_state(const LaneRun& run) const;
  void choose_workers(std::chrono::nanoseconds spent);
  void work(int worker, int workers, const LaneRun& run);
  void begin_layer(Share& share, int layer, int parity);
  void multiply(Share& share, int layer, bool of_input, int parity);
  void step_cells(Share& share, int layer, const float* start, int before);
  void run_head(Share& share, int parity);

  std::int64_t columns_a_unit() const { return gates_.width / layout_.shape().hidden; }  // C
  std::int64_t padded_gates() const { return columns_a_unit() * units_.all_vectors() * kLaneRows; }
  std::byte* h_of(int layer, int parity);
  float* sums_of(Share& share, int layer, std::int64_t tile) const;

  ParameterLayout layout_;
  GateMap gates_;
  Columns input_columns_, hidden_columns_, head_columns_;
  ThreadPool& pool_;
  bool bf16_ = false;
  int element_bytes_ = 4, padded_k_ = 0;
  Tiling units_, characters_;
  LaneKernels kernels_;
  std::int64_t h_stride_bytes_ = 0, c_stride_ = 0;

  HostBuffer table_;      // [V, padded gates]
  HostBuffer bias_;       // [L, padded gates] both biases; layer 0's stand in the table
  HostBuffer head_bias_;  // [padded V]
  HostBuffer h_;          // [L,2,padded H] elements: of the step before, and of this
  HostBuffer c_;          // [L,padded H]
  HostBuffer logits_;     // [padded V]
  std::vector<std::unique_ptr<Share>> shares_;
  SpinBarrier barrier_{1};
  int workers_ = 0;     // LaneOptions::workers
  int runs_alone_ = 0;  // that are left until all threads are tried again
  int back_off_ = 0;    // runs_alone_ when threads were last seen to get in each other's way; 0: they did not
};

}  // namespace charrnn::cpu
