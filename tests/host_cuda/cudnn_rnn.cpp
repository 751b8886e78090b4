#include "host_cuda/cudnn_rnn.h"

#include <cmath>
#include <utility>

namespace host_cuda::rnn {

namespace {

double sigmoid(double a) { return 1 / (1 + std::exp(-a)); }

/// out[i] += sum_k v[k] matrix[k][i]: loops run along rows of the matrix.
void add_product(const double* v, const double* matrix, std::size_t rows, std::size_t cols, double* out) {
  for (std::size_t k = 0; k < rows; ++k) {
    for (std::size_t i = 0; i < cols; ++i) out[i] += v[k] * matrix[k * cols + i];
  }
}

std::vector<double> transposed(const std::vector<double>& matrix, std::size_t rows, std::size_t cols) {
  std::vector<double> result(matrix.size());
  for (std::size_t i = 0; i < rows; ++i) {
    for (std::size_t j = 0; j < cols; ++j) result[j * rows + i] = matrix[i * cols + j];
  }
  return result;
}

/// Where things are in one layer's rows.
struct Rows {
  const Sizes& sizes;
  std::size_t layer;

  std::size_t hidden() const { return sizes.hidden; }
  bool runs(std::size_t t, std::size_t lane) const { return t < sizes.lengths[lane]; }
  std::size_t at(std::size_t t, std::size_t lane, std::size_t width) const {
    return ((layer * sizes.steps + t) * sizes.batch + lane) * width;
  }
  std::size_t state(std::size_t lane) const { return (layer * sizes.batch + lane) * sizes.hidden; }
  std::size_t extra() const { return sizes.gates() * sizes.hidden; }  // within a kept or derived row
  std::size_t output() const { return (sizes.gates() + 1) * sizes.hidden; }

