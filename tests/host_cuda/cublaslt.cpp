// cuBLASLt on the CPU: definitions of the functions of cublasLt.h that a matrix product needs, in double precision and
// rounded once at the end. It proves how the library is called, not the library: operands inside their memory, types
// that go together, an algorithm used for the problem it was asked for, a workspace for one stream at a time. What is
// not listed here is refused with CUBLAS_STATUS_NOT_SUPPORTED and a report (STAND_INS.md).
#include <cublasLt.h>

#include <algorithm>
#include <cstring>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "host_cuda/host_cuda.h"
#include "host_cuda/library_support.h"

struct cublasLtContext {};

namespace {

using host_cuda::Access;
using host_cuda::byte_offset;
using host_cuda::Element;

constexpr const char* kHandle = "cublasLtHandle_t";
constexpr const char* kDesc = "cublasLtMatmulDesc_t";
constexpr const char* kLayout = "cublasLtMatrixLayout_t";
constexpr const char* kPreference = "cublasLtMatmulPreference_t";

cublasStatus_t refuse(cublasStatus_t status, const std::string& function, const std::string& text) {
  host_cuda::report("misuse", function + ": " + text);
  return status;
}

// What the opaque structs of cublasLt.h hold. Callers may place those themselves, so all state is inside; a tag tells
// one that was set up from one that was not.

struct Desc {
  static constexpr std::uint64_t kTag = 0x6d61746d756c6465U;
  std::uint64_t tag = kTag;
  std::int32_t compute = 0;
  std::int32_t scale = CUDA_R_32F;
  std::int32_t pointer_mode = CUBLASLT_POINTER_MODE_HOST;
  std::int32_t transpose_a = CUBLAS_OP_N;
  std::int32_t transpose_b = CUBLAS_OP_N;
  std::uint32_t epilogue = CUBLASLT_EPILOGUE_DEFAULT;
  const void* bias = nullptr;
};

struct Layout {
  static constexpr std::uint64_t kTag = 0x6c61796f75746c61U;
  std::uint64_t tag = kTag;
  std::int64_t stride = 0;  // elements from one matrix of a batch to the next
  std::int64_t ld = 0;
  std::uint32_t rows = 0;
  std::uint32_t cols = 0;
  std::int32_t type = 0;
  std::int32_t order = CUBLASLT_ORDER_COL;
  std::int32_t batch = 1;
  std::int32_t unused = 0;  // no padding: a checksum reads every byte
};

struct Preference {
  static constexpr std::uint64_t kTag = 0x7072656665726e63U;
  std::uint64_t tag = kTag;
  std::uint64_t workspace_bytes = 0;
  std::uint32_t reduction_mask = 0;
  std::uint32_t alignment[4] = {256, 256, 256, 256};  // A, B, C, D: what the caller promises; 256 unless told
};

struct Algo {
  std::uint64_t problem = 0;  // checksum
  std::uint64_t workspace_bytes = 0;
  std::uint32_t alignment[4] = {};
};

template <class State, class Opaque>
void put(Opaque* opaque, const State& state) {
  static_assert(sizeof(State) <= sizeof(Opaque) && std::is_trivially_copyable_v<State>);
  std::memcpy(opaque, &state, sizeof state);
}
template <class State, class Opaque>
State get(const Opaque* opaque) {
  static_assert(sizeof(State) <= sizeof(Opaque) && std::is_trivially_copyable_v<State>);
  State state;
  std::memcpy(static_cast<void*>(&state), opaque, sizeof state);
  return state;
}
template <class State, class Opaque>
bool is_set_up(const Opaque* opaque) {
  return opaque != nullptr && get<State>(opaque).tag == State::kTag;
}

template <class Value>
cublasStatus_t set(Value& value, const void* buffer, std::size_t bytes, const char* function) {
  if (buffer == nullptr || bytes != sizeof value) {
    return refuse(CUBLAS_STATUS_INVALID_VALUE, function,
                  "the attribute has " + std::to_string(sizeof value) + " bytes, given " + std::to_string(bytes));
  }
  std::memcpy(&value, buffer, sizeof value);
  return CUBLAS_STATUS_SUCCESS;
}

template <class Opaque, class State>
cublasStatus_t create(Opaque** object, const State& state, const char* kind, const char* function) {
  if (host_cuda::call_must_fail(function)) return CUBLAS_STATUS_ALLOC_FAILED;
  if (object == nullptr) return refuse(CUBLAS_STATUS_INVALID_VALUE, function, "no place for the result");
  *object = new Opaque{};
  put(*object, state);
  host_cuda::object_made(kind, *object);
  return CUBLAS_STATUS_SUCCESS;
}

template <class Opaque>
cublasStatus_t destroy(Opaque* object, const char* kind, const char* function) {
  if (object == nullptr) return CUBLAS_STATUS_SUCCESS;
  if (!host_cuda::object_gone(kind, object)) {
    return refuse(CUBLAS_STATUS_INVALID_VALUE, function, "not alive: destroyed before, or never made");
  }
  *object = Opaque{};
  delete object;
  return CUBLAS_STATUS_SUCCESS;
}

// A problem: what a product computes, free of addresses.

bool element_of(std::int32_t type, Element& element) {
  switch (type) {
    case CUDA_R_32F: element = Element::kFloat; return true;
    case CUDA_R_16F: element = Element::kHalf; return true;
    case CUDA_R_16BF: element = Element::kBfloat16; return true;
    default: return false;
  }
}

/// A matrix in memory: `lines` contiguous runs of `line` elements, `ld` apart.
struct Matrix {
  Element element = Element::kFloat;
  bool row_major = false;
  std::size_t rows = 0, cols = 0, ld = 0;
  std::size_t batch = 1, stride = 0;

