#include "cuda/cuda_backend.h"

#include <cuda_profiler_api.h>

#include <algorithm>
#include <sstream>
#include <utility>

#include "cuda/cuda_session.h"

namespace charrnn::cuda {

bool has_code_for(const std::string& targets, int major, int minor) {
  std::istringstream words(targets);
  bool any = false;
  for (std::string target; words >> target;) {
    any = true;
    std::size_t digits = 0;
    const int number = std::stoi(target, &digits), here = 10 * major + minor;
    const bool exact = target.size() > digits && target[digits] == 'a';
    const bool is_virtual = target.ends_with("-virtual");
    const bool fits = exact        ? number == here
                      : is_virtual ? number <= here
                                   : number / 10 == major && number % 10 <= minor;
    if (fits) return true;
  }
  return !any;
}

namespace {

/// The oldest GPU that the kernels are compiled for: CUDA 13 begins with sm_75, CUDA 12 can go on with older ones.
#if CUDART_VERSION >= 13000
constexpr int kOldest = 75;
#else
constexpr int kOldest = 61;
#endif
constexpr int kFirstWithBf16 = 80;  // and TF32
constexpr int kFirstWithFp16 = 70;  // on tensor cores

std::string sentence(cudaError_t status) { return std::string(cudaGetErrorString(status)); }

/// Names the reason for no GPU in the words that help; empty: there are `*count`.
std::string missing_devices(int* count) {
  *count = 0;
  const cudaError_t status = cudaGetDeviceCount(count);
  if (status == cudaSuccess) return *count > 0 ? "" : "no NVIDIA GPU was found";
  *count = 0;
  static_cast<void>(cudaGetLastError());
  if (status == cudaErrorInsufficientDriver) {
    int driver = 0, runtime = 0;
    static_cast<void>(cudaDriverGetVersion(&driver));
    static_cast<void>(cudaRuntimeGetVersion(&runtime));
    const auto version = [](int v) { return std::to_string(v / 1000) + "." + std::to_string(v % 1000 / 10); };
    if (driver == 0) return "no NVIDIA driver was found";
    return "the NVIDIA driver knows CUDA " + version(driver) + ", this build needs " + version(runtime) +
           "; install a newer driver";
  }
  if (status == cudaErrorNoDevice) return "no NVIDIA GPU was found";
  return "the CUDA runtime says: " + sentence(status);
}

/// In the order of preference: the first is what `auto` takes.
std::vector<Precision> precisions_of(int compute) {
  std::vector<Precision> list;
  if (compute >= kFirstWithBf16) list.push_back(Precision::kBf16);
  if (compute >= kFirstWithFp16) list.push_back(Precision::kFp16);
  if (compute >= kFirstWithBf16) list.push_back(Precision::kTf32);
  list.push_back(Precision::kFp32);
  return list;
}

/// What the library holds code for, as CMake says it: 90a-real, 75-real, 90-virtual ... Empty: not known.
#if !defined(CHARRNN_CUDA_TARGETS)
#define CHARRNN_CUDA_TARGETS ""
#endif

CudaDeviceStatus device_status(int index) {
  CudaDeviceStatus s;
  s.index = index;
  cudaDeviceProp properties{};
  const cudaError_t status = cudaGetDeviceProperties(&properties, index);
  if (status != cudaSuccess) {
    s.name = "GPU " + std::to_string(index);
    s.reason = sentence(status);
    return s;
  }
  s.name = properties.name;
  s.memory_bytes = properties.totalGlobalMem;
  const int compute = 10 * properties.major + properties.minor;
  if (compute < kOldest) {
    s.reason = "it has compute capability " + std::to_string(properties.major) + "." +
               std::to_string(properties.minor) + ", this build starts at " + std::to_string(kOldest / 10) + "." +
               std::to_string(kOldest % 10) + (kOldest == 75 ? "; a build with CUDA 12 starts at 6.1" : "");
    return s;
  }
  if (!has_code_for(CHARRNN_CUDA_TARGETS, properties.major, properties.minor)) {
    s.reason = "this build has no code for compute capability " + std::to_string(properties.major) + "." +
               std::to_string(properties.minor) +
               ", only for " CHARRNN_CUDA_TARGETS
               "; build it on this machine, or with -DCHARRNN_CUDA_ARCHITECTURES=all";
    return s;
  }
  s.usable = true;
  s.precisions = precisions_of(compute);
  return s;
}

class CudaBackend final : public Backend {
 public:
  CudaBackend(const CudaDeviceStatus& status, Implementation implementation);

  const DeviceInfo& info() const override;
  std::unique_ptr<Network> make_network(const NetworkShape& shape, Precision precision) override;
  std::size_t memory_bytes(const NetworkShape& shape, const SessionShape& session) const override {
    return CudaNetwork::memory_bytes(shape, info_.precisions.front()) +
           CudaSession::memory_bytes(shape, info_.precisions.front(), session);
  }
  double product_gflops(int m, int n, int k, Precision precision) override;
  DeviceUse use() const override { return {held_memory().peak, device_->launches_a_step}; }
  void profile(bool on) override;
  std::vector<std::string> take_notes() override { return std::exchange(device_->notes, {}); }

