// The largest block that operator new was asked for: a malformed file must not size an allocation.
#pragma once

#include <cstddef>

namespace charrnn::tests {

void reset_largest_allocation();
std::size_t largest_allocation();

}  // namespace charrnn::tests
