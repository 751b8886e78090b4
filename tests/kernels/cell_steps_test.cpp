// Steps of cells, held to their formulas in double precision on the numbers that the kernel reads.
#include "kernels/cell_steps.h"

#include <cmath>

#include "kernel_test.h"

using namespace charrnn::cuda;
using namespace kernel_test;
using charrnn::Cell;

namespace {

constexpr Cell kCells[] = {Cell::kLstm, Cell::kGru, Cell::kRnnTanh, Cell::kRnnRelu};

struct Sizes {
  int lanes, hidden, vocabulary;
  std::size_t units() const { return static_cast<std::size_t>(lanes * hidden); }
};
constexpr Sizes kSizes[] = {{1, 1, 2}, {3, 37, 11}, {9, 61, 5}};  // the last in three blocks

std::size_t columns(Cell cell) { return cell == Cell::kLstm || cell == Cell::kGru ? 4 : 1; }
std::size_t recurrent_rows(Cell cell) { return cell == Cell::kGru ? 3 : columns(cell); }
double logistic(double x) { return 1 / (1 + std::exp(-x)); }

/// What a step reads. Activations and gradients that `element` stores are such numbers.
struct Inputs {
  Inputs(Cell cell, Element element, const Sizes& s)
      : recurrent(some(Element::kF32, s.units() * recurrent_rows(cell), 1, 3)),
        product(some(Element::kF32, s.units() * columns(cell), 2, 3)),
        table(some(Element::kF32, static_cast<std::size_t>(s.vocabulary * s.hidden) * columns(cell), 3, 3)),
        bias(some(Element::kF32, static_cast<std::size_t>(s.hidden) * columns(cell), 4, 2)),
        h_prev(some(element, s.units(), 5)),
        c_prev(some(Element::kF32, s.units(), 6, 2)) {
    for (int b = 0; b < s.lanes; ++b) ids.push_back(static_cast<DeviceId>((3 * b + 1) % s.vocabulary));
    if (s.lanes > 2) ids[1] = kNoId;
  }
  Numbers recurrent, product, table, bias, h_prev, c_prev;
  std::vector<DeviceId> ids;
};

/// gates, h, c after a step.
Outcome expected_forward(Cell cell, const Sizes& s, const Inputs& x, bool first_layer) {
  const std::size_t W = columns(cell), R = recurrent_rows(cell), H = static_cast<std::size_t>(s.hidden);
  Outcome y{Numbers(s.units() * W, kUntouched), Numbers(s.units()), Numbers(s.units())};
  for (std::size_t b = 0; b < static_cast<std::size_t>(s.lanes); ++b) {
    if (first_layer && x.ids[b] == kNoId) continue;  // zero state, and gates that nobody reads
    for (std::size_t u = 0; u < H; ++u) {
      const auto input = [&](std::size_t g) {
        return first_layer ? x.table[(x.ids[b] * W + g) * H + u] : x.product[(b * W + g) * H + u] + x.bias[g * H + u];
      };
      const auto recurrent = [&](std::size_t g) { return x.recurrent[(b * R + g) * H + u]; };
      const auto gate = [&](std::size_t g) -> double& { return y[0][(b * W + g) * H + u]; };
      double &h = y[1][b * H + u], &c = y[2][b * H + u];
      if (cell == Cell::kLstm) {  // i f g o
        for (std::size_t g = 0; g < 4; ++g) {
          const double a = input(g) + recurrent(g);
          gate(g) = g == 2 ? std::tanh(a) : logistic(a);
        }
        c = gate(1) * x.c_prev[b * H + u] + gate(0) * gate(2);
        h = gate(3) * std::tanh(c);
      } else if (cell == Cell::kGru) {  // columns n r z nh; rows of the recurrence r z n
        // The product of the input has no column nh: its bias is all that there is.
        const double nh = (first_layer ? input(3) : x.bias[3 * H + u]) + recurrent(2);
        const double r = logistic(input(1) + recurrent(0)), z = logistic(input(2) + recurrent(1));
        const double n = std::tanh(input(0) + r * nh);
        gate(0) = n;
        gate(1) = r;
        gate(2) = z;
        gate(3) = nh;
        h = (1 - z) * n + z * x.h_prev[b * H + u];
      } else {
        const double a = input(0) + recurrent(0);
        h = cell == Cell::kRnnRelu ? std::max(0.0, a) : std::tanh(a);
      }
    }
  }
  return y;
}

Outcome run_forward(Cell cell, Element element, const Sizes& s, const Inputs& x, bool first_layer, bool keep) {
  return in_any_order([&](cudaStream_t stream) {
    const Floats recurrent(x.recurrent), table(x.table), bias(x.bias), c_prev(x.c_prev);
    Numbers input = x.product;
    if (cell == Cell::kGru) {  // column nh of the product is not there
      const std::size_t H = static_cast<std::size_t>(s.hidden);
      for (std::size_t i = 0; i < input.size(); ++i) {
        if (i / H % 4 == 3) input[i] = std::nan("");
      }
    }
    const Floats product(input);
    const Device<DeviceId> ids(x.ids);
    const Array h_prev(element, x.h_prev), h(element, s.units());
    const Array gates(element, Numbers(s.units() * columns(cell), kUntouched));
    const Floats c(cell == Cell::kLstm ? Numbers(s.units(), kUntouched) : Numbers(s.units()));
    cell_forward({.cell = cell,
                  .element = element,
                  .lanes = s.lanes,
                  .hidden = s.hidden,
                  .recurrent = recurrent,
                  .input = first_layer ? table : product,
                  .ids = first_layer ? static_cast<const DeviceId*>(ids) : nullptr,
                  .bias = first_layer ? nullptr : static_cast<const float*>(bias),
                  .gates = keep ? gates.at() : nullptr,
                  .h_prev = h_prev.at(),
                  .c_prev = c_prev,
                  .h = h.at(),
                  .c = c},
                 stream);
    host_cuda_test::succeed(cudaStreamSynchronize(stream));
    return Outcome{gates.read(), h.read(), c.read()};
  });
}

struct BackwardInputs {
  BackwardInputs(Cell cell, Element element, const Sizes& s)
      : gates(fractions(element, s.units() * columns(cell), 1)),
        h_prev(some(element, s.units(), 2)),
        h(some(element, s.units(), 3)),
        c_prev(some(Element::kF32, s.units(), 4, 2)),
        c(some(Element::kF32, s.units(), 5, 2)),
        dy(some(element, s.units(), 6)),
        dh(some(Element::kF32, s.units(), 7)),
        dc(some(Element::kF32, s.units(), 8)) {
    if (s.units() > 2) h[1] = 0;  // where relu's derivative is taken as 0
  }
  Numbers gates, h_prev, h, c_prev, c, dy, dh, dc;
};

/// Gradients of the pre-activations, dh, dc.
Outcome expected_backward(Cell cell, const Sizes& s, const BackwardInputs& x, bool last) {
  const std::size_t W = columns(cell), H = static_cast<std::size_t>(s.hidden);
  Outcome y{Numbers(s.units() * W), x.dh, x.dc};
  for (std::size_t k = 0; k < s.units(); ++k) {
    const std::size_t b = k / H, u = k % H;
    const auto gate = [&](std::size_t g) { return x.gates[(b * W + g) * H + u]; };
    const auto to = [&](std::size_t g) -> double& { return y[0][(b * W + g) * H + u]; };
    const double dh = x.dy[k] + (last ? 0 : x.dh[k]);
    if (cell == Cell::kLstm) {
      const double i = gate(0), f = gate(1), g = gate(2), o = gate(3), t = std::tanh(x.c[k]);
      const double dc = (last ? 0 : x.dc[k]) + dh * o * (1 - t * t);
      to(0) = dc * g * i * (1 - i);
      to(1) = dc * x.c_prev[k] * f * (1 - f);
      to(2) = dc * i * (1 - g * g);
      to(3) = dh * t * o * (1 - o);
      y[2][k] = dc * f;
    } else if (cell == Cell::kGru) {  // h = (1 - z) n + z h_prev, n = tanh(nx + r nh)
      const double n = gate(0), r = gate(1), z = gate(2), nh = gate(3);
      const double da_n = dh * (1 - z) * (1 - n * n);
      to(0) = da_n;
      to(1) = da_n * nh * r * (1 - r);
      to(2) = dh * (x.h_prev[k] - n) * z * (1 - z);
      to(3) = da_n * r;
      y[1][k] = dh * z;
    } else {
      to(0) = cell == Cell::kRnnRelu ? (x.h[k] > 0 ? dh : 0) : dh * (1 - x.h[k] * x.h[k]);
    }
  }
  return y;
}

Outcome run_backward(Cell cell, Element element, const Sizes& s, const BackwardInputs& x, bool last) {
  const bool lstm = cell == Cell::kLstm, gru = cell == Cell::kGru;
  return in_any_order([&](cudaStream_t stream) {
    // What a step does not read, nobody has written.
    const Array unread_gates(element, s.units()), read_gates(element, x.gates);
    const Array& gates = lstm || gru ? read_gates : unread_gates;
    const Floats behind_dh(x.dh), behind_dc(x.dc), fresh_dh(s.units()), fresh_dc(s.units());
    const Floats &dh = last ? fresh_dh : behind_dh, &dc = last ? fresh_dc : behind_dc;
    const Array h_prev(element, x.h_prev), h(element, x.h), dy(element, x.dy);
    const Floats c_prev(x.c_prev), c(x.c);
    cell_backward({.cell = cell,
                   .element = element,
                   .lanes = s.lanes,
                   .hidden = s.hidden,
                   .last = last,
                   .gates = gates.at(),
                   .h_prev = gru ? h_prev.at() : nullptr,
                   .h = lstm || gru ? nullptr : h.at(),
                   .c_prev = lstm ? static_cast<const float*>(c_prev) : nullptr,
                   .c = lstm ? static_cast<const float*>(c) : nullptr,
                   .dy = dy.at(),
                   .dh = dh,
                   .dc = lstm ? static_cast<float*>(dc) : nullptr},
                  stream);
    host_cuda_test::succeed(cudaStreamSynchronize(stream));
    return Outcome{gates.read(), gru || !last ? dh.read() : x.dh, lstm ? dc.read() : x.dc};
  });
}

/// Which numbers dropout gives the units 4 k on, as kernels/philox.h states it.
bool dropped(const DropoutStep& step, std::uint32_t layer, std::uint32_t t, std::uint32_t lane, std::uint32_t unit) {
  const auto numbers =
      philox_of({unit / 4 | layer << 24U, lane, t, static_cast<std::uint32_t>(step.step)},
                {static_cast<std::uint32_t>(step.seed),
                 static_cast<std::uint32_t>(step.seed >> 32U) ^ static_cast<std::uint32_t>(step.step >> 32U)});
  return numbers[unit % 4] < step.bound;
}

}  // namespace

