// The stand-in of cuBLASLt against a plain triple loop, and what it must report.
#include <cublasLt.h>

#include <cmath>
#include <limits>
#include <string>

#include "host_cuda/device_array.h"
#include "host_cuda/host_cuda.h"
#include "host_cuda/library_support.h"
#include "support/catch.h"

using namespace host_cuda;

namespace {

cudaDataType type_of(Element element) {
  switch (element) {
    case Element::kFloat: return CUDA_R_32F;
    case Element::kHalf: return CUDA_R_16F;
    case Element::kBfloat16: return CUDA_R_16BF;
  }
  return CUDA_R_32F;
}

void ok(cublasStatus_t status) {
  INFO(cublasLtGetStatusString(status));
  REQUIRE(status == CUBLAS_STATUS_SUCCESS);
}

/// One product with all that may vary about it. The arrays are made by run(), or before it to be spoilt.
struct Case {
  std::size_t m = 5, n = 7, k = 3;
  bool transpose_a = false, transpose_b = false;
  bool row_major = false, bias = false;
  std::size_t extra_ld = 0;  // beyond the shortest leading dimension
  int batch = 1;
  float alpha = 1, beta = 0;
  Element ab = Element::kFloat, cd = Element::kFloat;
  cublasComputeType_t compute = CUBLAS_COMPUTE_32F;
  std::uint64_t workspace_bytes = 0;

  struct Operand {
    std::size_t rows, cols, ld, stride;
    bool row_major;
    std::size_t at(std::size_t i, std::size_t r, std::size_t c) const {
      return i * stride + (row_major ? r * ld + c : c * ld + r);
    }
  };
  Operand operand(std::size_t rows, std::size_t cols) const {
    const std::size_t ld = (row_major ? cols : rows) + extra_ld;
    return {rows, cols, ld, ld * (row_major ? rows : cols), row_major};
  }
  Operand a() const { return transpose_a ? operand(k, m) : operand(m, k); }
  Operand b() const { return transpose_b ? operand(n, k) : operand(k, n); }
  Operand d() const { return operand(m, n); }
  std::size_t count(const Operand& o) const { return o.stride * static_cast<std::size_t>(batch); }
};

/// Handle, descriptors and an algorithm for a case.
struct Plan {
  cublasLtHandle_t handle = nullptr;
  cublasLtMatmulDesc_t desc = nullptr;
  cublasLtMatrixLayout_t a = nullptr, b = nullptr, d = nullptr;
  cublasLtMatmulPreference_t preference = nullptr;
  cublasLtMatmulHeuristicResult_t found{};

  explicit Plan(const Case& c, const void* bias = nullptr) {
    ok(cublasLtCreate(&handle));
    ok(cublasLtMatmulDescCreate(&desc, c.compute, CUDA_R_32F));
    const std::int32_t op_a = c.transpose_a ? CUBLAS_OP_T : CUBLAS_OP_N;
    const std::int32_t op_b = c.transpose_b ? CUBLAS_OP_T : CUBLAS_OP_N;
    ok(cublasLtMatmulDescSetAttribute(desc, CUBLASLT_MATMUL_DESC_TRANSA, &op_a, sizeof op_a));
    ok(cublasLtMatmulDescSetAttribute(desc, CUBLASLT_MATMUL_DESC_TRANSB, &op_b, sizeof op_b));
    if (c.bias) {
      const std::uint32_t epilogue = CUBLASLT_EPILOGUE_BIAS;
      ok(cublasLtMatmulDescSetAttribute(desc, CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue, sizeof epilogue));
      ok(cublasLtMatmulDescSetAttribute(desc, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &bias, sizeof bias));
    }
    a = layout(c, c.a(), c.ab);
    b = layout(c, c.b(), c.ab);
    d = layout(c, c.d(), c.cd);
    ok(cublasLtMatmulPreferenceCreate(&preference));
    ok(cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &c.workspace_bytes,
                                            sizeof c.workspace_bytes));
  }
  ~Plan() {
    cublasLtMatmulPreferenceDestroy(preference);
    for (cublasLtMatrixLayout_t x : {a, b, d}) cublasLtMatrixLayoutDestroy(x);
    cublasLtMatmulDescDestroy(desc);
    cublasLtDestroy(handle);
  }
  Plan(const Plan&) = delete;
  Plan& operator=(const Plan&) = delete;

