// Where things stand: each place is used once, nothing overlaps, all is covered.
#include <numeric>

#include "backend/parameter_layout.h"
#include "cuda/layouts.h"
#include "kernels/column_sums.h"
#include "kernels/gate_map.h"
#include "kernels/update.h"
#include "support/catch.h"

using namespace charrnn;
using namespace charrnn::cuda;

namespace {

constexpr Cell kCells[] = {Cell::kLstm, Cell::kGru, Cell::kRnnTanh, Cell::kRnnRelu};

/// How often each of `size` places is in [first, first + count) of what is added.
class Uses {
 public:
  explicit Uses(std::int64_t size) : uses_(static_cast<std::size_t>(size)) {}
  void add(std::int64_t first, std::int64_t count) {
    REQUIRE(first >= 0);
    REQUIRE(first + count <= static_cast<std::int64_t>(uses_.size()));
    for (std::int64_t i = first; i < first + count; ++i) ++uses_[static_cast<std::size_t>(i)];
  }
  bool each(int times) const { return *std::min_element(uses_.begin(), uses_.end()) == times && most() == times; }
  int most() const { return *std::max_element(uses_.begin(), uses_.end()); }
  std::int64_t covered() const {
    return std::count_if(uses_.begin(), uses_.end(), [](int uses) { return uses > 0; });
  }
  bool used(std::int64_t at) const { return uses_[static_cast<std::size_t>(at)] > 0; }

 private:
  std::vector<int> uses_;
};

constexpr bool arrival_is_sound(std::size_t count, std::size_t batch) {
  const ArrivalLayout a{count, batch};
  const bool follow = a.weights() == 0 && a.loss_scale() >= a.weights() + 4 * count && a.ids() >= a.loss_scale() + 4 &&
                      a.targets() >= a.ids() + 2 * count && a.reset() >= a.targets() + 2 * count &&
                      a.bytes() >= a.reset() + batch;
  return follow && a.weights() % 4 == 0 && a.loss_scale() % 4 == 0 && a.ids() % 2 == 0 && a.targets() % 2 == 0;
}
static_assert(sizeof(DeviceId) == 2);
static_assert(arrival_is_sound(1, 1) && arrival_is_sound(3, 3) && arrival_is_sound(35, 5) && arrival_is_sound(64, 8));

constexpr bool states_are_sound(const StateLayout& s) {
  std::int64_t next = 0;
  for (std::int64_t layer = 0; layer < s.layers; ++layer) {
    for (std::int64_t slot = 0; slot <= s.steps; ++slot, next += s.lanes * s.hidden) {
      if (s.at(layer, slot) != next) return false;
    }
  }
  return next == s.size();
}
static_assert(states_are_sound({1, 1, 1, 1}) && states_are_sound({3, 5, 7, 37}) && states_are_sound({2, 100, 8, 512}));

constexpr bool strides_are_sound() {
  for (int v = 1; v <= 1024; ++v) {
    const int stride = one_hot_stride(v);
    if (stride < v || stride >= v + 8 || stride % 8 != 0) return false;
  }
  return true;
}
static_assert(strides_are_sound());

/// Chunks as the kernels cut them: one after another, the last ones perhaps empty, all rows in them.
constexpr bool chunks_are_sound(std::int64_t rows) {
  const std::int64_t chunks = sum_chunks(rows);
  if (rows == 0) return chunks == 0;
  const std::int64_t rows_a_chunk = (rows + chunks - 1) / chunks;
  return chunks >= 1 && chunks <= 256 && chunks * rows_a_chunk >= rows && (rows > 64 * 256 || rows_a_chunk <= 64);
}
static_assert(chunks_are_sound(0) && chunks_are_sound(1) && chunks_are_sound(64) && chunks_are_sound(65));
static_assert(chunks_are_sound(16384) && chunks_are_sound(16385) && chunks_are_sound(1LL << 40U));
static_assert(square_chunks(0) == 0 && square_chunks(1) == 1 && square_chunks(kSquareChunk) == 1);
static_assert(square_chunks(kSquareChunk + 1) == 2 && square_chunks(5 * kSquareChunk) == 5);

}  // namespace

