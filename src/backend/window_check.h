// What every backend refuses of a window before it touches its arrays.
#pragma once

#include "backend/backend.h"

namespace charrnn {

/// @throws ShapeError for sizes that do not fit the session, and for ids or targets (of a weight other than 0) outside
///         the vocabulary
void check_window(const Window& w, const SessionShape& shape, int vocabulary, bool with_loss);

/// @throws ShapeError unless h and c are [L,B,H], c empty for cells without it
void check_state(const NetworkShape& network, int batch, std::size_t h, std::size_t c);

}  // namespace charrnn