// Roundings of a forward step: three terms of a pre-activation of size 8 (24 in units of the result, since a function's
// slope is at most 1, and 1/4 for the sigmoid), a few of e^x, and the cell's own.
TEST_CASE("a forward step of every cell equals its formula, in every element type") {
  for (const Cell cell : kCells) {
    for (const Element element : kElements) {
      for (const Sizes& s : kSizes) {
        for (const bool first_layer : {true, false}) {
          const Inputs x(cell, element, s);
          const Outcome expected = expected_forward(cell, s, x, first_layer);
          const Outcome y = run_forward(cell, element, s, x, first_layer, true);
          INFO("cell " << static_cast<int>(cell) << ", element " << static_cast<int>(element) << ", H " << s.hidden);
          const bool has_gates = columns(cell) == 4;  // an RNN's one activation is h
          CHECK_ALL_CLOSE(y[0], has_gates ? expected[0] : Numbers(s.units(), kUntouched), stored(element, 32));
          CHECK_ALL_CLOSE(y[1], expected[1], stored(element, 32));
          CHECK_ALL_CLOSE(y[2], expected[2], stored(Element::kF32, 32));
        }
      }
    }
  }
}

TEST_CASE("a forward step leaves the same state whether its gates are kept or not") {
  for (const Cell cell : kCells) {
    const Sizes s = kSizes[1];
    const Inputs x(cell, Element::kBf16, s);
    const Outcome kept = run_forward(cell, Element::kBf16, s, x, false, true);
    const Outcome bare = run_forward(cell, Element::kBf16, s, x, false, false);
    CHECK(bare[0] == Numbers(bare[0].size(), kUntouched));
    CHECK(bare[1] == kept[1]);
    CHECK(bare[2] == kept[2]);
  }
}