  const double* h_before(const double* kept, const State& start, std::size_t t, std::size_t lane) const {
    return t == 0 ? &start.h[state(lane)] : kept + at(t - 1, lane, sizes.kept()) + output();
  }
  const double* c_before(const double* kept, const State& start, std::size_t t, std::size_t lane) const {
    return t == 0 ? &start.c[state(lane)] : kept + at(t - 1, lane, sizes.kept()) + extra();
  }
  /// What the layer reads at (t, lane): x, or the h of the layer below.
  const double* input(const double* kept, const std::vector<double>& x, std::size_t t, std::size_t lane) const {
    if (layer == 0) return &x[(t * sizes.batch + lane) * sizes.inputs];
    return kept + Rows{sizes, layer - 1}.at(t, lane, sizes.kept()) + output();
  }
};

/// A cell's step. @param sum_x,sum_h  the sums on the input's and on the recurrent side, with their biases
/// @param row  the kept row to write
void step_forward(Cell cell, std::size_t hidden, const double* sum_x, const double* sum_h, const double* h_before,
                  const double* c_before, double* row) {
  for (std::size_t j = 0; j < hidden; ++j) {
    const auto sum = [&](std::size_t gate) { return sum_x[gate * hidden + j] + sum_h[gate * hidden + j]; };
    const auto place = [&](std::size_t gate) -> double& { return row[gate * hidden + j]; };
    switch (cell) {
      case Cell::kRelu: place(2) = place(0) = sum(0) < 0 ? 0 : sum(0); break;  // a NaN stays one
      case Cell::kTanh: place(2) = place(0) = std::tanh(sum(0)); break;
      case Cell::kLstm: {
        const double i = sigmoid(sum(0)), f = sigmoid(sum(1)), g = std::tanh(sum(2)), o = sigmoid(sum(3));
        place(0) = i, place(1) = f, place(2) = g, place(3) = o;
        place(4) = f * c_before[j] + i * g;
        place(5) = o * std::tanh(place(4));
        break;
      }
      case Cell::kGru: {
        const double r = sigmoid(sum(0)), z = sigmoid(sum(1));
        place(3) = sum_h[2 * hidden + j];
        const double n = std::tanh(sum_x[2 * hidden + j] + r * place(3));
        place(0) = r, place(1) = z, place(2) = n;
        place(4) = (1 - z) * n + z * h_before[j];
        break;
      }
    }
  }
}

/// A cell's step back. Writes the row of derivatives and leaves in dh and dc what goes straight to the step before,
/// without the part through the recurrent product.
void step_backward(Cell cell, std::size_t hidden, const double* row, const double* h_before, const double* c_before,
                   double* dh, double* dc, double* derived) {
  for (std::size_t j = 0; j < hidden; ++j) {
    const auto kept = [&](std::size_t gate) { return row[gate * hidden + j]; };
    const auto place = [&](std::size_t gate) -> double& { return derived[gate * hidden + j]; };
    switch (cell) {
      case Cell::kRelu:
        place(1) = place(0) = kept(0) > 0 ? dh[j] : 0;
        dh[j] = 0;
        break;
      case Cell::kTanh:
        place(1) = place(0) = dh[j] * (1 - kept(0) * kept(0));
        dh[j] = 0;
        break;
      case Cell::kLstm: {
        const double i = kept(0), f = kept(1), g = kept(2), o = kept(3), squashed = std::tanh(kept(4));
        const double dcell = dc[j] + dh[j] * o * (1 - squashed * squashed);
        place(0) = dcell * g * i * (1 - i);
        place(1) = dcell * c_before[j] * f * (1 - f);
        place(2) = dcell * i * (1 - g * g);
        place(3) = dh[j] * squashed * o * (1 - o);
        place(4) = 0;
        dc[j] = dcell * f;
        dh[j] = 0;
        break;
      }
      case Cell::kGru: {
        const double r = kept(0), z = kept(1), n = kept(2);
        place(2) = dh[j] * (1 - z) * (1 - n * n);
        place(3) = place(2) * r;
        place(0) = place(2) * kept(3) * r * (1 - r);
        place(1) = dh[j] * (h_before[j] - n) * z * (1 - z);
        dh[j] *= z;
        break;
      }
    }
  }
}

/// The derivatives on the recurrent side [G*H]: as on the input's, but for n of GRU.
std::vector<double> recurrent_side(const Sizes& sizes, const double* derived) {
  const std::size_t hidden = sizes.hidden;
  std::vector<double> result(derived, derived + sizes.gates() * hidden);
  if (sizes.cell == Cell::kGru) {
    for (std::size_t j = 0; j < hidden; ++j) result[2 * hidden + j] = derived[3 * hidden + j];
  }
  return result;
}

}  // namespace

State forward(const Sizes& sizes, const std::vector<Layer>& layers, const std::vector<double>& x, const State& start,
              double* kept) {
  State state = start;
  for (std::size_t layer = 0; layer < sizes.layers; ++layer) {
    const Rows rows{sizes, layer};
    const std::size_t inputs = sizes.inputs_of(layer), width = sizes.gates() * sizes.hidden;
    const std::vector<double> columns_x = transposed(layers[layer].weight_x, width, inputs);
    const std::vector<double> columns_h = transposed(layers[layer].weight_h, width, sizes.hidden);
    for (std::size_t t = 0; t < sizes.steps; ++t) {
      for (std::size_t lane = 0; lane < sizes.batch; ++lane) {
        if (!rows.runs(t, lane)) continue;
        const double* h_before = rows.h_before(kept, start, t, lane);
        const double* c_before = sizes.cell == Cell::kLstm ? rows.c_before(kept, start, t, lane) : nullptr;
        std::vector<double> sum_x = layers[layer].bias_x, sum_h = layers[layer].bias_h;
        add_product(rows.input(kept, x, t, lane), columns_x.data(), inputs, width, sum_x.data());
        add_product(h_before, columns_h.data(), sizes.hidden, width, sum_h.data());
        double* row = kept + rows.at(t, lane, sizes.kept());
        step_forward(sizes.cell, sizes.hidden, sum_x.data(), sum_h.data(), h_before, c_before, row);
        for (std::size_t j = 0; j < sizes.hidden; ++j) {
          state.h[rows.state(lane) + j] = row[rows.output() + j];
          if (c_before != nullptr) state.c[rows.state(lane) + j] = row[rows.extra() + j];
        }
      }
    }
  }
  return state;
}

Derivatives backward_data(const Sizes& sizes, const std::vector<Layer>& layers, const State& start, const double* kept,
                          const std::vector<double>& dy, const State& dend, double* derived) {
  Derivatives result{{}, dend};
  std::vector<double> doutput = dy;  // of the layer at work
  for (std::size_t layer = sizes.layers; layer-- > 0;) {
    const Rows rows{sizes, layer};
    const std::size_t inputs = sizes.inputs_of(layer), hidden = sizes.hidden, width = sizes.gates() * hidden;
    std::vector<double> dinput(sizes.rows() * inputs);
    for (std::size_t t = sizes.steps; t-- > 0;) {
      for (std::size_t lane = 0; lane < sizes.batch; ++lane) {
        if (!rows.runs(t, lane)) continue;
        double* dh = &result.dstart.h[rows.state(lane)];
        double* dc = sizes.cell == Cell::kLstm ? &result.dstart.c[rows.state(lane)] : nullptr;
        const double* c_before = dc != nullptr ? rows.c_before(kept, start, t, lane) : nullptr;
        const std::size_t index = t * sizes.batch + lane;
        for (std::size_t j = 0; j < hidden; ++j) dh[j] += doutput[index * hidden + j];
        double* row = derived + rows.at(t, lane, sizes.derived());
        step_backward(sizes.cell, hidden, kept + rows.at(t, lane, sizes.kept()), rows.h_before(kept, start, t, lane),
                      c_before, dh, dc, row);
        add_product(recurrent_side(sizes, row).data(), layers[layer].weight_h.data(), width, hidden, dh);
        add_product(row, layers[layer].weight_x.data(), width, inputs, &dinput[index * inputs]);
      }
    }
    doutput = std::move(dinput);
  }
  result.dx = std::move(doutput);
  return result;
}

Layer backward_weights(const Sizes& sizes, std::size_t layer, const std::vector<double>& x, const State& start,
                       const double* kept, const double* derived) {
  const Rows rows{sizes, layer};
  const std::size_t inputs = sizes.inputs_of(layer), hidden = sizes.hidden, width = sizes.gates() * hidden;
  Layer d{std::vector<double>(width * inputs), std::vector<double>(width * hidden), std::vector<double>(width),
          std::vector<double>(width)};
  for (std::size_t t = 0; t < sizes.steps; ++t) {
    for (std::size_t lane = 0; lane < sizes.batch; ++lane) {
      if (!rows.runs(t, lane)) continue;
      const double* input_side = derived + rows.at(t, lane, sizes.derived());
      const std::vector<double> recurrent = recurrent_side(sizes, input_side);
      const double* input = rows.input(kept, x, t, lane);
      const double* h_before = rows.h_before(kept, start, t, lane);
      for (std::size_t i = 0; i < width; ++i) {
        add_product(&input_side[i], input, 1, inputs, &d.weight_x[i * inputs]);
        add_product(&recurrent[i], h_before, 1, hidden, &d.weight_h[i * hidden]);
        d.bias_x[i] += input_side[i];
        d.bias_h[i] += recurrent[i];
      }
    }
  }
  return d;
}

}  // namespace host_cuda::rnn
