// What a training step costs, counted in matrix products.
#pragma once

#include "charrnn/network_shape.h"

namespace charrnn {

/// Floating-point operations (2 per multiply-add) of the matrix products of one training step of B x T characters:
/// forward, and twice that for the gradients of activations and of weights. The 1-of-k product is a gather and does not
/// count. The article's 2x512 LSTM at B = T = V = 100: 191.8e9.
inline double training_step_flops(const NetworkShape& n, double batch, double steps) {
  const double hidden = n.hidden, layers = n.layers;
  const double square = gate_count(n.cell) * hidden * hidden;  // one layer's recurrent (or input) matrix
  const double multiplies = layers * square + (layers - 1) * square + hidden * n.vocabulary;
  return 3 * 2 * batch * steps * multiplies;
}

}  // namespace charrnn