TEST_CASE("a padding lane has zero state") {
  for (const Cell cell : kCells) {
    const Sizes s = kSizes[1];
    const Inputs x(cell, Element::kF32, s);
    const Outcome y = run_forward(cell, Element::kF32, s, x, true, true);
    for (std::size_t i = static_cast<std::size_t>(s.hidden); i < static_cast<std::size_t>(2 * s.hidden); ++i) {
      CHECK((y[1][i] == 0 && y[2][i] == 0));
    }
  }
}

TEST_CASE("what is not finite stays so through a forward step") {
  for (const Cell cell : kCells) {
    const Sizes s = kSizes[0];
    Inputs x(cell, Element::kF32, s);
    x.recurrent.assign(x.recurrent.size(), std::nan(""));
    CHECK(std::isnan(run_forward(cell, Element::kF32, s, x, false, true)[1][0]));
  }
}

TEST_CASE("pre-activations of any size saturate a forward step") {
  // e^355, and e^2x of 177.5, are about 2^512: past a whole turn of exponents.
  for (const double size : {30.0, 177.5, 355.0, 1e30}) {
    for (const Cell cell : {Cell::kLstm, Cell::kGru, Cell::kRnnTanh}) {
      const Sizes s = kSizes[1];
      Inputs x(cell, Element::kF32, s);
      for (double& r : x.recurrent) r = r < 0 ? -size : size;
      const Outcome expected = expected_forward(cell, s, x, false);
      const Outcome y = run_forward(cell, Element::kF32, s, x, false, true);
      CHECK_ALL_CLOSE(y[1], expected[1], stored(Element::kF32, 32));
    }
  }
}

