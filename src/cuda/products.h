// Products of matrices through cuBLASLt: fp32 accumulation, one algorithm for each problem, chosen once.
#pragma once

#include <cublasLt.h>

#include <map>
#include <memory>
#include <tuple>

#include "cuda/memory.h"
#include "kernels/element.h"

namespace charrnn::cuda {

/// What products compute with. kTf32 rounds fp32 inputs to 10 bits of mantissa for the tensor cores.
enum class Arithmetic { kExact, kTf32 };

/// A row-major matrix inside rows of `stride` elements.
struct Matrix {
  const void* data = nullptr;
  Element element = Element::kF32;
  std::int64_t rows = 0, columns = 0, stride = 0;
  bool transposed = false;  // the product takes its transpose
};

/// to [m,n] = a [m,k] times b [k,n], of a and b as they are after transposition.
struct Product {
  Matrix a, b;
  void* to = nullptr;
  Element element = Element::kF32;  // of `to`
  std::int64_t stride = 0;          // of `to`
  bool accumulate = false;          // += instead of =
};

class Products {
 public:
  static constexpr std::size_t kWorkspaceBytes = std::size_t{32} << 20U;  // what NVIDIA recommends for Hopper

  explicit Products(Arithmetic arithmetic);
  ~Products();
  Products(const Products&) = delete;
  Products& operator=(const Products&) = delete;

  /// All products of one object run on one stream: they share a workspace.
  void run(const Product& product, cudaStream_t stream);

 private:
  struct Plan;
  using Key = std::tuple<std::int64_t, std::int64_t, std::int64_t, std::int64_t, std::int64_t, std::int64_t, bool, bool,
                         Element, Element, unsigned, unsigned, unsigned>;
  Plan& plan(const Product& product);

  Arithmetic arithmetic_;
  cublasLtHandle_t handle_ = nullptr;
  DeviceBuffer<std::byte> workspace_;
  std::map<Key, std::unique_ptr<Plan>> plans_;
};

}  // namespace charrnn::cuda
