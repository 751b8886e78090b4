#pragma once

#include <string>

#include "support/catch.h"

namespace charrnn::testing {

/// Of a string: has this in it. The name differs between versions 2 and 3 of Catch.
inline auto contains(const std::string& text) {
#if __has_include(<catch2/catch_all.hpp>)
  return Catch::Matchers::ContainsSubstring(text);
#else
  return Catch::Matchers::Contains(text);
#endif
}

}  // namespace charrnn::testing
