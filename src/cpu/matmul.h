// Matrix products through oneDNN: C [m,n] = A [m,k] * B [k,n] (+ C, or + bias), single-threaded on the calling thread.
// A and B have one type (cpu/element.h), C and B may differ from each other; sums are float. B is either packed
// weights, in whatever layout the product likes best, or a plain row-major matrix.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <oneapi/dnnl/dnnl.hpp>
#include <unordered_map>
#include <vector>

#include "cpu/element.h"
#include "cpu/host_buffer.h"

namespace charrnn::cpu {

/// A matrix [k,n] inside the parameter arena; element (i,j) stands at data[i * k_stride + j * n_stride].
struct WeightView {
  const float* data = nullptr;
  std::int64_t k = 0, n = 0;
  std::int64_t k_stride = 0, n_stride = 0;
};

/// One matrix of weights in every layout (and so, type) that some product asked for. Layouts are added under a lock;
/// packing again after an update happens between products.
class PackedWeights {
 public:
  explicit PackedWeights(const WeightView& view) : view_(view) {}
  PackedWeights(const PackedWeights&) = delete;
  PackedWeights& operator=(const PackedWeights&) = delete;
  ~PackedWeights() = default;

  std::int64_t k() const { return view_.k; }
  std::int64_t n() const { return view_.n; }

  /// The copy in `layout`, packed now if it is new. The reference stays valid.
  const dnnl::memory& in(const dnnl::memory::desc& layout);

  /// Brings a copy up to date with the arena.
  int copies() const { return static_cast<int>(copies_.size()); }
  void repack_copy(int copy);

 private:
  struct Copy {
    dnnl::memory::desc layout;
    HostArray<std::byte> storage;
    dnnl::memory source, packed;
    dnnl::reorder reorder;
  };

  WeightView view_;
  std::mutex mutex_;
  std::vector<std::unique_ptr<Copy>> copies_;
};

enum class Into { kOverwrite, kAccumulate, kAddBias };  // C = AB | C += AB | C = AB + bias [n]

struct ProductShape {
  std::int64_t m = 0, n = 0, k = 0;
  std::int64_t a_row = 0, a_column = 1;  // strides of A: a_column = 1 is row-major, a_row = 1 transposed
  std::int64_t b_row = 0;                // row stride of a plain B; 0: packed weights
  std::int64_t c_row = 0;                // row stride of C
  Into into = Into::kOverwrite;
  Element operand = Element::kF32, result = Element::kF32;  // of A and B; of C

  bool operator==(const ProductShape&) const = default;
};

/// Arrays have the types that the shape says: ProductCache's template takes care of that.
class Product {
 public:
  explicit Product(const ProductShape& shape);

  void run(const void* a, PackedWeights& b, void* c, const float* bias = nullptr);
  void run(const void* a, const void* b, void* c);

 private:
  void execute(const void* a, void* c);

  ProductShape shape_;
  dnnl::matmul::primitive_desc description_;
  dnnl::matmul primitive_;
  dnnl::memory a_, b_, c_, bias_;
  PackedWeights* packed_from_ = nullptr;  // whose copy stands in arguments_
  std::unordered_map<int, dnnl::memory> arguments_;
};

/// Products of one thread, made at first use and kept.
class ProductCache {
 public:
  Product& get(const ProductShape& shape);

  template <class E, class R>
  Product& get(ProductShape shape) {
    shape.operand = element_of<E>();
    shape.result = element_of<R>();
    return get(shape);
  }
  template <class E, class R>
  void multiply(const ProductShape& shape, const E* a, PackedWeights& b, R* c, const float* bias = nullptr) {
    get<E, R>(shape).run(a, b, c, bias);
  }
  template <class E, class R>
  void multiply(const ProductShape& shape, const E* a, const E* b, R* c) {
    get<E, R>(shape).run(a, b, c);
  }

 private:
  struct Hash {
    std::size_t operator()(const ProductShape& s) const;
  };
  std::unordered_map<ProductShape, std::unique_ptr<Product>, Hash> products_;
};

}  // namespace charrnn::cpu