TEST_CASE("each column of a row of gates is made as its cell needs, and each row of weights is used once") {
  for (const Cell cell : kCells) {
    for (const std::int64_t H : {1, 5, 37}) {
      const GateMap map = gate_map(cell, H);
      const std::int64_t gates = gate_count(cell);
      Uses input_columns(map.width), hidden_columns(map.width), input_rows(gates * H), hidden_rows(gates * H);
      for (const GateBlock& b : map.input) {
        input_columns.add(b.gate_column, b.rows);
        input_rows.add(b.weight_row, b.rows);
      }
      for (const GateBlock& b : map.hidden) {
        hidden_columns.add(b.gate_column, b.rows);
        hidden_rows.add(b.weight_row, b.rows);
      }
      CHECK(input_rows.each(1));
      CHECK(hidden_rows.each(1));
      CHECK(input_columns.most() == 1);
      CHECK(hidden_columns.most() == 1);
      for (std::int64_t column = 0; column < map.width; ++column) {
        // GRU keeps its n's two parts apart; of all others both products make each column.
        const std::int64_t gate = column / H;
        CHECK(input_columns.used(column) == (cell != Cell::kGru || gate != kGruColumnNh));
        CHECK(hidden_columns.used(column) == (cell != Cell::kGru || gate != kGruColumnNx));
      }
      // What kernels take holds all of it.
      const std::size_t blocks = map.input.size() + map.hidden.size();
      CHECK(blocks <= 3);
      CHECK(map.hidden.size() == 1);
    }
  }
}

TEST_CASE("tensors of the arena stand on lines of 256 bytes and do not overlap") {
  for (const Cell cell : kCells) {
    for (const NetworkShape& shape : {NetworkShape{cell, 1, 1, 1}, NetworkShape{cell, 3, 37, 11}}) {
      const ParameterLayout layout(shape);
      Uses floats(static_cast<std::int64_t>(layout.arena_size()));
      std::int64_t count = 0;
      for (const ParameterTensor& t : layout.tensors()) {
        CHECK(t.offset % 64 == 0);
        floats.add(static_cast<std::int64_t>(t.offset), static_cast<std::int64_t>(t.count()));
        count += static_cast<std::int64_t>(t.count());
      }
      CHECK(floats.most() == 1);
      CHECK(floats.covered() == count);
      CHECK(static_cast<std::int64_t>(layout.parameter_count()) == count);
    }
  }
}

TEST_CASE("cuDNN's packing takes each parameter of a layer once, to a place of its own") {
  for (const Cell cell : kCells) {
    for (const std::int64_t V : {8, 11}) {  // without and with padding of the input's rows
      constexpr std::int64_t kHidden = 5;
      const std::int64_t D = one_hot_stride(static_cast<int>(V)), gates = gate_count(cell);
      const std::int64_t wide = gates * kHidden;
      // The arena: W_ih, W_hh, b_ih, b_hh. Packed: all matrices, then all biases, as cuDNN's standard algorithm has it.
      std::vector<PackedGate> parts;
      for (std::int64_t g = 0; g < 2 * gates; ++g) {
        const bool recurrent = g >= gates;
        const std::int64_t of = g % gates * kHidden, from_columns = recurrent ? kHidden : V;
        parts.push_back({(recurrent ? wide * V : 0) + of * from_columns,
                         wide * (V + kHidden) + (recurrent ? wide : 0) + of, from_columns,
                         recurrent ? wide * D + of * kHidden : of * D, wide * (D + kHidden) + g * kHidden,
                         recurrent ? kHidden : D});
      }
      std::vector<Run> table{{1000000, 1000000, 1}};  // of a layer before
      const LayerRuns made = add_layer(table, parts, kHidden);
      const std::int64_t arena = wide * (V + kHidden + 2), packed = wide * (D + kHidden + 2);
      Uses from(arena), to(packed);
      std::int64_t longest_row = 0, longest_block = 0;
      for (std::size_t i = 1; i < table.size(); ++i) {
        from.add(table[i].from, table[i].count);
        to.add(table[i].to, table[i].count);
        std::int64_t& longest = i < 1 + made.rows.count ? longest_row : longest_block;
        longest = std::max(longest, table[i].count);
      }
      CHECK(from.each(1));
      CHECK(to.most() == 1);
      CHECK(to.covered() == arena);
      for (std::int64_t row = 0; row < wide; ++row) {  // the padding alone is left out
        for (std::int64_t d = 0; d < D; ++d) CHECK(to.used(row * D + d) == (d < V));
      }
      // The stretches of the table.
      CHECK(made.rows.count == static_cast<std::size_t>(V == D ? 0 : wide));
      CHECK((made.rows.count == 0 || made.rows.first == 1));
      CHECK(made.blocks.first == 1 + made.rows.count);
      CHECK(made.blocks.first + made.blocks.count == table.size());
      CHECK(made.rows.longest == longest_row);
      CHECK(made.blocks.longest == longest_block);
      CHECK(made.blocks.count == 1);  // what goes on from the run before is one with it
    }
  }
}
