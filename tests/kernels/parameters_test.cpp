// From the canonical parameters to what kernels read. Conversions and copies are exact.
#include "kernels/parameters.h"

#include <cmath>
#include <limits>

#include "kernel_test.h"

using namespace charrnn::cuda;
using namespace kernel_test;
using charrnn::Cell;

namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

struct Layer {
  Layer(Cell cell, int hidden, int inputs)
      : gates(static_cast<std::size_t>(charrnn::gate_count(cell))),
        H(static_cast<std::size_t>(hidden)),
        V(static_cast<std::size_t>(inputs)),
        weight_ih(some(Element::kF32, gates * H * V, 1)),
        bias_ih(some(Element::kF32, gates * H, 2)),
        bias_hh(some(Element::kF32, gates * H, 3)) {}
  std::size_t gates, H, V;
  Numbers weight_ih, bias_ih, bias_hh;
};

/// The row of the weights that makes unit u of column g of a row of gates, of the input and of the recurrence; -1:
/// none.
struct RowsOf {
  int input, hidden;
};
RowsOf rows_of(Cell cell, int column, int unit, int H) {
  if (cell != Cell::kGru) return {column * H + unit, column * H + unit};
  switch (column) {  // nx r z nh, from r z n
    case 0: return {2 * H + unit, -1};
    case 1: return {unit, unit};
    case 2: return {H + unit, H + unit};
    default: return {-1, 2 * H + unit};
  }
}
int columns(Cell cell) { return cell == Cell::kLstm || cell == Cell::kGru ? 4 : 1; }

}  // namespace

TEST_CASE("numbers convert to every element type, rounded to nearest even, and back") {
  Numbers from = some(Element::kF32, 700, 1, 5);
  const double special[] = {0.0,     -0.0,    kInfinity,     -kInfinity,        65504,          65519,
                            65520,   -1e30,   1 + 0x1p-11,   1 + 3 * 0x1p-11,   1 + 0x1p-8,     1 + 3 * 0x1p-8,
                            0x1p-24, 0x1p-25, 1.5 * 0x1p-25, 0x1p-14 - 0x1p-25, 0x1.fffffep127, 1 + 0x1p-11 + 0x1p-23};
  std::copy(std::begin(special), std::end(special), from.begin() + 300);
  for (const Element element : kElements) {
    for (const std::size_t n : {std::size_t{1}, std::size_t{700}}) {
      const Outcome y = in_any_order([&](cudaStream_t stream) {
        const Floats on_from(from), back(Numbers(from.size(), kUntouched));
        const Array to(element, Numbers(from.size(), kUntouched));
        convert(on_from, to.at(), element, static_cast<std::int64_t>(n), stream);
        convert_back(to.at(), element, back, static_cast<std::int64_t>(n), stream);
        host_cuda_test::succeed(cudaStreamSynchronize(stream));
        return Outcome{to.read(), back.read()};
      });
      Numbers expected = rounded(element, from);
      std::fill(expected.begin() + static_cast<std::ptrdiff_t>(n), expected.end(), kUntouched);
      CHECK(same_bits(y, {expected, expected}));
    }
    const Outcome nan = in_any_order([&](cudaStream_t stream) {
      const Floats on_from(Numbers{std::nan("")});
      const Array to(element, 1);
      convert(on_from, to.at(), element, 1, stream);
      host_cuda_test::succeed(cudaStreamSynchronize(stream));
      return Outcome{{std::isnan(to.read()[0]) ? 1.0 : 0.0}};
    });
    CHECK(nan[0][0] == 1);
  }
}