  static cublasLtMatrixLayout_t layout(const Case& c, const Case::Operand& o, Element element) {
    cublasLtMatrixLayout_t layout = nullptr;
    ok(cublasLtMatrixLayoutCreate(&layout, type_of(element), o.rows, o.cols, static_cast<std::int64_t>(o.ld)));
    const std::int32_t order = c.row_major ? CUBLASLT_ORDER_ROW : CUBLASLT_ORDER_COL, batch = c.batch;
    const auto stride = static_cast<std::int64_t>(o.stride);
    ok(cublasLtMatrixLayoutSetAttribute(layout, CUBLASLT_MATRIX_LAYOUT_ORDER, &order, sizeof order));
    ok(cublasLtMatrixLayoutSetAttribute(layout, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, &batch, sizeof batch));
    ok(cublasLtMatrixLayoutSetAttribute(layout, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, &stride, sizeof stride));
    return layout;
  }

  cublasStatus_t find() {
    int count = 0;
    return cublasLtMatmulAlgoGetHeuristic(handle, desc, a, b, d, d, preference, 1, &found, &count);
  }
  cublasStatus_t run(const Case& c, const void* a_at, const void* b_at, const void* c_at, void* d_at,
                     cudaStream_t stream, void* workspace = nullptr, std::size_t workspace_bytes = 0) {
    return cublasLtMatmul(handle, desc, &c.alpha, a_at, a, b_at, b, &c.beta, c_at, d, d_at, d, &found.algo, workspace,
                          workspace_bytes, stream);
  }
};

/// Runs a case on noise, D in place of C, and compares with a triple loop over what was stored.
void check(const Case& c) {
  DeviceArray a(c.ab, noise(c.count(c.a()), 1)), b(c.ab, noise(c.count(c.b()), 2));
  DeviceArray d(c.cd, noise(c.count(c.d()), 3)), bias(c.cd, noise(c.m, 4));
  DeviceArray workspace(Element::kFloat, 64 + c.workspace_bytes / 4);
  const std::vector<double> before = d.read(), a_host = a.read(), b_host = b.read(), bias_host = bias.read();
  {
    Stream stream;
    Plan plan(c, bias.at());
    ok(plan.find());
    ok(plan.run(c, a.at(), b.at(), d.at(), d.at(), stream, workspace.at(), workspace.bytes()));
    stream.wait();
  }
  const std::vector<double> after = d.read();

  const auto input = [&](double x) { return c.compute == CUBLAS_COMPUTE_32F ? x : round_to_tf32(x); };
  std::vector<double> expected = before;  // and so what lies between the columns is as it was
  for (std::size_t i = 0; i < static_cast<std::size_t>(c.batch); ++i) {
    for (std::size_t row = 0; row < c.m; ++row) {
      for (std::size_t col = 0; col < c.n; ++col) {
        double sum = 0;
        for (std::size_t p = 0; p < c.k; ++p) {
          sum += input(a_host[c.transpose_a ? c.a().at(i, p, row) : c.a().at(i, row, p)]) *
                 input(b_host[c.transpose_b ? c.b().at(i, col, p) : c.b().at(i, p, col)]);
        }
        double& place = expected[c.d().at(i, row, col)];
        place = rounded(c.cd, static_cast<double>(c.alpha) * sum + static_cast<double>(c.beta) * place +
                                  (c.bias ? bias_host[row] : 0));
      }
    }
  }
  CHECK(after == expected);  // the same sums of doubles in the same order
  CHECK(take_reports().empty());
  CHECK(library_objects().empty());
}

/// Expects exactly one finding, whose text holds `words`.
void expect_report(const std::string& kind, const std::string& words) {
  const std::vector<Report> reports = take_reports();
  REQUIRE(reports.size() == 1);
  INFO(reports[0].text);
  CHECK(reports[0].kind == kind);
  CHECK(reports[0].text.find(words) != std::string::npos);
}

struct Fresh {
  Fresh() { reset(Settings{}); }
};

}  // namespace

TEST_CASE_METHOD(Fresh,
                 "a product equals a triple loop for every transpose and order, and between columns nothing changes") {
  for (const bool transpose_a : {false, true}) {
    for (const bool transpose_b : {false, true}) {
      for (const bool row_major : {false, true}) {
        for (const std::size_t extra : {0, 2}) {
          Case c;
          c.transpose_a = transpose_a;
          c.transpose_b = transpose_b;
          c.row_major = row_major;
          c.extra_ld = extra;
          INFO("transposes " << transpose_a << transpose_b << " row " << row_major << " extra " << extra);
          check(c);
        }
      }
    }
  }
}

