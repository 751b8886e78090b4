#include "cuda/products.h"

#include <algorithm>
#include <bit>
#include <string>

namespace charrnn::cuda {

namespace {

void check_cublas(cublasStatus_t status, const char* what) {
  if (status == CUBLAS_STATUS_SUCCESS) return;
  throw DeviceError(std::string("cuda: ") + what + ": " + cublasLtGetStatusString(status));
}

cudaDataType_t type_of(Element e) {
  switch (e) {
    case Element::kF32: return CUDA_R_32F;
    case Element::kF16: return CUDA_R_16F;
    case Element::kBf16: break;
  }
  return CUDA_R_16BF;
}

template <class Handle, cublasStatus_t (*kDestroy)(Handle)>
struct DestroyLt {
  using pointer = Handle;
  void operator()(Handle handle) const noexcept { static_cast<void>(kDestroy(handle)); }
};
template <class Handle, cublasStatus_t (*kDestroy)(Handle)>
using OwnedLt = std::unique_ptr<std::remove_pointer_t<Handle>, DestroyLt<Handle, kDestroy>>;
using Layout = OwnedLt<cublasLtMatrixLayout_t, cublasLtMatrixLayoutDestroy>;
using Description = OwnedLt<cublasLtMatmulDesc_t, cublasLtMatmulDescDestroy>;
using Preference = OwnedLt<cublasLtMatmulPreference_t, cublasLtMatmulPreferenceDestroy>;

/// A row-major [rows, columns] is cuBLAS' column-major [columns, rows].
Layout layout_of(Element element, std::int64_t rows, std::int64_t columns, std::int64_t stride) {
  cublasLtMatrixLayout_t layout = nullptr;
  check_cublas(cublasLtMatrixLayoutCreate(&layout, type_of(element), static_cast<std::uint64_t>(columns),
                                          static_cast<std::uint64_t>(rows), stride),
               "cublasLtMatrixLayoutCreate");
  return Layout(layout);
}

/// The largest power of two, up to what cuBLASLt asks about, that divides the address.
unsigned alignment_of(const void* address) {
  constexpr unsigned kMost = 256;
  const auto value = std::bit_cast<std::uintptr_t>(address);
  return value == 0 ? kMost : std::min(kMost, 1U << std::min(8, std::countr_zero(value)));
}

template <class Handle, class Attribute, class Value>
void set(cublasStatus_t (*setter)(Handle, Attribute, const void*, std::size_t), Handle handle, Attribute attribute,
         Value value) {
  check_cublas(setter(handle, attribute, &value, sizeof(value)), "a setting of cuBLASLt");
}

}  // namespace

struct Products::Plan {
  Description description;
  Layout a, b, to;  // as the row-major product names them
  cublasLtMatmulAlgo_t algorithm{};
};

Products::Products(Arithmetic arithmetic)
    : arithmetic_(arithmetic), workspace_(kWorkspaceBytes, "the workspace of products") {
  check_cublas(cublasLtCreate(&handle_), "cublasLtCreate");
}

Products::~Products() {
  plans_.clear();
  static_cast<void>(cublasLtDestroy(handle_));
}

Products::Plan& Products::plan(const Product& p) {
  const std::int64_t m = p.a.transposed ? p.a.columns : p.a.rows;
  const std::int64_t k = p.a.transposed ? p.a.rows : p.a.columns;
  const std::int64_t n = p.b.transposed ? p.b.rows : p.b.columns;
  if ((p.b.transposed ? p.b.columns : p.b.rows) != k) throw ShapeError("Products: the inner sizes differ");
  const unsigned align_a = alignment_of(p.a.data), align_b = alignment_of(p.b.data), align_to = alignment_of(p.to);
  const Key key{m,           n,         k,       p.a.stride, p.b.stride, p.stride, p.a.transposed, p.b.transposed,
                p.a.element, p.element, align_a, align_b,    align_to};
  std::unique_ptr<Plan>& found = plans_[key];
  if (found != nullptr) return *found;

  auto made = std::make_unique<Plan>();
  const bool tf32 = arithmetic_ == Arithmetic::kTf32 && p.a.element == Element::kF32;
  cublasLtMatmulDesc_t description = nullptr;
  check_cublas(cublasLtMatmulDescCreate(&description, tf32 ? CUBLAS_COMPUTE_32F_FAST_TF32 : CUBLAS_COMPUTE_32F,
                                        CUDA_R_32F),
               "cublasLtMatmulDescCreate");
  made->description.reset(description);
  // to = a b in rows is to^T = b^T a^T in columns: cuBLAS' first operand is our second.
  const auto operation = [](const Matrix& x) { return x.transposed ? CUBLAS_OP_T : CUBLAS_OP_N; };
  set(cublasLtMatmulDescSetAttribute, description, CUBLASLT_MATMUL_DESC_TRANSA, operation(p.b));
  set(cublasLtMatmulDescSetAttribute, description, CUBLASLT_MATMUL_DESC_TRANSB, operation(p.a));
  made->a = layout_of(p.a.element, p.a.rows, p.a.columns, p.a.stride);
  made->b = layout_of(p.b.element, p.b.rows, p.b.columns, p.b.stride);
  made->to = layout_of(p.element, m, n, p.stride);

  cublasLtMatmulPreference_t preference = nullptr;
  check_cublas(cublasLtMatmulPreferenceCreate(&preference), "cublasLtMatmulPreferenceCreate");
  const Preference owned(preference);
  set(cublasLtMatmulPreferenceSetAttribute, preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, workspace_.size());
  // Sums of split products through the workspace in fp32, never by atomics: the same bits every time.
  set(cublasLtMatmulPreferenceSetAttribute, preference, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
      std::uint32_t{CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE});
  set(cublasLtMatmulPreferenceSetAttribute, preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, align_b);
  set(cublasLtMatmulPreferenceSetAttribute, preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, align_a);
  set(cublasLtMatmulPreferenceSetAttribute, preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, align_to);
  set(cublasLtMatmulPreferenceSetAttribute, preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, align_to);
  constexpr int kCandidates = 8;
  cublasLtMatmulHeuristicResult_t candidates[kCandidates]{};
  int count = 0;
  check_cublas(cublasLtMatmulAlgoGetHeuristic(handle_, description, made->b.get(), made->a.get(), made->to.get(),
                                              made->to.get(), preference, kCandidates, candidates, &count),
               "cublasLtMatmulAlgoGetHeuristic");
  const cublasLtMatmulHeuristicResult_t* const end = &candidates[0] + count;
  const cublasLtMatmulHeuristicResult_t* const begin = &candidates[0];
  const auto* const best = std::find_if(begin, end, [](const cublasLtMatmulHeuristicResult_t& c) {
    return c.state == CUBLAS_STATUS_SUCCESS && c.workspaceSize <= kWorkspaceBytes;
  });
  if (best == end) {
    throw DeviceError("cuda: cuBLASLt knows no algorithm for a product of " + std::to_string(m) + " x " +
                      std::to_string(n) + " x " + std::to_string(k) +
                      " on this GPU; another train.precision or model.hidden may have one");
  }
  made->algorithm = best->algo;
  found = std::move(made);
  return *found;
}

void Products::run(const Product& p, cudaStream_t stream) {
  Plan& chosen = plan(p);
  const float one = 1.0F, before = p.accumulate ? 1.0F : 0.0F;
  check_cublas(cublasLtMatmul(handle_, chosen.description.get(), &one, p.b.data, chosen.b.get(), p.a.data,
                              chosen.a.get(), &before, p.to, chosen.to.get(), p.to, chosen.to.get(), &chosen.algorithm,
                              workspace_.data(), workspace_.size(), stream),
               "cublasLtMatmul");
  launched("cublasLtMatmul", stream);
}

}  // namespace charrnn::cuda