  std::size_t lines() const { return row_major ? rows : cols; }
  std::size_t line() const { return row_major ? cols : rows; }
  std::size_t line_bytes() const { return line() * bytes_of(element); }
  std::size_t line_start(std::size_t matrix, std::size_t index) const {  // in bytes
    return (matrix * stride + index * ld) * bytes_of(element);
  }
  std::size_t extent_bytes() const { return line_start(batch - 1, lines() - 1) + line_bytes(); }
};

struct Problem {
  bool tf32 = false, transpose_a = false, transpose_b = false, bias = false;
  Matrix a, b, c, d;
  std::size_t m = 0, n = 0, k = 0;
  std::uint64_t sum = 0;  // checksum of all that an algorithm may depend on
};

cublasStatus_t matrix_of(const Layout& layout, const char* name, const std::string& function, Matrix& matrix) {
  if (!element_of(layout.type, matrix.element)) {
    return refuse(CUBLAS_STATUS_NOT_SUPPORTED, function, std::string("type of ") + name + " is not fp32, fp16 or bf16");
  }
  matrix.row_major = layout.order == CUBLASLT_ORDER_ROW;
  matrix.rows = layout.rows;
  matrix.cols = layout.cols;
  if (layout.rows == 0 || layout.cols == 0 || layout.batch < 1 || layout.stride < 0 ||
      layout.ld < static_cast<std::int64_t>(matrix.line())) {
    return refuse(CUBLAS_STATUS_INVALID_VALUE, function,
                  std::string("layout of ") + name + " is " + std::to_string(layout.rows) + " x " +
                      std::to_string(layout.cols) + " with leading dimension " + std::to_string(layout.ld) +
                      ", batch " + std::to_string(layout.batch) + " of stride " + std::to_string(layout.stride));
  }
  matrix.ld = static_cast<std::size_t>(layout.ld);
  matrix.batch = static_cast<std::size_t>(layout.batch);
  matrix.stride = static_cast<std::size_t>(layout.stride);
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t problem_of(cublasLtMatmulDesc_t desc_opaque, cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                          cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d, const std::string& function,
                          Problem& problem) {
  if (!is_set_up<Desc>(desc_opaque) || !is_set_up<Layout>(a) || !is_set_up<Layout>(b) || !is_set_up<Layout>(c) ||
      !is_set_up<Layout>(d)) {
    return refuse(CUBLAS_STATUS_INVALID_VALUE, function, "a descriptor was destroyed, or never set up");
  }
  const auto desc = get<Desc>(desc_opaque);
  const Layout layouts[] = {get<Layout>(a), get<Layout>(b), get<Layout>(c), get<Layout>(d)};
  const struct {
    const char* name;
    Matrix* matrix;
  } operands[] = {{"A", &problem.a}, {"B", &problem.b}, {"C", &problem.c}, {"D", &problem.d}};
  for (int i = 0; i < 4; ++i) {
    const auto status = matrix_of(layouts[i], operands[i].name, function, *operands[i].matrix);
    if (status != CUBLAS_STATUS_SUCCESS) return status;
  }

  problem.tf32 = desc.compute == CUBLAS_COMPUTE_32F_FAST_TF32;
  problem.transpose_a = desc.transpose_a == CUBLAS_OP_T;
  problem.transpose_b = desc.transpose_b == CUBLAS_OP_T;
  problem.bias = desc.epilogue == CUBLASLT_EPILOGUE_BIAS;
  problem.m = problem.transpose_a ? problem.a.cols : problem.a.rows;
  problem.k = problem.transpose_a ? problem.a.rows : problem.a.cols;
  problem.n = problem.transpose_b ? problem.b.rows : problem.b.cols;
  const std::size_t k_of_b = problem.transpose_b ? problem.b.cols : problem.b.rows;
  const auto shape = [](const Matrix& x) { return std::to_string(x.rows) + " x " + std::to_string(x.cols); };
  if (k_of_b != problem.k || problem.c.rows != problem.m || problem.c.cols != problem.n ||
      problem.d.rows != problem.m || problem.d.cols != problem.n) {
    return refuse(CUBLAS_STATUS_INVALID_VALUE, function,
                  "shapes do not go together: A " + shape(problem.a) + (problem.transpose_a ? " transposed" : "") +
                      ", B " + shape(problem.b) + (problem.transpose_b ? " transposed" : "") + ", C " +
                      shape(problem.c) + ", D " + shape(problem.d));
  }
  if (problem.a.batch != problem.d.batch || problem.b.batch != problem.d.batch || problem.c.batch != problem.d.batch) {
    return refuse(CUBLAS_STATUS_INVALID_VALUE, function, "the batch counts of A, B, C and D differ");
  }

  const Element ab = problem.a.element, cd = problem.d.element;
  if (problem.b.element != ab || problem.c.element != cd || (cd != Element::kFloat && cd != ab) ||
      (problem.tf32 && ab != Element::kFloat)) {
    return refuse(CUBLAS_STATUS_NOT_SUPPORTED, function,
                  "types: A and B must be equal, C and D equal, and these either fp32 or A's; TF32 is for fp32 only");
  }
  if (problem.c.row_major != problem.d.row_major) {
    return refuse(CUBLAS_STATUS_NOT_SUPPORTED, function, "C and D are ordered differently");
  }
  // The bias runs along D's rows, one number a row. With rows contiguous the library has no such epilogue.
  if (problem.bias && problem.d.row_major) {
    return refuse(CUBLAS_STATUS_NOT_SUPPORTED, function, "epilogue BIAS with D in row order");
  }

  Desc keyed = desc;
  keyed.bias = nullptr;
  problem.sum = host_cuda::checksum(0, &keyed, sizeof keyed);
  for (const Layout& layout : layouts) problem.sum = host_cuda::checksum(problem.sum, &layout, sizeof layout);
  return CUBLAS_STATUS_SUCCESS;
}

// Operands by address. Checks that need no memory are made at the call, the others when the work runs.

struct Operand {
  const char* name;
  const Matrix* matrix;
  const void* memory;
  std::size_t first() const { return reinterpret_cast<std::size_t>(memory); }
  std::size_t end() const { return first() + matrix->extent_bytes(); }
};

/// Do any two lines share a byte? Slices of one wide array may interleave without that.
bool overlap(const Operand& x, const Operand& y) {
  if (x.end() <= y.first() || y.end() <= x.first()) return false;
  using Range = std::pair<std::size_t, std::size_t>;
  const auto ranges = [](const Operand& o) {
    std::vector<Range> lines;
    for (std::size_t i = 0; i < o.matrix->batch; ++i) {
      for (std::size_t j = 0; j < o.matrix->lines(); ++j) {
        const std::size_t start = o.first() + o.matrix->line_start(i, j);
        lines.emplace_back(start, start + o.matrix->line_bytes());
      }
    }
    std::sort(lines.begin(), lines.end());
    return lines;
  };
  const std::vector<Range> of_x = ranges(x), of_y = ranges(y);
  auto i = of_x.begin();
  auto j = of_y.begin();
  while (i != of_x.end() && j != of_y.end()) {
    if (i->first < j->second && j->first < i->second) return true;
    ++(i->second <= j->first ? i : j);
  }
  return false;
}

bool touch_matrix(const Operand& operand, std::size_t index, Access access) {
  const Matrix& x = *operand.matrix;
  const std::string what = std::string("cublasLtMatmul ") + operand.name;
  const void* start = byte_offset(operand.memory, x.line_start(index, 0));
  if (x.ld == x.line() || x.lines() == 1) return touch(start, x.lines() * x.line_bytes(), access, what.c_str());
  for (std::size_t i = 0; i < x.lines(); ++i) {
    const void* line = byte_offset(operand.memory, x.line_start(index, i));
    if (!touch(line, x.line_bytes(), access, what.c_str())) return false;
  }
  return true;
}

/// op(x) as doubles, row-major.
std::vector<double> load(const Matrix& x, const void* memory, std::size_t index, bool transpose) {
  std::vector<double> result(x.rows * x.cols);
  const std::size_t lines = x.lines(), length = x.line();
  if (x.row_major != transpose) {  // a line is a row of op(x)
    for (std::size_t i = 0; i < lines; ++i) {
      to_double(x.element, byte_offset(memory, x.line_start(index, i)), length, &result[i * length]);
    }
    return result;
  }
  std::vector<double> line(length);
  for (std::size_t i = 0; i < lines; ++i) {
    to_double(x.element, byte_offset(memory, x.line_start(index, i)), length, line.data());
    for (std::size_t j = 0; j < length; ++j) result[j * lines + i] = line[j];
  }
  return result;
}

void store(const Matrix& x, void* memory, std::size_t index, const std::vector<double>& values) {
  const std::size_t lines = x.lines(), length = x.line();
  std::vector<double> line(length);
  for (std::size_t i = 0; i < lines; ++i) {
    for (std::size_t j = 0; j < length; ++j) line[j] = x.row_major ? values[i * length + j] : values[j * lines + i];
    from_double(x.element, line.data(), length, byte_offset(memory, x.line_start(index, i)));
  }
}

/// c[m,n] += a[m,k] b[k,n], four rows at once, so that b is read a quarter as often.
void multiply(const double* a, const double* b, std::size_t m, std::size_t n, std::size_t k, double* c) {
  std::size_t i = 0;
  for (; i + 4 <= m; i += 4) {
    double *c0 = c + i * n, *c1 = c0 + n, *c2 = c1 + n, *c3 = c2 + n;
    for (std::size_t p = 0; p < k; ++p) {
      const double a0 = a[i * k + p], a1 = a[(i + 1) * k + p], a2 = a[(i + 2) * k + p], a3 = a[(i + 3) * k + p];
      const double* row = b + p * n;
      for (std::size_t j = 0; j < n; ++j) {
        c0[j] += a0 * row[j];
        c1[j] += a1 * row[j];
        c2[j] += a2 * row[j];
        c3[j] += a3 * row[j];
      }
    }
  }
  for (; i < m; ++i) {
    for (std::size_t p = 0; p < k; ++p) {
      for (std::size_t j = 0; j < n; ++j) c[i * n + j] += a[i * k + p] * b[p * n + j];
    }
  }
}

/// A call whose arguments were found good; what its turn on the stream needs.
struct Product {
  Problem problem;
  double alpha = 1, beta = 0;
  const void *a = nullptr, *b = nullptr, *c = nullptr, *bias = nullptr;
  void *d = nullptr, *workspace = nullptr;
  std::size_t workspace_bytes = 0;

  void run() const {
    for (std::size_t index = 0; index < problem.d.batch; ++index) {
      if (!touch_all(index)) return;
      std::vector<double> left = load(problem.a, a, index, problem.transpose_a);
      std::vector<double> right = load(problem.b, b, index, problem.transpose_b);
      if (problem.tf32) {
        for (double& x : left) x = host_cuda::round_to_tf32(x);
        for (double& x : right) x = host_cuda::round_to_tf32(x);
      }
      std::vector<double> result(problem.m * problem.n);
      multiply(left.data(), right.data(), problem.m, problem.n, problem.k, result.data());
      finish(index, result);
    }
  }

 private:
  bool touch_all(std::size_t index) const {
    if (!touch_matrix({"A", &problem.a, a}, index, Access::kRead)) return false;
    if (!touch_matrix({"B", &problem.b, b}, index, Access::kRead)) return false;
    if (beta != 0 && !touch_matrix({"C", &problem.c, c}, index, Access::kRead)) return false;
    if (problem.bias && !touch(bias, problem.m * bytes_of(problem.d.element), Access::kRead, "cublasLtMatmul bias")) {
      return false;
    }
    if (workspace_bytes > 0) {
      if (!touch(workspace, workspace_bytes, Access::kWrite, "cublasLtMatmul workspace")) return false;
      std::memset(workspace, 0xff, workspace_bytes);  // whoever keeps something there shall notice
    }
    return touch_matrix({"D", &problem.d, d}, index, Access::kWrite);
  }

  void finish(std::size_t index, std::vector<double>& result) const {
    for (double& x : result) x *= alpha;
    if (beta != 0) {
      const std::vector<double> addend = load(problem.c, c, index, false);
      for (std::size_t i = 0; i < result.size(); ++i) result[i] += beta * addend[i];
    }
    if (problem.bias) {
      std::vector<double> row_bias(problem.m);
      to_double(problem.d.element, bias, problem.m, row_bias.data());
      for (std::size_t i = 0; i < result.size(); ++i) result[i] += row_bias[i / problem.n];
    }
    store(problem.d, d, index, result);
  }
};

/// Addresses that cannot be right whatever lies there.
cublasStatus_t check_addresses(const Product& product, const Algo* algo) {
  const char* function = "cublasLtMatmul";
  const Problem& p = product.problem;
  const Operand operands[] = {
      {"A", &p.a, product.a}, {"B", &p.b, product.b}, {"C", &p.c, product.c}, {"D", &p.d, product.d}};
  for (int i = 0; i < 4; ++i) {
    const Operand& o = operands[i];
    const std::string name = o.name;
    if (o.memory == nullptr) return refuse(CUBLAS_STATUS_INVALID_VALUE, function, name + " is null");
    if (o.first() % bytes_of(o.matrix->element) != 0) {
      return refuse(CUBLAS_STATUS_INVALID_VALUE, function, name + " is not aligned to its elements");
    }
    if (algo != nullptr && o.first() % algo->alignment[i] != 0) {
      return refuse(CUBLAS_STATUS_NOT_SUPPORTED, function,
                    name + " is aligned to less than the " + std::to_string(algo->alignment[i]) +
                        " bytes that the preference promised when the algorithm was asked for");
    }
  }
  const Operand &a = operands[0], &b = operands[1], &c = operands[2], &d = operands[3];
  if (overlap(a, d) || overlap(b, d)) {
    return refuse(CUBLAS_STATUS_INVALID_VALUE, function, "D overlaps A or B");
  }
  const bool in_place = c.memory == d.memory && p.c.ld == p.d.ld && p.c.stride == p.d.stride;
  if (!in_place && product.beta != 0 && overlap(c, d)) {
    return refuse(CUBLAS_STATUS_INVALID_VALUE, function, "D overlaps C and is not the same matrix");
  }
  if (p.d.batch > 1 && p.d.stride < (p.d.lines() - 1) * p.d.ld + p.d.line()) {
    return refuse(CUBLAS_STATUS_INVALID_VALUE, function, "the matrices of D's batch overlap");
  }
  if (p.bias) {
    if (product.bias == nullptr) return refuse(CUBLAS_STATUS_INVALID_VALUE, function, "epilogue BIAS without a bias");
    if (reinterpret_cast<std::size_t>(product.bias) % bytes_of(p.d.element) != 0) {
      return refuse(CUBLAS_STATUS_INVALID_VALUE, function, "the bias is not aligned to its elements");
    }
  }
  return CUBLAS_STATUS_SUCCESS;
}

}  // namespace

// The library.

cublasStatus_t cublasLtCreate(cublasLtHandle_t* handle) {
  if (host_cuda::call_must_fail("cublasLtCreate")) return CUBLAS_STATUS_ALLOC_FAILED;
  if (handle == nullptr) return refuse(CUBLAS_STATUS_INVALID_VALUE, "cublasLtCreate", "no place for the result");
  *handle = new cublasLtContext{};
  host_cuda::object_made(kHandle, *handle);
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtDestroy(cublasLtHandle_t handle) {
  if (!host_cuda::object_gone(kHandle, handle)) {
    return refuse(CUBLAS_STATUS_NOT_INITIALIZED, "cublasLtDestroy", "no such handle");
  }
  delete handle;
  return CUBLAS_STATUS_SUCCESS;
}

size_t cublasLtGetVersion() { return CUBLAS_VERSION; }

const char* cublasLtGetStatusName(cublasStatus_t status) {
  switch (status) {
    case CUBLAS_STATUS_SUCCESS: return "CUBLAS_STATUS_SUCCESS";
    case CUBLAS_STATUS_NOT_INITIALIZED: return "CUBLAS_STATUS_NOT_INITIALIZED";
    case CUBLAS_STATUS_ALLOC_FAILED: return "CUBLAS_STATUS_ALLOC_FAILED";
    case CUBLAS_STATUS_INVALID_VALUE: return "CUBLAS_STATUS_INVALID_VALUE";
    case CUBLAS_STATUS_ARCH_MISMATCH: return "CUBLAS_STATUS_ARCH_MISMATCH";
    case CUBLAS_STATUS_MAPPING_ERROR: return "CUBLAS_STATUS_MAPPING_ERROR";
    case CUBLAS_STATUS_EXECUTION_FAILED: return "CUBLAS_STATUS_EXECUTION_FAILED";
    case CUBLAS_STATUS_INTERNAL_ERROR: return "CUBLAS_STATUS_INTERNAL_ERROR";
    case CUBLAS_STATUS_NOT_SUPPORTED: return "CUBLAS_STATUS_NOT_SUPPORTED";
    case CUBLAS_STATUS_LICENSE_ERROR: return "CUBLAS_STATUS_LICENSE_ERROR";
  }
  return "unknown cublasStatus_t";
}

const char* cublasLtGetStatusString(cublasStatus_t status) { return cublasLtGetStatusName(status); }

// Descriptors.

cublasStatus_t cublasLtMatmulDescInit_internal(cublasLtMatmulDesc_t desc, size_t size, cublasComputeType_t compute,
                                               cudaDataType_t scale) {
  const char* function = "cublasLtMatmulDescInit";
  if (host_cuda::call_must_fail(function)) return CUBLAS_STATUS_ALLOC_FAILED;
  if (desc == nullptr || size < sizeof *desc) return refuse(CUBLAS_STATUS_ALLOC_FAILED, function, "too small");
  if ((compute != CUBLAS_COMPUTE_32F && compute != CUBLAS_COMPUTE_32F_FAST_TF32) || scale != CUDA_R_32F) {
    return refuse(CUBLAS_STATUS_NOT_SUPPORTED, function, "compute type is not 32F or 32F_FAST_TF32 with scale 32F");
  }
  Desc state;
  state.compute = compute;
  put(desc, state);
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t* desc, cublasComputeType_t compute, cudaDataType_t scale) {
  const char* function = "cublasLtMatmulDescCreate";
  if ((compute != CUBLAS_COMPUTE_32F && compute != CUBLAS_COMPUTE_32F_FAST_TF32) || scale != CUDA_R_32F) {
    return refuse(CUBLAS_STATUS_NOT_SUPPORTED, function, "compute type is not 32F or 32F_FAST_TF32 with scale 32F");
  }
  Desc state;
  state.compute = compute;
  return create(desc, state, kDesc, function);
}

cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t desc) {
  return destroy(desc, kDesc, "cublasLtMatmulDescDestroy");
}

cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t desc, cublasLtMatmulDescAttributes_t attribute,
                                              const void* buffer, size_t bytes) {
  const char* function = "cublasLtMatmulDescSetAttribute";
  if (host_cuda::call_must_fail(function)) return CUBLAS_STATUS_INVALID_VALUE;
  if (!is_set_up<Desc>(desc)) return refuse(CUBLAS_STATUS_INVALID_VALUE, function, "not a descriptor");
  auto state = get<Desc>(desc);
  cublasStatus_t status = CUBLAS_STATUS_SUCCESS;
  switch (attribute) {
    case CUBLASLT_MATMUL_DESC_POINTER_MODE: status = set(state.pointer_mode, buffer, bytes, function); break;
    case CUBLASLT_MATMUL_DESC_TRANSA: status = set(state.transpose_a, buffer, bytes, function); break;
    case CUBLASLT_MATMUL_DESC_TRANSB: status = set(state.transpose_b, buffer, bytes, function); break;
    case CUBLASLT_MATMUL_DESC_EPILOGUE: status = set(state.epilogue, buffer, bytes, function); break;
    case CUBLASLT_MATMUL_DESC_BIAS_POINTER: status = set(state.bias, buffer, bytes, function); break;
    default: return refuse(CUBLAS_STATUS_NOT_SUPPORTED, function, "attribute " + std::to_string(attribute));
  }
  if (status != CUBLAS_STATUS_SUCCESS) return status;
  const auto is_operation = [](std::int32_t op) { return op == CUBLAS_OP_N || op == CUBLAS_OP_T; };
  if (state.pointer_mode != CUBLASLT_POINTER_MODE_HOST || !is_operation(state.transpose_a) ||
      !is_operation(state.transpose_b) ||
      (state.epilogue != CUBLASLT_EPILOGUE_DEFAULT && state.epilogue != CUBLASLT_EPILOGUE_BIAS)) {
    return refuse(CUBLAS_STATUS_NOT_SUPPORTED, function,
                  "value of attribute " + std::to_string(attribute) +
                      ": here are pointer mode host, transposes N and T, epilogues DEFAULT and BIAS");
  }
  put(desc, state);
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatrixLayoutInit_internal(cublasLtMatrixLayout_t layout, size_t size, cudaDataType type,
                                                 uint64_t rows, uint64_t cols, int64_t ld) {
  const char* function = "cublasLtMatrixLayoutInit";
  if (host_cuda::call_must_fail(function)) return CUBLAS_STATUS_ALLOC_FAILED;
  if (layout == nullptr || size < sizeof *layout) return refuse(CUBLAS_STATUS_ALLOC_FAILED, function, "too small");
  Layout state;
  state.type = type;
  state.rows = static_cast<std::uint32_t>(rows);
  state.cols = static_cast<std::uint32_t>(cols);
  state.ld = ld;
  put(layout, state);
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t* layout, cudaDataType type, uint64_t rows,
                                          uint64_t cols, int64_t ld) {
  Layout state;
  state.type = type;
  state.rows = static_cast<std::uint32_t>(rows);
  state.cols = static_cast<std::uint32_t>(cols);
  state.ld = ld;
  return create(layout, state, kLayout, "cublasLtMatrixLayoutCreate");
}

cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t layout) {
  return destroy(layout, kLayout, "cublasLtMatrixLayoutDestroy");
}