// Roundings of a backward step: at most six factors and three differences, whose terms are no larger than 2.
TEST_CASE("a backward step of every cell equals its derivative, in every element type") {
  for (const Cell cell : kCells) {
    for (const Element element : kElements) {
      for (const Sizes& s : kSizes) {
        for (const bool last : {true, false}) {
          const BackwardInputs x(cell, element, s);
          const Outcome expected = expected_backward(cell, s, x, last);
          const Outcome y = run_backward(cell, element, s, x, last);
          INFO("cell " << static_cast<int>(cell) << ", element " << static_cast<int>(element) << ", H " << s.hidden);
          CHECK_ALL_CLOSE(y[0], expected[0], stored(element, 16));
          CHECK_ALL_CLOSE(y[1], expected[1], stored(Element::kF32, 16));
          CHECK_ALL_CLOSE(y[2], expected[2], stored(Element::kF32, 16));
        }
      }
    }
  }
}

TEST_CASE("dropout drops the units that Philox names and scales the others, in place or not") {
  philox_known_answers();
  struct Case {
    int first, steps, lanes, hidden, layer;
    float probability;
  };
  for (const auto& [first, steps, lanes, hidden, layer, probability] :
       {Case{0, 1, 1, 1, 0, 0.5F}, Case{6, 3, 5, 37, 2, 0.3F}, Case{0, 2, 3, 38, 0, 0.9F}, Case{1, 1, 7, 39, 1, 0.25F},
        Case{0, 7, 11, 40, 63, 0.5F}, Case{0, 2, 3, 5, 1, 0.0F}}) {
    for (const Element element : kElements) {
      const DropoutStep step{.seed = 0x123456789ABCDEF0U,
                             .step = 0x0000000500000007U,
                             .bound = static_cast<std::uint32_t>(probability * 4294967296.0),
                             .first_lane = 13,
                             .scale = 1.0F / (1.0F - probability)};
      const auto count = static_cast<std::size_t>(steps * lanes * hidden);
      const Numbers x = some(element, count, 9);
      for (const bool in_place : {false, true}) {
        const Outcome y = in_any_order([&](cudaStream_t stream) {
          const Array from(element, x), to(element, count);
          const Device<DropoutStep> on_step(std::vector<DropoutStep>{step});
          const Array& result = in_place ? from : to;
          drop_out({.element = element,
                    .first = first,
                    .steps = steps,
                    .lanes = lanes,
                    .hidden = hidden,
                    .layer = layer,
                    .x = from.at(),
                    .y = result.at(),
                    .step = on_step},
                   stream);
          host_cuda_test::succeed(cudaStreamSynchronize(stream));
          return Outcome{result.read()};
        });
        Numbers expected;
        for (std::size_t i = 0; i < count; ++i) {
          const auto H = static_cast<std::size_t>(hidden), B = static_cast<std::size_t>(lanes);
          const bool drops = dropped(step, static_cast<std::uint32_t>(layer),
                                     static_cast<std::uint32_t>(first) + static_cast<std::uint32_t>(i / H / B),
                                     13 + static_cast<std::uint32_t>(i / H % B), static_cast<std::uint32_t>(i % H));
          const double kept = static_cast<double>(static_cast<float>(x[i]) * step.scale);
          expected.push_back(drops ? 0 : host_cuda::rounded(in_host_cuda(element), kept));  // exact
        }
        CHECK(y[0] == expected);
      }
    }
  }
}

TEST_CASE("steps of no lanes launch nothing") {
  launches_nothing([](cudaStream_t stream) {
    cell_forward({.lanes = 0, .hidden = 5}, stream);
    cell_backward({.cell = Cell::kGru, .lanes = 3, .hidden = 0}, stream);
    drop_out({.steps = 0, .lanes = 3, .hidden = 5}, stream);
  });
}
