// What training and forward passes cost, counted in matrix products.
#pragma once

#include "charrnn/network_shape.h"

namespace charrnn {

/// Floating-point operations (2 per multiply-add) of the matrix products that B x T characters take forward. The 1-of-k
/// product is a gather and does not count.
inline double forward_flops(const NetworkShape& n, double batch, double steps) {
  const double hidden = n.hidden, layers = n.layers;
  const double square = gate_count(n.cell) * hidden * hidden;  // one layer's recurrent (or input) matrix
  const double multiplies = layers * square + (layers - 1) * square + hidden * n.vocabulary;
  return 2 * batch * steps * multiplies;
}

/// The same of one training step: forward, and twice that for the gradients of activations and of weights. The
/// article's 2x512 LSTM at B = T = V = 100: 191.8e9.
inline double training_step_flops(const NetworkShape& n, double batch, double steps) {
  return 3 * forward_flops(n, batch, steps);
}

}  // namespace charrnn