cublasStatus_t cublasLtMatrixLayoutSetAttribute(cublasLtMatrixLayout_t layout,
                                                cublasLtMatrixLayoutAttribute_t attribute, const void* buffer,
                                                size_t bytes) {
  const char* function = "cublasLtMatrixLayoutSetAttribute";
  if (host_cuda::call_must_fail(function)) return CUBLAS_STATUS_INVALID_VALUE;
  if (!is_set_up<Layout>(layout)) return refuse(CUBLAS_STATUS_INVALID_VALUE, function, "not a layout");
  auto state = get<Layout>(layout);
  cublasStatus_t status = CUBLAS_STATUS_SUCCESS;
  switch (attribute) {
    case CUBLASLT_MATRIX_LAYOUT_ORDER: status = set(state.order, buffer, bytes, function); break;
    case CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT: status = set(state.batch, buffer, bytes, function); break;
    case CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET: status = set(state.stride, buffer, bytes, function); break;
    default: return refuse(CUBLAS_STATUS_NOT_SUPPORTED, function, "attribute " + std::to_string(attribute));
  }
  if (status != CUBLAS_STATUS_SUCCESS) return status;
  if (state.order != CUBLASLT_ORDER_COL && state.order != CUBLASLT_ORDER_ROW) {
    return refuse(CUBLAS_STATUS_NOT_SUPPORTED, function, "order " + std::to_string(state.order));
  }
  put(layout, state);
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceInit_internal(cublasLtMatmulPreference_t preference, size_t size) {
  const char* function = "cublasLtMatmulPreferenceInit";
  if (host_cuda::call_must_fail(function)) return CUBLAS_STATUS_ALLOC_FAILED;
  if (preference == nullptr || size < sizeof *preference) {
    return refuse(CUBLAS_STATUS_ALLOC_FAILED, function, "too small");
  }
  put(preference, Preference{});
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t* preference) {
  return create(preference, Preference{}, kPreference, "cublasLtMatmulPreferenceCreate");
}

cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t preference) {
  return destroy(preference, kPreference, "cublasLtMatmulPreferenceDestroy");
}

cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t preference,
                                                    cublasLtMatmulPreferenceAttributes_t attribute, const void* buffer,
                                                    size_t bytes) {
  const char* function = "cublasLtMatmulPreferenceSetAttribute";
  if (host_cuda::call_must_fail(function)) return CUBLAS_STATUS_INVALID_VALUE;
  if (!is_set_up<Preference>(preference)) return refuse(CUBLAS_STATUS_INVALID_VALUE, function, "not a preference");
  auto state = get<Preference>(preference);
  cublasStatus_t status = CUBLAS_STATUS_SUCCESS;
  switch (attribute) {
    case CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES: status = set(state.workspace_bytes, buffer, bytes, function); break;
    case CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK: status = set(state.reduction_mask, buffer, bytes, function); break;
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES: status = set(state.alignment[0], buffer, bytes, function); break;
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES: status = set(state.alignment[1], buffer, bytes, function); break;
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES: status = set(state.alignment[2], buffer, bytes, function); break;
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES: status = set(state.alignment[3], buffer, bytes, function); break;
    default: return refuse(CUBLAS_STATUS_NOT_SUPPORTED, function, "attribute " + std::to_string(attribute));
  }
  if (status != CUBLAS_STATUS_SUCCESS) return status;
  if (std::count(std::begin(state.alignment), std::end(state.alignment), 0U) > 0) {
    return refuse(CUBLAS_STATUS_INVALID_VALUE, function, "an alignment of 0 bytes");
  }
  put(preference, state);
  return CUBLAS_STATUS_SUCCESS;
}

