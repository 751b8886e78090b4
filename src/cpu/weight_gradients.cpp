#include "cpu/weight_gradients.h"

#include <algorithm>

namespace charrnn::cpu {

namespace {

constexpr std::int64_t kColumns = 16;  // a cache line of floats

}  // namespace

template <class E>
WeightGradients<E>::WeightGradients(CpuNetwork& network)
    : network_(network),
      products_(static_cast<std::size_t>(network.pool().size())),
      table_(static_cast<std::size_t>(network.shape().vocabulary * network.gates().width)) {}

template <class E>
std::size_t WeightGradients<E>::memory_bytes(const NetworkShape& n) {
  return static_cast<std::size_t>(n.vocabulary * gate_map(n.cell, n.hidden).width) * sizeof(float);
}

template <class E>
void WeightGradients<E>::sum(Slices& slices, const Window& window) {
  const ParameterLayout& layout = network_.layout();
  const int layers = network_.shape().layers;
  network_.pool().run(network_.pool().size(), [&](int part) {
    for (int l = 0; l < layers; ++l) {
      for (const GateBlock& block : network_.gates().hidden) {
        const auto x = [l](Slice<E>& s) { return s.hidden_before(l); };
        matrix(part, slices, window.steps, l, block, x, layout.weight_hh(l).offset);
      }
      if (l == 0) continue;
      for (const GateBlock& block : network_.gates().input) {
        const auto x = [l](Slice<E>& s) { return s.output(l - 1); };
        matrix(part, slices, window.steps, l, block, x, layout.weight_ih(l).offset);
      }
    }
    table(part, slices, window);
    head(part, slices, window.steps);
  });
  biases(slices);
}

/// to [m,H] = the sum over the slices of A^T X: A [T b, m] inside rows of `width` columns, X [T b, H].
template <class E>
template <class A, class X>
void WeightGradients<E>::sum_products(int part, Slices& slices, std::int64_t steps, std::int64_t m, std::int64_t width,
                                      const A& a_of, const X& x_of, float* to) {
  const std::int64_t H = network_.shape().hidden;
  for (Slice<E>& s : slices) {
    const ProductShape product{.m = m,
                               .n = H,
                               .k = steps * s.lanes(),
                               .a_row = 1,
                               .a_column = width,
                               .b_row = H,
                               .c_row = H,
                               .into = &s == &slices.front() ? Into::kOverwrite : Into::kAccumulate};
    products_[static_cast<std::size_t>(part)].multiply(product, a_of(s), x_of(s), to);
  }
}

template <class E>
template <class X>
void WeightGradients<E>::matrix(int part, Slices& slices, std::int64_t steps, int layer, const GateBlock& block,
                                const X& x_of, std::size_t tensor_offset) {
  const std::int64_t H = network_.shape().hidden;
  const Range mine = split_range(block.rows, part, network_.pool().size(), kColumns);
  if (mine.size() == 0) return;
  const auto gates = [&](Slice<E>& s) { return s.gate_gradients(layer) + block.gate_column + mine.begin; };
  sum_products(part, slices, steps, mine.size(), network_.gates().width, gates, x_of,
               network_.arena(Arena::kGradients) + tensor_offset + (block.weight_row + mine.begin) * H);
}

template <class E>
void WeightGradients<E>::head(int part, Slices& slices, std::int64_t steps) {
  const std::int64_t H = network_.shape().hidden, V = network_.shape().vocabulary;
  const Range mine = split_range(V, part, network_.pool().size());
  if (mine.size() == 0) return;
  const auto logits = [&](Slice<E>& s) { return s.logit_gradients() + mine.begin; };
  const auto top = [&](Slice<E>& s) { return s.output(network_.shape().layers - 1); };
  sum_products(part, slices, steps, mine.size(), V, logits, top,
               network_.arena(Arena::kGradients) + network_.layout().head_weight().offset + mine.begin * H);
}

/// The product with 1-of-k vectors is a sum of the rows of each character. Workers take columns, so that no two write
/// the same number and the order of additions is the text's.
template <class E>
void WeightGradients<E>::table(int part, Slices& slices, const Window& window) {
  const std::int64_t W = network_.gates().width, V = network_.shape().vocabulary;
  const Range mine = split_range(W, part, network_.pool().size(), kColumns);
  if (mine.size() == 0) return;
  float* const table = table_.data();
  for (std::int64_t v = 0; v < V; ++v) std::fill_n(table + v * W + mine.begin, mine.size(), 0.0F);
  for (Slice<E>& s : slices) {
    const E* const gates = s.gate_gradients(0);
    for (std::int64_t t = 0; t < window.steps; ++t) {
      for (std::int64_t lane = 0; lane < s.lanes(); ++lane) {
        const TokenId id = window.ids[static_cast<std::size_t>(t * window.batch + s.first() + lane)];
        add_rows(table + id * W + mine.begin, gates + (t * s.lanes() + lane) * W + mine.begin, 1, mine.size());
      }
    }
  }
  float* const gradient = network_.arena(Arena::kGradients) + network_.layout().weight_ih(0).offset;
  for (const GateBlock& block : network_.gates().input) {  // transposed, a cache line of columns at a time
    const std::int64_t begin = std::max(mine.begin, block.gate_column);
    const std::int64_t end = std::min(mine.end, block.gate_column + block.rows);
    for (std::int64_t first = begin; first < end; first += kColumns) {
      float* const to = gradient + (block.weight_row + first - block.gate_column) * V;
      const std::int64_t columns = std::min(kColumns, end - first);
      for (std::int64_t v = 0; v < V; ++v) {
        for (std::int64_t i = 0; i < columns; ++i) to[i * V + v] = table[v * W + first + i];
      }
    }
  }
}

template <class E>
void WeightGradients<E>::biases(const Slices& slices) {
  const ParameterLayout& layout = network_.layout();
  float* const g = network_.arena(Arena::kGradients);
  const auto sum_blocks = [&](const std::vector<GateBlock>& blocks, int layer, float* to) {
    for (const GateBlock& block : blocks) {
      std::fill_n(to + block.weight_row, block.rows, 0.0F);
      for (const Slice<E>& s : slices) {
        add_rows(to + block.weight_row, s.bias_sums(layer) + block.gate_column, 1, block.rows);
      }
    }
  };
  for (int l = 0; l < network_.shape().layers; ++l) {
    sum_blocks(network_.gates().input, l, g + layout.bias_ih(l).offset);
    sum_blocks(network_.gates().hidden, l, g + layout.bias_hh(l).offset);
  }
  float* const head = g + layout.head_bias().offset;
  std::fill_n(head, network_.shape().vocabulary, 0.0F);
  for (const Slice<E>& s : slices) add_rows(head, s.head_bias_sums(), 1, network_.shape().vocabulary);
}

template class WeightGradients<float>;
template class WeightGradients<Bf16>;

}  // namespace charrnn::cpu