TEST_CASE_METHOD(Fresh, "alpha, beta, a bias along the rows, a batch and one-element sizes are right") {
  for (const float beta : {0.0F, 1.0F, 0.5F}) {
    Case c;
    c.alpha = 1.5F;
    c.beta = beta;
    c.bias = true;
    check(c);
    c.batch = 3;
    check(c);
    c.m = 1;
    check(c);
    c.n = c.k = 1;
    check(c);
  }
}

TEST_CASE_METHOD(Fresh, "16-bit inputs with outputs of 16 and 32 bits, and TF32, round once") {
  for (const Element ab : {Element::kHalf, Element::kBfloat16}) {
    for (const Element cd : {ab, Element::kFloat}) {
      Case c;
      c.k = 37;
      c.ab = ab;
      c.cd = cd;
      c.beta = 1;
      c.bias = true;
      c.transpose_a = true;
      check(c);
    }
  }
  Case c;
  c.compute = CUBLAS_COMPUTE_32F_FAST_TF32;
  check(c);
}

TEST_CASE("rounding to TF32 keeps 10 bits, to nearest and ties to even") {
  CHECK(round_to_tf32(1 + 0x1p-10) == 1 + 0x1p-10);
  CHECK(round_to_tf32(1 + 0x1p-11) == 1);
  CHECK(round_to_tf32(1 + 0x3p-11) == 1 + 0x1p-9);
  CHECK(round_to_tf32(-(1 + 0x1p-11 + 0x1p-20)) == -(1 + 0x1p-10));
  CHECK(round_to_tf32(0) == 0);
  CHECK(std::isinf(round_to_tf32(std::numeric_limits<double>::infinity())));
  CHECK(std::isnan(round_to_tf32(std::numeric_limits<double>::quiet_NaN())));
}

TEST_CASE_METHOD(Fresh, "with beta 0 nothing of C is read, so that a NaN or uninitialised memory there does no harm") {
  Case c;
  DeviceArray a(c.ab, noise(c.count(c.a()), 1)), b(c.ab, noise(c.count(c.b()), 2)), d(c.cd, c.count(c.d()));
  Stream stream;
  Plan plan(c);
  ok(plan.find());
  ok(plan.run(c, a.at(), b.at(), d.at(), d.at(), stream));
  stream.wait();
  CHECK(take_reports().empty());
  d.put(std::vector<double>(d.count(), std::numeric_limits<double>::quiet_NaN()));
  ok(plan.run(c, a.at(), b.at(), d.at(), d.at(), stream));
  stream.wait();
  for (const double x : d.read()) CHECK(std::isfinite(x));
  CHECK(take_reports().empty());
}

TEST_CASE_METHOD(Fresh, "arguments are taken at the call: the descriptor may go before the product runs") {
  Case c;
  DeviceArray a(c.ab, noise(c.count(c.a()), 1)), b(c.ab, noise(c.count(c.b()), 2)), d(c.cd, c.count(c.d()));
  Stream stream;
  {
    Plan plan(c);
    ok(plan.find());
    Case gone = c;
    ok(plan.run(gone, a.at(), b.at(), d.at(), d.at(), stream));
    gone.alpha = 17;
  }
  stream.wait();
  const double first = a.read()[0] * b.read()[0] + a.read()[c.m] * b.read()[1] + a.read()[2 * c.m] * b.read()[2];
  CHECK(d.read()[0] == rounded(Element::kFloat, first));
}

TEST_CASE_METHOD(Fresh, "an operand shorter than its layout says is out of bounds, whichever it is") {
  Case c;
  c.beta = 1;
  for (const int which : {0, 1, 2, 3}) {
    const auto count = [&](int operand, std::size_t full) { return full - (operand == which ? 1 : 0); };
    DeviceArray a(c.ab, noise(count(0, c.count(c.a())), 1)), b(c.ab, noise(count(1, c.count(c.b())), 2));
    DeviceArray in(c.cd, noise(count(2, c.count(c.d())), 3)), out(c.cd, count(3, c.count(c.d())));
    Stream stream;
    Plan plan(c);
    ok(plan.find());
    ok(plan.run(c, a.at(), b.at(), in.at(), out.at(), stream));
    stream.wait();
    expect_report("out of bounds", std::string("cublasLtMatmul ") + "ABCD"[which]);
  }
}