TEST_CASE("the table and the bias hold each gate's weights and biases at its column") {
  for (const Cell cell : {Cell::kLstm, Cell::kGru, Cell::kRnnTanh, Cell::kRnnRelu}) {
    for (const auto& [hidden, vocabulary] : {std::pair{1, 1}, {5, 11}, {37, 13}}) {
      const Layer layer(cell, hidden, vocabulary);
      const GateBlocks blocks = gate_blocks(cell, hidden);
      const auto W = static_cast<std::size_t>(columns(cell) * hidden), V = static_cast<std::size_t>(vocabulary);
      CHECK(blocks.width == static_cast<std::int64_t>(W));
      const Outcome y = in_any_order([&](cudaStream_t stream) {
        const Floats weight_ih(layer.weight_ih), bias_ih(layer.bias_ih), bias_hh(layer.bias_hh), table(V * W), bias(W);
        const LayerParameters on{weight_ih, bias_ih, bias_hh};
        make_table(on, blocks, vocabulary, table, stream);
        make_bias(on, blocks, bias, stream);
        host_cuda_test::succeed(cudaStreamSynchronize(stream));
        return Outcome{table.read(), bias.read()};
      });
      Outcome expected(2);
      for (std::size_t v = 0; v < V; ++v) {
        for (std::size_t k = 0; k < W; ++k) {
          const int u = static_cast<int>(k) % hidden;
          const RowsOf rows = rows_of(cell, static_cast<int>(k) / hidden, u, hidden);
          double bias = rows.input < 0 ? 0 : layer.bias_ih[static_cast<std::size_t>(rows.input)];
          if (rows.hidden >= 0) bias += layer.bias_hh[static_cast<std::size_t>(rows.hidden)];
          const double weight = rows.input < 0 ? 0 : layer.weight_ih[static_cast<std::size_t>(rows.input) * V + v];
          expected[0].push_back(weight + bias);
          if (v == 0) expected[1].push_back(bias);
        }
      }
      CHECK_ALL_CLOSE(y[0], expected[0], stored(Element::kF32, 2));  // two additions
      CHECK_ALL_CLOSE(y[1], expected[1], stored(Element::kF32, 1));
    }
  }
}

TEST_CASE("runs are packed and unpacked to where they belong, and nothing else is written") {
  struct Case {
    std::size_t from_size, to_size;
    std::vector<Run> runs;
  };
  // The last is longer than one grid of 1024 blocks: threads stride.
  const Case cases[] = {{1, 1, {{0, 0, 1}}},
                        {40, 50, {{3, 10, 7}, {10, 0, 5}, {39, 49, 1}, {20, 20, 0}}},
                        {2000, 3000, {{5, 1500, 1200}, {1300, 11, 700}, {0, 2999, 1}}},
                        {262144 + 77, 262144 + 80, {{0, 2, 262144 + 77}}}};
  for (const Case& c : cases) {
    for (const Element element : kElements) {
      if (c.from_size > 10000 && element == Element::kF16) continue;  // of the long one two are enough
      std::int64_t longest = 0;
      for (const Run& run : c.runs) longest = std::max(longest, run.count);
      const Numbers from = some(Element::kF32, c.from_size, 4);
      const auto copy = [&](bool unpacks) {
        return in_any_order([&](cudaStream_t stream) {
          const Device<Run> runs(c.runs);
          const int count = static_cast<int>(c.runs.size());
          const Array on_from(unpacks ? element : Element::kF32, from);
          const Array to(unpacks ? Element::kF32 : element, Numbers(c.to_size, kUntouched));
          if (unpacks)
            unpack(runs, count, longest, on_from.at(), element, static_cast<float*>(to.at()), stream);
          else
            pack(runs, count, longest, static_cast<const float*>(on_from.at()), to.at(), element, stream);
          host_cuda_test::succeed(cudaStreamSynchronize(stream));
          return Outcome{to.read()};
        });
      };
      Numbers expected(c.to_size, kUntouched);
      const Numbers narrow = rounded(element, from);
      for (const Run& run : c.runs) {
        std::copy_n(narrow.begin() + run.from, run.count, expected.begin() + run.to);
      }
      CHECK(copy(false) == Outcome{expected});
      CHECK(copy(true) == Outcome{expected});
    }
  }
}

TEST_CASE("no parameters launch nothing") {
  launches_nothing([](cudaStream_t stream) {
    convert(nullptr, nullptr, Element::kF16, 0, stream);
    convert_back(nullptr, Element::kBf16, nullptr, 0, stream);
    make_table({}, gate_blocks(Cell::kLstm, 3), 0, nullptr, stream);
    make_bias({}, {}, nullptr, stream);
    pack(nullptr, 0, 5, nullptr, nullptr, Element::kF16, stream);
    unpack(nullptr, 3, 0, nullptr, Element::kF32, nullptr, stream);
  });
}
