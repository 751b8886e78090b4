// The way from --device to a shared library, with a library that only plays a GPU.
#include <filesystem>

#include "charrnn/error.h"
#include "cli/matchers.h"
#include "devices/cuda_library.h"
#include "devices/registry.h"
#include "support/catch.h"
#include "support/environment.h"
#include "support/temp_folder.h"

namespace charrnn {
namespace {

using testing::contains;

struct Fake {
  explicit Fake(const std::string& role, const std::string& file = CHARRNN_FAKE_CUDA)
      : library(kCudaLibraryVariable, file), play("FAKE_CUDA", role) {}
  tests::Variable library, play;
};

std::string refusal(const std::string& device) {
  try {
    open_backend({.device = device});
  } catch (const DeviceError& error) {
    return error.what();
  }
  return "none";
}

}  // namespace

TEST_CASE("a CUDA backend is opened from its library, with the implementation that was asked for", "[devices]") {
  const Fake fake("two devices");
  const auto backend = open_backend({.device = "cuda:1", .implementation = Implementation::kFused});
  CHECK(backend->info().backend == "cuda");
  CHECK(backend->info().name == "Fake GPU 1");
  CHECK(backend->info().implementation == "fused");
  CHECK(backend->info().accelerator);
}

TEST_CASE("auto and cuda take the first device that can be used", "[devices]") {
  const Fake fake("two devices");
  for (const char* device : {"auto", "cuda"}) CHECK(open_backend({.device = device})->info().name == "Fake GPU 1");
  const auto cpu = open_backend({.device = "cpu", .threads = 1});
  CHECK(cpu->info().backend == "cpu");
  CHECK(!cpu->info().accelerator);
}

TEST_CASE("a device that cannot be used is refused with its name and the reason", "[devices]") {
  const Fake fake("two devices");
  CHECK_THAT(refusal("cuda:0"), contains("device cuda:0") && contains("Fake GPU 0") && contains("too old"));
  CHECK_THAT(refusal("cuda:2"), contains("no such device") && contains("cuda:0, cuda:1"));
}

TEST_CASE("without a device that can be used auto takes the CPU, and cuda says why not", "[devices]") {
  const auto [role, reason] = GENERATE(
      table<std::string, std::string>({{"no driver", "there is no NVIDIA driver"}, {"too old", "3.5 is too old"}}));
  const Fake fake(role);
  CHECK(open_backend({.device = "auto", .threads = 1})->info().backend == "cpu");
  CHECK_THAT(refusal("cuda"), contains(reason));
}

TEST_CASE("a library of another build is refused with both numbers", "[devices]") {
  const Fake fake("other abi");
  CHECK_THAT(refusal("cuda"), contains("another build") && contains(std::to_string(kCudaPluginAbi + 7)));
}

TEST_CASE("a library that was asked for and is broken is an error, for auto too", "[devices]") {
  const tests::TempFolder folder;
  const std::string device = GENERATE("cuda", "auto");
  SECTION("it is not there") {
    const Fake fake("", (folder / "nothing.so").string());
    CHECK_THAT(refusal(device), contains("nothing.so") && contains("no such file"));
  }
  SECTION("it is no library") {
    const Fake fake("", folder.file("text.so", "hello").string());
    CHECK_THAT(refusal(device), contains("text.so") && contains("cannot be loaded"));
  }
  SECTION("it has no door") {
    const Fake fake("", CHARRNN_FAKE_DOORLESS);
    CHECK_THAT(refusal(device), contains("no symbol"));
  }
  SECTION("a library that it needs is missing, which is named") {
    const Fake fake("", CHARRNN_FAKE_NEEDY);
    CHECK_THAT(refusal(device), contains("cannot be loaded") && contains("libcharrnn_fake_absent.so"));
  }
}

TEST_CASE("a name that is no device is refused", "[devices]") {
  for (const char* device : {"tpu", "", "cuda:", "cuda:x", "cuda:-1", "cuda:1x", "cudax"}) {
    CHECK_THROWS_AS(open_backend({.device = device}), ConfigError);
  }
  CHECK_THROWS_AS(open_backend({.device = "cpu", .threads = -1}), ConfigError);
}

TEST_CASE("each CUDA device is listed, or the reason why there is none", "[devices]") {
  SECTION("two devices") {
    const Fake fake("two devices");
    const BackendList list = list_backends();
    REQUIRE(list.backends.size() == 3);
    CHECK(list.backends[0].device == "cpu");
    CHECK_FALSE(list.backends[1].available);
    CHECK_THAT(list.backends[1].detail, contains("Fake GPU 0") && contains("too old"));
    CHECK(list.backends[2].available);
    CHECK(list.backends[2].device == "cuda:1");
    CHECK(list.backends[2].detail == "Fake GPU 1");
    CHECK(list.backends[2].memory_bytes == std::size_t{3} << 30U);
    CHECK(list.backends[2].precisions.size() == 2);
    CHECK(list.cudnn == "9.99");
  }
  SECTION("none") {
    const Fake fake(GENERATE("no driver", "other abi"));
    const BackendList list = list_backends();
    REQUIRE(list.backends.size() == 2);
    CHECK_FALSE(list.backends[1].available);
    CHECK(list.backends[1].device.empty());
    CHECK_THAT(list.backends[1].detail, contains("no NVIDIA driver") || contains("another build"));
    CHECK(list.cudnn.empty());
  }
}

}  // namespace charrnn