TEST_CASE_METHOD(Fresh, "an algorithm used for another problem, or with less workspace than it needs, is reported") {
  Case c;
  DeviceArray a(c.ab, noise(c.count(c.a()), 1)), b(c.ab, noise(c.count(c.b()), 2)), d(c.cd, c.count(c.d()));
  Stream stream;
  Case other = c;
  other.workspace_bytes = 1024;
  other.k = c.k + 1;
  Plan plan(c), another(other);
  ok(plan.find());
  ok(another.find());
  CHECK(another.found.workspaceSize > 0);
  CHECK(another.found.workspaceSize <= 1024);

  std::swap(plan.found, another.found);
  DeviceArray workspace(Element::kFloat, 256);
  CHECK(plan.run(c, a.at(), b.at(), d.at(), d.at(), stream, workspace.at(), 1024) == CUBLAS_STATUS_INVALID_VALUE);
  expect_report("misuse", "another problem");
  std::swap(plan.found, another.found);

  DeviceArray longer_a(c.ab, noise(other.count(other.a()), 1)), longer_b(c.ab, noise(other.count(other.b()), 2));
  CHECK(another.run(other, longer_a.at(), longer_b.at(), d.at(), d.at(), stream, workspace.at(), 4) ==
        CUBLAS_STATUS_INVALID_VALUE);
  expect_report("misuse", "workspace");
}

TEST_CASE_METHOD(Fresh, "overlapping, null and misaligned operands are reported") {
  Case c;
  c.beta = 1;
  DeviceArray a(c.ab, noise(200, 1)), b(c.ab, noise(200, 2)), d(c.cd, noise(200, 3));
  Stream stream;
  Plan plan(c);
  const std::uint32_t one = 1;
  ok(cublasLtMatmulPreferenceSetAttribute(plan.preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, &one, 4));
  ok(plan.find());

  CHECK(plan.run(c, a.at(), b.at(), d.at(), a.at(), stream) == CUBLAS_STATUS_INVALID_VALUE);
  expect_report("misuse", "D overlaps A or B");
  CHECK(plan.run(c, a.at(), b.at(), d.at(), d.at(64 / 4), stream) != CUBLAS_STATUS_SUCCESS);
  expect_report("misuse", "D is aligned to less than the 256 bytes");
  CHECK(plan.run(c, a.at(), b.at(), nullptr, d.at(), stream) == CUBLAS_STATUS_INVALID_VALUE);
  expect_report("misuse", "C is null");
  CHECK(plan.run(c, byte_offset(a.at(), 2), b.at(), d.at(), d.at(), stream) == CUBLAS_STATUS_INVALID_VALUE);
  expect_report("misuse", "A is not aligned");
  ok(plan.run(c, a.at(1), b.at(), d.at(), d.at(), stream));  // A was promised nothing
  stream.wait();
  CHECK(take_reports().empty());
}

TEST_CASE_METHOD(Fresh, "slices of one wide array may interleave without overlapping") {
  Case c;
  c.m = c.k = 4;
  c.extra_ld = 4;  // A is the upper half of each column, D the lower
  DeviceArray both(c.ab, noise(8 * 8, 1)), b(c.ab, noise(c.count(c.b()), 2));
  Stream stream;
  Plan plan(c);
  for (const auto attribute :
       {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES}) {
    const std::uint32_t alignment = 16;
    ok(cublasLtMatmulPreferenceSetAttribute(plan.preference, attribute, &alignment, sizeof alignment));
  }
  ok(plan.find());
  ok(plan.run(c, both.at(), b.at(), both.at(4), both.at(4), stream));
  stream.wait();
  CHECK(take_reports().empty());
}

TEST_CASE_METHOD(Fresh, "types that the library does not multiply, and shapes that do not fit, are refused") {
  Case mixed;
  mixed.cd = Element::kHalf;
  CHECK(Plan(mixed).find() == CUBLAS_STATUS_NOT_SUPPORTED);
  expect_report("misuse", "types");
  Case tf32_of_16_bit;
  tf32_of_16_bit.ab = Element::kHalf;
  tf32_of_16_bit.compute = CUBLAS_COMPUTE_32F_FAST_TF32;
  CHECK(Plan(tf32_of_16_bit).find() == CUBLAS_STATUS_NOT_SUPPORTED);
  expect_report("misuse", "types");
  Case row_bias;
  row_bias.row_major = row_bias.bias = true;
  CHECK(Plan(row_bias).find() == CUBLAS_STATUS_NOT_SUPPORTED);
  expect_report("misuse", "BIAS");
  Plan one_of_three{Case{}};
  const std::int32_t batch = 3;
  ok(cublasLtMatrixLayoutSetAttribute(one_of_three.d, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, &batch, sizeof batch));
  CHECK(one_of_three.find() == CUBLAS_STATUS_INVALID_VALUE);
  expect_report("misuse", "batch counts");
  Plan swapped{Case{}};
  std::swap(swapped.a, swapped.b);
  CHECK(swapped.find() == CUBLAS_STATUS_INVALID_VALUE);
  expect_report("misuse", "shapes");

  cublasLtMatmulDesc_t desc = nullptr;
  CHECK(cublasLtMatmulDescCreate(&desc, CUBLAS_COMPUTE_64F, CUDA_R_64F) == CUBLAS_STATUS_NOT_SUPPORTED);
  expect_report("misuse", "compute type");
}