 private:
  Precision resolve(Precision precision) const;

  std::shared_ptr<Device> device_;
  mutable DeviceInfo info_;  // what computes the recurrence may change: info()
};

CudaBackend::CudaBackend(const CudaDeviceStatus& status, Implementation implementation) {
  check(cudaSetDevice(status.index), "cudaSetDevice");
  device_ = std::make_shared<Device>();
  device_->index = status.index;
  device_->implementation = implementation;
  cudaDeviceProp properties{};
  check(cudaGetDeviceProperties(&properties, status.index), "cudaGetDeviceProperties");
  device_->compute_major = properties.major;
  device_->compute_minor = properties.minor;
  device_->multiprocessors = properties.multiProcessorCount;
  info_.backend = "cuda";
  info_.name = status.name;
  info_.precisions = status.precisions;
  info_.steps_in_flight = kStepsInFlight;
  info_.accelerator = true;
}

/// auto is fused (wants_cudnn() in recurrence.cpp), and so is what fell back from cuDNN.
const DeviceInfo& CudaBackend::info() const {
  const bool cudnn = device_->implementation == Implementation::kCudnn;
  info_.implementation = name_of(cudnn ? Implementation::kCudnn : Implementation::kFused);
  return info_;
}

Precision CudaBackend::resolve(Precision precision) const {
  if (precision == Precision::kAuto) return info_.precisions.front();
  if (std::find(info_.precisions.begin(), info_.precisions.end(), precision) != info_.precisions.end()) {
    return precision;
  }
  std::string has;
  for (const Precision p : info_.precisions) has += (has.empty() ? "" : ", ") + std::string(name_of(p));
  throw DeviceError("cuda: " + info_.name + " does not compute in " + std::string(name_of(precision)) + ", only in " +
                    has + "; set the precision (train.precision, --precision) to one of these or to auto");
}

std::unique_ptr<Network> CudaBackend::make_network(const NetworkShape& shape, Precision precision) {
  const Precision resolved = resolve(precision);
  require_memory(CudaNetwork::memory_bytes(shape, resolved), "the network",
                 "use a smaller model.hidden or fewer model.layers");
  return std::make_unique<CudaNetwork>(shape, resolved, device_);
}

double CudaBackend::product_gflops(int m, int n, int k, Precision precision) {
  const Format format = format_of(resolve(precision));
  const auto bytes = [&](int rows, int columns) {
    return static_cast<std::size_t>(rows) * static_cast<std::size_t>(columns) * size_of(format.element);
  };
  DeviceBuffer<std::byte> a(bytes(m, k), "a product"), b(bytes(k, n), "a product");
  DeviceBuffer<float> c(static_cast<std::size_t>(m) * static_cast<std::size_t>(n), "a product");
  auto* const stream = device_->stream.get();
  a.zero(stream), b.zero(stream);
  Products products(format.arithmetic);
  const Product product{
      .a = {a.data(), format.element, m, k, k}, .b = {b.data(), format.element, k, n, n}, .to = c.data(), .stride = n};
  constexpr int kWarmUp = 3, kRuns = 20;
  for (int i = 0; i < kWarmUp; ++i) products.run(product, stream);
  const Event begin(Event::Kind::kTimed), end(Event::Kind::kTimed);
  begin.record(stream);
  for (int i = 0; i < kRuns; ++i) products.run(product, stream);
  end.record(stream);
  end.wait();
  float ms = 0;
  check(cudaEventElapsedTime(&ms, begin.get(), end.get()), "cudaEventElapsedTime");
  return ms > 0 ? 2.0 * m * n * k * kRuns / (double{ms} * 1e6) : 0;
}

void CudaBackend::profile(bool on) {
  device_->stream.wait();
  if (on) {
    check(cudaProfilerStart(), "cudaProfilerStart");
  } else {
    check(cudaProfilerStop(), "cudaProfilerStop");
  }
}

}  // namespace

std::unique_ptr<Backend> make_cuda_backend(int device, Implementation implementation) {
  int count = 0;
  const std::string missing = missing_devices(&count);
  if (!missing.empty()) throw DeviceError("cuda: " + missing);
  if (device < 0 || device >= count) {
    throw DeviceError("cuda:" + std::to_string(device) + ": this machine has " + std::to_string(count) +
                      (count == 1 ? " GPU, cuda:0" : " GPUs, cuda:0 to cuda:" + std::to_string(count - 1)));
  }
  const CudaDeviceStatus status = device_status(device);
  if (!status.usable) throw DeviceError("cuda:" + std::to_string(device) + ": " + status.name + ": " + status.reason);
  return std::make_unique<CudaBackend>(status, implementation);
}

CudaStatus cuda_status() {
  CudaStatus status;
  int count = 0;
  status.missing = missing_devices(&count);
  for (int i = 0; i < count; ++i) status.devices.push_back(device_status(i));
  status.cudnn = cudnn_status();
  return status;
}

}  // namespace charrnn::cuda
