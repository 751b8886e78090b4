// Sums of columns. The numbers are eighths, so that every order of summing gives the same, and all checks are exact.
#include "kernels/column_sums.h"

#include "kernel_test.h"

using namespace charrnn::cuda;
using namespace kernel_test;

namespace {

struct Shape {
  int rows, columns, stride;
};

Numbers eighths(std::size_t count) {
  Numbers values;
  for (std::size_t i = 0; i < count; ++i) values.push_back((static_cast<double>(i * 37 % 61) - 20) / 8);
  return values;
}

double sum_of_column(const Numbers& from, const Shape& s, int column) {
  double sum = 0;
  for (int r = 0; r < s.rows; ++r) sum += from[static_cast<std::size_t>(r * s.stride + column)];
  return sum;
}

}  // namespace

TEST_CASE("columns are summed over one chunk of rows and over many, in every element type") {
  // The last: more rows than chunks of 64 may be, so that chunks are longer and the last ones are empty.
  for (const Shape& s : {Shape{1, 1, 1}, {3, 5, 8}, {64, 130, 131}, {65, 7, 7}, {200, 257, 264}, {16515, 3, 5}}) {
    const Numbers from = eighths(static_cast<std::size_t>(s.rows * s.stride));
    for (const Element element : kElements) {
      // Two targets side by side, and one over both that leaves out a column at either end.
      const int first = s.columns / 2, inner = s.columns > 2 ? s.columns - 2 : 0;
      const Outcome y = in_any_order([&](cudaStream_t stream) {
        const Array on_from(element, from);
        const Floats partial(static_cast<std::size_t>(sum_chunks(s.rows) * s.columns));
        const auto room = [](int n) { return Numbers(static_cast<std::size_t>(n + 1), kUntouched); };
        const Floats a(room(first)), b(room(s.columns - first)), c(room(inner));
        column_sums({.element = element,
                     .from = on_from.at(),
                     .rows = s.rows,
                     .columns = s.columns,
                     .stride = s.stride,
                     .partial = partial,
                     .targets = {{a, 0, first}, {b, first, s.columns - first}, {c, 1, inner}}},
                    stream);
        host_cuda_test::succeed(cudaStreamSynchronize(stream));
        return Outcome{a.read(), b.read(), c.read()};
      });
      Outcome expected(3);
      for (int column = 0; column < s.columns; ++column) {
        const double sum = sum_of_column(from, s, column);
        expected[column < first ? 0 : 1].push_back(sum);
        if (column >= 1 && column < 1 + inner) expected[2].push_back(sum);
      }
      for (Numbers& target : expected) target.push_back(kUntouched);
      CHECK(y == expected);
    }
  }
}

TEST_CASE("the sum of no rows is 0") {
  const Outcome y = in_any_order([&](cudaStream_t stream) {
    const Floats to(Numbers(5, kUntouched));
    column_sums({.rows = 0, .columns = 5, .stride = 8, .targets = {{to, 0, 5}}}, stream);
    host_cuda_test::succeed(cudaStreamSynchronize(stream));
    return Outcome{to.read()};
  });
  CHECK(y == Outcome{Numbers(5)});
}

TEST_CASE("chunks are summed in double") {
  // In float, 2^24 + 1 + 1 would be 2^24.
  const int rows = 3 * 64;
  Numbers from(static_cast<std::size_t>(rows));
  from[0] = 0x1p24;
  from[64] = from[128] = 1;
  const Outcome y = in_any_order([&](cudaStream_t stream) {
    const Floats on_from(from), partial(3), to(1);
    column_sums({.from = on_from, .rows = rows, .columns = 1, .stride = 1, .partial = partial, .targets = {{to, 0, 1}}},
                stream);
    host_cuda_test::succeed(cudaStreamSynchronize(stream));
    return Outcome{to.read()};
  });
  CHECK(y == Outcome{{0x1p24 + 2}});
}

TEST_CASE("columns of no number launch nothing") {
  launches_nothing([](cudaStream_t stream) { column_sums({.rows = 3, .columns = 0, .stride = 8}, stream); });
}