TEST_CASE_METHOD(Fresh, "one workspace for two streams is a race, one for each is none") {
  Case c;
  c.workspace_bytes = 1024;
  DeviceArray a(c.ab, noise(c.count(c.a()), 1)), b(c.ab, noise(c.count(c.b()), 2));
  DeviceArray first_d(c.cd, c.count(c.d())), second_d(c.cd, c.count(c.d()));
  DeviceArray first_space(Element::kFloat, 256), second_space(Element::kFloat, 256);
  Stream first, second;
  Plan plan(c);
  ok(plan.find());
  for (const DeviceArray* space : {&second_space, &first_space}) {
    ok(plan.run(c, a.at(), b.at(), first_d.at(), first_d.at(), first, first_space.at(), 1024));
    ok(plan.run(c, a.at(), b.at(), second_d.at(), second_d.at(), second, space->at(), 1024));
    first.wait();
    second.wait();
    if (space == &first_space) expect_report("race", "workspace");
    CHECK(take_reports().empty());
  }
}

TEST_CASE_METHOD(Fresh, "attributes that are not modelled, wrong sizes, short leading dimensions are reported") {
  Plan plan{Case{}};
  const std::int32_t value = CUBLASLT_POINTER_MODE_DEVICE;
  CHECK(cublasLtMatmulDescSetAttribute(plan.desc, CUBLASLT_MATMUL_DESC_POINTER_MODE, &value, 4) ==
        CUBLAS_STATUS_NOT_SUPPORTED);
  expect_report("misuse", "pointer mode");
  CHECK(cublasLtMatmulDescSetAttribute(plan.desc, CUBLASLT_MATMUL_DESC_FILL_MODE, &value, 4) ==
        CUBLAS_STATUS_NOT_SUPPORTED);
  expect_report("misuse", "attribute 6");
  CHECK(cublasLtMatmulDescSetAttribute(plan.desc, CUBLASLT_MATMUL_DESC_TRANSA, &value, 8) ==
        CUBLAS_STATUS_INVALID_VALUE);
  expect_report("misuse", "bytes");
  cublasLtMatrixLayoutDestroy(plan.a);
  ok(cublasLtMatrixLayoutCreate(&plan.a, CUDA_R_32F, 5, 3, 4));
  CHECK(plan.find() == CUBLAS_STATUS_INVALID_VALUE);
  expect_report("misuse", "leading dimension 4");
}

TEST_CASE_METHOD(Fresh, "use after destruction, destroying twice and what is left over are noticed") {
  cublasLtHandle_t handle = nullptr;
  ok(cublasLtCreate(&handle));
  CHECK(library_objects() == std::vector<std::string>{"cublasLtHandle_t"});
  ok(cublasLtDestroy(handle));
  CHECK(library_objects().empty());
  CHECK(cublasLtDestroy(handle) == CUBLAS_STATUS_NOT_INITIALIZED);
  expect_report("misuse", "no such handle");
}

TEST_CASE("the N-th call fails when it is told to, and nothing is left or reported") {
  for (std::int64_t n = 1;; ++n) {
    Settings settings;
    settings.fail_at = n;
    reset(settings);
    cublasLtHandle_t handle = nullptr;
    cublasLtMatmulDesc_t desc = nullptr;
    const auto first = cublasLtCreate(&handle);
    const auto second = cublasLtMatmulDescCreate(&desc, CUBLAS_COMPUTE_32F, CUDA_R_32F);
    CHECK((first == CUBLAS_STATUS_SUCCESS) == (n != 1));
    CHECK((second == CUBLAS_STATUS_SUCCESS) == (n != 2));
    if (handle != nullptr) cublasLtDestroy(handle);
    if (desc != nullptr) cublasLtMatmulDescDestroy(desc);
    CHECK(library_objects().empty());
    CHECK(take_reports().empty());
    if (n > calls()) break;
  }
  reset(Settings{});
}
