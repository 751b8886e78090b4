// Gradients of weights and biases from what the slices left behind: one product over T x b rows for each matrix and
// slice, and a sum of rows for the gather. Each worker makes its own rows of every matrix and adds the slices in their
// order, so that sums do not depend on which worker was faster.
#pragma once

#include <deque>

#include "cpu/slice.h"

namespace charrnn::cpu {

template <class E>
class WeightGradients {
 public:
  explicit WeightGradients(CpuNetwork& network);
  static std::size_t memory_bytes(const NetworkShape& n);

  /// Overwrites the network's gradients, on all workers of the pool.
  void sum(std::deque<Slice<E>>& slices, const Window& window);

 private:
  using Slices = std::deque<Slice<E>>;

  template <class A, class X>
  void sum_products(int part, Slices& slices, std::int64_t steps, std::int64_t m, std::int64_t width, const A& a_of,
                    const X& x_of, float* to);
  template <class X>
  void matrix(int part, Slices& slices, std::int64_t steps, int layer, const GateBlock& block, const X& x_of,
              std::size_t tensor_offset);
  void head(int part, Slices& slices, std::int64_t steps);
  void table(int part, Slices& slices, const Window& window);
  void biases(const Slices& slices);

  CpuNetwork& network_;
  std::deque<ProductCache> products_;  // one a worker
  HostBuffer table_;                   // [V,W] gradient of the rows that layer 0 gathers
};

}  // namespace charrnn::cpu
