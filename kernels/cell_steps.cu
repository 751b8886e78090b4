#include "kernels/cell_steps.h"

#include <type_traits>

#include "kernels/gate_map.h"
#include "kernels/gru_cell.h"
#include "kernels/launch.h"
#include "kernels/lstm_cell.h"
#include "kernels/philox.h"
#include "kernels/rnn_cell.h"
#include "kernels/threads.h"

namespace charrnn::cuda {

namespace {

/// The grid of a step: units across, lanes down. It spares each element a division.
constexpr unsigned kUnitsABlock = 128;
LaunchShape step_grid(int lanes, int hidden) {
  constexpr int kMostDown = 65535;
  return {dim3((static_cast<unsigned>(hidden) + kUnitsABlock - 1) / kUnitsABlock,
               static_cast<unsigned>(lanes < kMostDown ? lanes : kMostDown)),
          dim3(kUnitsABlock), 0};
}
__device__ int first_unit() { return static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x); }
__device__ int unit_step() { return static_cast<int>(gridDim.x * blockDim.x); }

/// A row of gates, column by column: gate g of unit u.
struct Row {
  std::int64_t at;  // of gate 0
  int hidden;
  __device__ std::int64_t operator[](int gate) const { return at + std::int64_t{gate} * hidden; }
};

/// The input's part of the pre-activations of one unit in one lane, with the biases, gate by gate.
struct InputPart {
  const float* values;  // of gate 0
  const float* bias;    // of gate 0; or null: it is in the values
  int hidden;
  __device__ float operator[](int gate) const {
    const std::int64_t at = std::int64_t{gate} * hidden;
    return bias == nullptr ? values[at] : values[at] + bias[at];
  }
};

__device__ InputPart input_part(const CellForward& s, int gates, std::int64_t lane, int unit) {
  if (s.ids != nullptr) return {s.input + std::int64_t{s.ids[lane]} * gates * s.hidden + unit, nullptr, s.hidden};
  return {s.input + lane * gates * s.hidden + unit, s.bias + unit, s.hidden};
}

template <class Real>
__device__ void lstm_forward(const CellForward& s, std::int64_t lane, int unit, std::int64_t i) {
  const InputPart x = input_part(s, 4, lane, unit);
  const Row row{lane * 4 * s.hidden + unit, s.hidden};
  const float* const r = s.recurrent;
  const LstmStep<float> y = lstm_cell(x[kLstmI] + r[row[kLstmI]], x[kLstmF] + r[row[kLstmF]],
                                      x[kLstmG] + r[row[kLstmG]], x[kLstmO] + r[row[kLstmO]], s.c_prev[i]);
  s.c[i] = y.c;
  static_cast<Real*>(s.h)[i] = from_float<Real>(y.h);
  if (s.gates == nullptr) return;
  Real* const gates = static_cast<Real*>(s.gates);
  gates[row[kLstmI]] = from_float<Real>(y.i);
  gates[row[kLstmF]] = from_float<Real>(y.f);
  gates[row[kLstmG]] = from_float<Real>(y.g);
  gates[row[kLstmO]] = from_float<Real>(y.o);
}

template <class Real>
__device__ void gru_forward(const CellForward& s, std::int64_t lane, int unit, std::int64_t i) {
  const InputPart x = input_part(s, 4, lane, unit);
  const Row r{lane * 3 * s.hidden + unit, s.hidden};                     // r z n, as W_hh has them
  const float* const from_bias = x.bias != nullptr ? x.bias : x.values;  // products of the input have no column nh
  const float nh = from_bias[std::int64_t{kGruColumnNh} * s.hidden] + s.recurrent[r[kGruN]];
  const GruStep<float> y = gru_cell(x[kGruColumnR] + s.recurrent[r[kGruR]], x[kGruColumnZ] + s.recurrent[r[kGruZ]],
                                    x[kGruColumnNx], nh, to_float(static_cast<const Real*>(s.h_prev)[i]));
  static_cast<Real*>(s.h)[i] = from_float<Real>(y.h);
  if (s.gates == nullptr) return;
  Real* const gates = static_cast<Real*>(s.gates);
  const Row row{lane * 4 * s.hidden + unit, s.hidden};
  gates[row[kGruColumnNx]] = from_float<Real>(y.n);
  gates[row[kGruColumnR]] = from_float<Real>(y.r);
  gates[row[kGruColumnZ]] = from_float<Real>(y.z);
  gates[row[kGruColumnNh]] = from_float<Real>(nh);
}

template <bool kRelu, class Real>
__device__ void rnn_forward(const CellForward& s, std::int64_t lane, int unit, std::int64_t i) {
  const float y = rnn_cell<kRelu>(input_part(s, 1, lane, unit)[0] + s.recurrent[i]);
  static_cast<Real*>(s.h)[i] = from_float<Real>(y);
}

template <Cell kCell, class Real>
__global__ void cell_forward_kernel(CellForward s) {
  for (std::int64_t lane = blockIdx.y; lane < s.lanes; lane += gridDim.y) {
    for (int unit = first_unit(); unit < s.hidden; unit += unit_step()) {
      const std::int64_t i = lane * s.hidden + unit;
      if (s.ids != nullptr && s.ids[lane] == kNoId) {  // padding: no character, no state
        static_cast<Real*>(s.h)[i] = from_float<Real>(0.0F);
        if constexpr (kCell == Cell::kLstm) s.c[i] = 0.0F;
        continue;
      }
      if constexpr (kCell == Cell::kLstm) {
        lstm_forward<Real>(s, lane, unit, i);
      } else if constexpr (kCell == Cell::kGru) {
        gru_forward<Real>(s, lane, unit, i);
      } else {
        rnn_forward<kCell == Cell::kRnnRelu, Real>(s, lane, unit, i);
      }
    }
  }
}

/// The gradient that reaches h from above and from the step behind.
template <class Real>
__device__ float incoming(const CellBackward& s, std::int64_t i) {
  const float from_above = to_float(static_cast<const Real*>(s.dy)[i]);
  return s.last ? from_above : from_above + s.dh[i];
}

template <class Real>
__device__ void lstm_backward(const CellBackward& s, const Row& row, std::int64_t i) {
  Real* const gates = static_cast<Real*>(s.gates);
  const LstmGrad<float> d = lstm_cell_backward(to_float(gates[row[kLstmI]]), to_float(gates[row[kLstmF]]),
                                               to_float(gates[row[kLstmG]]), to_float(gates[row[kLstmO]]), s.c_prev[i],
                                               s.c[i], incoming<Real>(s, i), s.last ? 0.0F : s.dc[i]);
  gates[row[kLstmI]] = from_float<Real>(d.di);
  gates[row[kLstmF]] = from_float<Real>(d.df);
  gates[row[kLstmG]] = from_float<Real>(d.dg);
  gates[row[kLstmO]] = from_float<Real>(d.d_o);
  s.dc[i] = d.dc_prev;
}

template <class Real>
__device__ void gru_backward(const CellBackward& s, const Row& row, std::int64_t i) {
  Real* const gates = static_cast<Real*>(s.gates);
  const GruGrad<float> d = gru_cell_backward(to_float(gates[row[kGruColumnR]]), to_float(gates[row[kGruColumnZ]]),
                                             to_float(gates[row[kGruColumnNx]]), to_float(gates[row[kGruColumnNh]]),
                                             to_float(static_cast<const Real*>(s.h_prev)[i]), incoming<Real>(s, i));
  gates[row[kGruColumnNx]] = from_float<Real>(d.dnx);
  gates[row[kGruColumnR]] = from_float<Real>(d.dr);
  gates[row[kGruColumnZ]] = from_float<Real>(d.dz);
  gates[row[kGruColumnNh]] = from_float<Real>(d.dnh);
  s.dh[i] = d.dh_prev;
}

template <Cell kCell, class Real>
__global__ void cell_backward_kernel(CellBackward s) {
  for (std::int64_t lane = blockIdx.y; lane < s.lanes; lane += gridDim.y) {
    for (int unit = first_unit(); unit < s.hidden; unit += unit_step()) {
      const std::int64_t i = lane * s.hidden + unit;
      if constexpr (kCell == Cell::kLstm) {
        lstm_backward<Real>(s, {lane * 4 * s.hidden + unit, s.hidden}, i);
      } else if constexpr (kCell == Cell::kGru) {
        gru_backward<Real>(s, {lane * 4 * s.hidden + unit, s.hidden}, i);
      } else {
        const float h = to_float(static_cast<const Real*>(s.h)[i]);
        static_cast<Real*>(s.gates)[i] =
            from_float<Real>(rnn_cell_backward<kCell == Cell::kRnnRelu>(h, incoming<Real>(s, i)));
      }
    }
  }
}

/// A thread has four units: what one block of Philox decides.
template <class Real>
__global__ void drop_out_kernel(DropOut d) {
  const DropoutStep step = *d.step;
  const std::int64_t quads = (d.hidden + 3) / 4, n = std::int64_t{d.steps} * d.lanes * quads;
  for (std::int64_t i = thread_index(); i < n; i += thread_count()) {
    const std::int64_t row = i / quads, t = d.first + row / d.lanes, lane = row % d.lanes;
    const auto quad = static_cast<std::uint32_t>(i % quads);
    const PhiloxBlock x =
        dropout_numbers(step.seed, step.step, static_cast<std::uint32_t>(d.layer), static_cast<std::uint32_t>(t),
                        step.first_lane + static_cast<std::uint32_t>(lane), quad);
    const std::uint32_t numbers[4] = {x.x0, x.x1, x.x2, x.x3};
    for (unsigned k = 0; k < 4 && 4 * quad + k < static_cast<unsigned>(d.hidden); ++k) {
      const std::int64_t at = row * d.hidden + 4 * quad + k;
      const float kept = to_float(static_cast<const Real*>(d.x)[at]) * step.scale;
      static_cast<Real*>(d.y)[at] = from_float<Real>(numbers[k] < step.bound ? 0.0F : kept);
    }
  }
}

/// Calls f with the kernels' two template arguments.
template <class F>
void with_cell(Cell cell, Element element, const F& f) {
  with_element(element, [&](auto real) {
    switch (cell) {
      case Cell::kLstm: return f(std::integral_constant<Cell, Cell::kLstm>{}, real);
      case Cell::kGru: return f(std::integral_constant<Cell, Cell::kGru>{}, real);
      case Cell::kRnnTanh: return f(std::integral_constant<Cell, Cell::kRnnTanh>{}, real);
      case Cell::kRnnRelu: return f(std::integral_constant<Cell, Cell::kRnnRelu>{}, real);
    }
  });
}

}  // namespace

void cell_forward(const CellForward& s, cudaStream_t stream) {
  with_cell(s.cell, s.element, [&](auto cell, auto real) {
    launch("cell_forward", cell_forward_kernel<cell, decltype(real)>, step_grid(s.lanes, s.hidden), stream, s);
  });
}

void cell_backward(const CellBackward& s, cudaStream_t stream) {
  with_cell(s.cell, s.element, [&](auto cell, auto real) {
    launch("cell_backward", cell_backward_kernel<cell, decltype(real)>, step_grid(s.lanes, s.hidden), stream, s);
  });
}

void drop_out(const DropOut& d, cudaStream_t stream) {
  with_element(d.element, [&](auto real) {
    launch("drop_out", drop_out_kernel<decltype(real)>, cover(std::int64_t{d.steps} * d.lanes * ((d.hidden + 3) / 4)),
           stream, d);
  });
}

}  // namespace charrnn::cuda
