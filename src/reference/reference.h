// A naive double-precision reference of all that a backend computes: the network over a window, its gradients, and the
// optimizers. One number after another, no threads, no shared code with any backend: slow, and short enough to be read.
// Shapes and their order are those of the seam (backend/backend.h); everything that is float there is double here.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "backend/parameter_layout.h"
#include "charrnn/config.h"
#include "charrnn/network_shape.h"

namespace charrnn::reference {

/// What the output of `layer` (0 to L-1) at step t of the window is multiplied with on its way up, to the next layer or
/// to the head: 0, or 1 / (1 - probability). The carried h is not touched by it. An empty function: no dropout.
using DropoutMask = std::function<double(int layer, int t, int lane, int unit)>;

/// T x B characters, row-major, time first.
struct Window {
  int steps = 0;                          // T
  int batch = 0;                          // B
  std::span<const TokenId> ids{};         // [T,B], or empty if `inputs` are given
  std::span<const double> inputs{};       // [T,B,V] dense input vectors in place of ids
  std::span<const TokenId> targets{};     // [T,B], or empty: no loss
  std::span<const double> weights{};      // [T,B], or empty: all 1. Where it is 0 the target is not read
  std::span<const std::uint8_t> reset{};  // [B] non-zero: the lane starts from zero state; or empty: none
  double loss_scale = 1;                  // of each weighted loss in the gradient
};

struct State {
  std::vector<double> h;  // [L,B,H]
  std::vector<double> c;  // [L,B,H]; empty for cells without it

  static State zero(const NetworkShape& shape, int batch);
};

struct Result {
  std::vector<double> logits;  // [T,B,V]
  State state;                 // after the window
  double nats = 0;             // weighted sums over the window
  double weight = 0;
  double correct = 0;             // weight of the targets with the largest logit; of equals the first counts
  std::vector<double> gradients;  // [arena_size] d(loss_scale * nats), padding 0; empty from forward()
};

/// @throws ShapeError when a span's size is not that of its comment, or an id or a target that is read is not in [0, V)
Result forward(const ParameterLayout& layout, std::span<const double> parameters, const Window& window,
               const State& state, const DropoutMask& dropout = {});

/// forward(), and the gradients of all parameters. Truncated: `state` is a constant.
Result forward_backward(const ParameterLayout& layout, std::span<const double> parameters, const Window& window,
                        const State& state, const DropoutMask& dropout = {});

/// d f / d x_k = (f(x + step e_k) - f(x - step e_k)) / (2 step) for every k: 2 evaluations each. The error is about
/// step^2 f''' / 6 of truncation plus 2^-53 |f| / step of rounding; the default balances them for f''' and f near 1.
std::vector<double> central_differences(const std::function<double(std::span<const double>)>& f,
                                        std::span<const double> x, double step = 1e-5);

/// The gradients of forward_backward() by central differences of forward(): [arena_size], padding 0.
std::vector<double> numeric_gradients(const ParameterLayout& layout, std::span<const double> parameters,
                                      const Window& window, const State& state, const DropoutMask& dropout = {},
                                      double step = 1e-5);

/// Moments of an optimizer, zero at first: RMSProp's mean square, Adagrad's sum of squares and SGD's velocity are
/// moment1; Adam's mean is moment1 and its mean square moment2.
struct OptimizerState {
  std::vector<double> moment1, moment2;

  explicit OptimizerState(std::size_t count) : moment1(count), moment2(count) {}
};

double norm(std::span<const double> gradients);

/// Clips in place. By value: each element into [-threshold, threshold]. By norm: all by threshold / norm if the norm is
/// above the threshold; exactly that, without the 1e-6 that torch.nn.utils.clip_grad_norm_ adds to the norm.
void clip(const ClipConfig& config, std::span<double> gradients);

/// One step as PyTorch's optimizers of the same names take it (RMSprop not centred and without momentum, SGD without
/// dampening), from gradients that are clipped already. `step` counts from 1.
void update(const OptimizerConfig& config, std::int64_t step, std::span<const double> gradients,
            std::span<double> parameters, OptimizerState& state);

}  // namespace charrnn::reference
