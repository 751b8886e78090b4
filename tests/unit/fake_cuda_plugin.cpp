// A CUDA backend that is none: what the loader and the registry are tested with. $FAKE_CUDA says what it plays.
#include <cstdlib>
#include <string>

#include "backend/cuda_plugin.h"

namespace charrnn {
namespace {

std::string role() {
  const char* const value = std::getenv("FAKE_CUDA");
  return value == nullptr ? "" : value;
}

std::string name_of_implementation(Implementation implementation) {
  return implementation == Implementation::kFused   ? "fused"
         : implementation == Implementation::kCudnn ? "cudnn"
                                                    : "auto";
}

class FakeBackend final : public Backend {
 public:
  FakeBackend(int device, Implementation implementation) {
    info_.backend = "cuda";
    info_.name = "Fake GPU " + std::to_string(device);
    info_.precisions = {Precision::kBf16, Precision::kFp32};
    info_.accelerator = true;
    info_.implementation = name_of_implementation(implementation);
  }
  const DeviceInfo& info() const override { return info_; }
  std::unique_ptr<Network> make_network(const NetworkShape&, Precision) override {
    throw DeviceError("the fake GPU computes nothing");
  }
  std::size_t memory_bytes(const NetworkShape&, const SessionShape&) const override { return 0; }
  double product_gflops(int, int, int, Precision) override { return 0; }

 private:
  DeviceInfo info_;
};

CudaStatus status() {
  CudaStatus status;
  if (role() == "no driver") {
    status.missing = "there is no NVIDIA driver (libcuda.so.1 was not found)";
    return status;
  }
  status.devices = {{.index = 0,
                     .name = "Fake GPU 0",
                     .usable = false,
                     .reason = "compute capability 3.5 is too old, 7.5 is needed",
                     .precisions = {}},
                    {.index = 1,
                     .name = "Fake GPU 1",
                     .usable = role() != "too old",
                     .reason = role() == "too old" ? "compute capability 5.2 is too old, 7.5 is needed" : "",
                     .precisions = {Precision::kBf16, Precision::kFp32},
                     .memory_bytes = std::size_t{3} << 30U}};
  status.cudnn = "9.99";
  return status;
}

std::unique_ptr<Backend> open(int device, Implementation implementation) {
  return std::make_unique<FakeBackend>(device, implementation);
}

}  // namespace

extern "C" __attribute__((visibility("default"))) const CudaPlugin* charrnn_cuda_plugin() {
  static CudaPlugin plugin;
  plugin = {.abi = role() == "other abi" ? kCudaPluginAbi + 7 : kCudaPluginAbi, .status = &status, .open = &open};
  return &plugin;
}

}  // namespace charrnn
