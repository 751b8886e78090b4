#include <dlfcn.h>

#include "charrnn/error.h"
#include "support/catch.h"

using namespace charrnn;

TEST_CASE("errors thrown by a library with the CUDA backend's exports are caught by type", "[cuda_build]") {
  void* const library = dlopen(CHARRNN_THROWING_LIBRARY, RTLD_NOW | RTLD_LOCAL);
  REQUIRE(library != nullptr);
  CHECK(dlsym(library, "charrnn_not_exported") == nullptr);
  const auto raise = reinterpret_cast<void (*)(int)>(dlsym(library, "charrnn_cuda_plugin"));
  REQUIRE(raise != nullptr);
  CHECK_THROWS_AS(raise(0), DeviceError);
  CHECK_THROWS_AS(raise(1), RunError);
  try {
    raise(2);
    FAIL("nothing was thrown");
  } catch (const Error& error) {
    CHECK(error.code() == ExitCode::kDevice);
  }
}