// Products.

cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t handle, cublasLtMatmulDesc_t desc,
                                              cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                              cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                              cublasLtMatmulPreference_t preference, int requested,
                                              cublasLtMatmulHeuristicResult_t results[], int* count) {
  const char* function = "cublasLtMatmulAlgoGetHeuristic";
  if (host_cuda::call_must_fail(function)) return CUBLAS_STATUS_NOT_SUPPORTED;
  if (!host_cuda::object_lives(kHandle, handle)) {
    return refuse(CUBLAS_STATUS_NOT_INITIALIZED, function, "no such handle");
  }
  if (!is_set_up<Preference>(preference) || requested <= 0 || results == nullptr || count == nullptr) {
    return refuse(CUBLAS_STATUS_INVALID_VALUE, function, "no preference, or no place for results");
  }
  Problem problem;
  const auto status = problem_of(desc, a, b, c, d, function, problem);
  if (status != CUBLAS_STATUS_SUCCESS) return status;

  const auto preferred = get<Preference>(preference);
  constexpr std::uint64_t kWorkspaceUnit = 256, kWorkspaceMost = 4096;
  Algo algo;
  algo.problem = problem.sum;
  algo.workspace_bytes = std::min(preferred.workspace_bytes, kWorkspaceMost) / kWorkspaceUnit * kWorkspaceUnit;
  std::copy(std::begin(preferred.alignment), std::end(preferred.alignment), algo.alignment);
  results[0] = {};
  put(&results[0].algo, algo);
  results[0].workspaceSize = algo.workspace_bytes;
  results[0].state = CUBLAS_STATUS_SUCCESS;
  results[0].wavesCount = 1;
  *count = 1;
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulAlgoCheck(cublasLtHandle_t handle, cublasLtMatmulDesc_t desc, cublasLtMatrixLayout_t a,
                                       cublasLtMatrixLayout_t b, cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                       const cublasLtMatmulAlgo_t* opaque_algo,
                                       cublasLtMatmulHeuristicResult_t* result) {
  const char* function = "cublasLtMatmulAlgoCheck";
  if (host_cuda::call_must_fail(function)) return CUBLAS_STATUS_NOT_SUPPORTED;
  if (!host_cuda::object_lives(kHandle, handle)) {
    return refuse(CUBLAS_STATUS_NOT_INITIALIZED, function, "no such handle");
  }
  if (opaque_algo == nullptr || result == nullptr) {
    return refuse(CUBLAS_STATUS_INVALID_VALUE, function, "no algorithm, or no place for the result");
  }
  Problem problem;
  const auto status = problem_of(desc, a, b, c, d, function, problem);
  if (status != CUBLAS_STATUS_SUCCESS) return status;
  // A legitimate question, so a wrong algorithm is an answer and no report.
  const auto algo = get<Algo>(opaque_algo);
  if (algo.problem != problem.sum) return CUBLAS_STATUS_INVALID_VALUE;
  result->workspaceSize = algo.workspace_bytes;
  result->state = CUBLAS_STATUS_SUCCESS;
  result->wavesCount = 1;
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t handle, cublasLtMatmulDesc_t desc, const void* alpha, const void* a,
                              cublasLtMatrixLayout_t a_layout, const void* b, cublasLtMatrixLayout_t b_layout,
                              const void* beta, const void* c, cublasLtMatrixLayout_t c_layout, void* d,
                              cublasLtMatrixLayout_t d_layout, const cublasLtMatmulAlgo_t* opaque_algo, void* workspace,
                              size_t workspace_bytes, cudaStream_t stream) {
  const char* function = "cublasLtMatmul";
  if (host_cuda::call_must_fail(function)) return CUBLAS_STATUS_EXECUTION_FAILED;
  if (!host_cuda::object_lives(kHandle, handle)) {
    return refuse(CUBLAS_STATUS_NOT_INITIALIZED, function, "no such handle");
  }
  if (alpha == nullptr || beta == nullptr) {
    return refuse(CUBLAS_STATUS_INVALID_VALUE, function, "alpha or beta is null");
  }
  Product product;
  auto status = problem_of(desc, a_layout, b_layout, c_layout, d_layout, function, product.problem);
  if (status != CUBLAS_STATUS_SUCCESS) return status;
  product.alpha = static_cast<double>(*static_cast<const float*>(alpha));
  product.beta = static_cast<double>(*static_cast<const float*>(beta));
  product.a = a;
  product.b = b;
  product.c = c;
  product.d = d;
  product.bias = get<Desc>(desc).bias;

  Algo algo;
  if (opaque_algo != nullptr) {  // null: the library asks its heuristic itself
    algo = get<Algo>(opaque_algo);
    if (algo.problem != product.problem.sum) {
      return refuse(CUBLAS_STATUS_INVALID_VALUE, function, "the algorithm was asked for another problem");
    }
    if (workspace_bytes < algo.workspace_bytes || (workspace == nullptr && algo.workspace_bytes > 0)) {
      return refuse(CUBLAS_STATUS_INVALID_VALUE, function,
                    "the algorithm needs a workspace of " + std::to_string(algo.workspace_bytes) + " bytes, given " +
                        std::to_string(workspace_bytes));
    }
    product.workspace = workspace;
    product.workspace_bytes = algo.workspace_bytes;
  }
  if (reinterpret_cast<std::size_t>(workspace) % 16 != 0) {
    return refuse(CUBLAS_STATUS_INVALID_VALUE, function, "the workspace is not aligned to 16 bytes");
  }
  status = check_addresses(product, opaque_algo != nullptr ? &algo : nullptr);
  if (status != CUBLAS_STATUS_SUCCESS) return status;
  const cudaError_t error = host_cuda::enqueue(stream, function, [product] { product.run(); });
  return error == cudaSuccess ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_EXECUTION_FAILED;
}
