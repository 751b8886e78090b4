// Where things stand in memory, as plain arithmetic that tests hold to be one-to-one.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "kernels/parameters.h"
#include "kernels/windows.h"

namespace charrnn::cuda {

/// Offsets of one arrival's arrays, in bytes: `count` characters, `batch` lanes. Each is aligned for its type, the
/// widest first.
struct ArrivalLayout {
  std::size_t count, batch;
  constexpr std::size_t weights() const { return 0; }
  constexpr std::size_t loss_scale() const { return weights() + count * sizeof(float); }
  constexpr std::size_t ids() const { return loss_scale() + sizeof(float); }
  constexpr std::size_t targets() const { return ids() + count * sizeof(DeviceId); }
  constexpr std::size_t reset() const { return targets() + count * sizeof(DeviceId); }
  constexpr std::size_t bytes() const { return reset() + batch; }
};

/// States of all layers [L][T+1][lanes][H], in elements: slot 0 is the window's start, slot t + 1 is after step t.
struct StateLayout {
  std::int64_t layers, steps, lanes, hidden;
  constexpr std::int64_t slot_size() const { return lanes * hidden; }
  constexpr std::int64_t layer_stride() const { return (steps + 1) * slot_size(); }
  constexpr std::int64_t at(std::int64_t layer, std::int64_t slot) const {
    return layer * layer_stride() + slot * slot_size();
  }
  constexpr std::int64_t size() const { return layers * layer_stride(); }
};

/// A stretch of a table of runs.
struct Runs {
  std::size_t first = 0, count = 0;
  std::int64_t longest = 0;
  /// At the table's end; one with the run before, where both sides go on from it.
  void add(std::vector<Run>& table, const Run& run) {
    if (count == 0) first = table.size();
    Run* const last = count == 0 ? nullptr : &table.back();
    if (last != nullptr && last->from + last->count == run.from && last->to + last->count == run.to) {
      last->count += run.count;
    } else {
      table.push_back(run);
      ++count;
    }
    longest = std::max(longest, table.back().count);
  }
};

/// A gate's matrix [rows, columns] and bias [rows] in the arena and in cuDNN's packing, where its rows may be longer.
struct PackedGate {
  std::int64_t weight_from, bias_from, columns;
  std::int64_t weight_to, bias_to, columns_to;
};
/// The runs of one layer: row by row of matrices whose rows are padded; and whole blocks of all the rest.
struct LayerRuns {
  Runs rows, blocks;
};
inline LayerRuns add_layer(std::vector<Run>& table, const std::vector<PackedGate>& gates, std::int64_t rows) {
  LayerRuns made;
  for (const PackedGate& g : gates) {
    if (g.columns == g.columns_to) continue;
    for (std::int64_t row = 0; row < rows; ++row) {
      made.rows.add(table, {g.weight_from + row * g.columns, g.weight_to + row * g.columns_to, g.columns});
    }
  }
  for (const PackedGate& g : gates) {
    if (g.columns == g.columns_to) made.blocks.add(table, {g.weight_from, g.weight_to, rows * g.columns});
  }
  for (const PackedGate& g : gates) made.blocks.add(table, {g.bias_from, g.bias_to, rows});
  return made;
}

}  // namespace charrnn::cuda
