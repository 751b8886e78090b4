#include "cpu/cpu_backend.h"

#include <sched.h>

#include <algorithm>
#include <chrono>
#include <fstream>

#include "cpu/cpu_network.h"
#include "cpu/cpu_session.h"

namespace charrnn::cpu {

namespace {

class CpuBackend final : public Backend {
 public:
  explicit CpuBackend(int threads) : pool_(std::make_shared<ThreadPool>(threads)) {
    info_.backend = "cpu";
    info_.name = cpu_name();
    info_.threads = threads;
    info_.precisions = {Precision::kFp32};
  }

  const DeviceInfo& info() const override { return info_; }

  std::unique_ptr<Network> make_network(const NetworkShape& shape, Precision precision) override {
    if (precision != Precision::kAuto && precision != Precision::kFp32) {
      throw DeviceError(
          "the cpu backend computes in fp32 only; set the precision (train.precision, --precision) to fp32 or "
          "auto");
    }
    return std::make_unique<CpuNetwork>(shape, pool_);
  }

  std::size_t memory_bytes(const NetworkShape& shape, const SessionShape& session) const override {
    return CpuNetwork::memory_bytes(shape) + CpuSession::memory_bytes(shape, session);
  }

  double product_gflops(int m, int n, int k, Precision precision) override;

 private:
  std::shared_ptr<ThreadPool> pool_;
  DeviceInfo info_;
};

double CpuBackend::product_gflops(int m, int n, int k, Precision /*precision*/) {
  using Clock = std::chrono::steady_clock;
  HostBuffer a(static_cast<std::size_t>(m) * static_cast<std::size_t>(k));
  HostBuffer b(static_cast<std::size_t>(k) * static_cast<std::size_t>(n));
  HostBuffer c(static_cast<std::size_t>(m) * static_cast<std::size_t>(n));
  const auto fill = [](HostBuffer& x) {  // memory that was never written would sit on one zero page
    for (std::size_t i = 0; i < x.size(); ++i) x.data()[i] = static_cast<float>(i % 7) - 3.0F;
  };
  fill(a), fill(b), fill(c);
  PackedWeights packed({b.data(), k, n, n, 1});
  const int parts = std::min(pool_->size(), m);
  std::vector<ProductCache> caches(static_cast<std::size_t>(parts));
  const auto multiply = [&] {
    pool_->run(parts, [&](int part) {
      const Range rows = split_range(m, part, parts);
      const ProductShape shape{.m = rows.size(), .n = n, .k = k, .a_row = k, .c_row = n};
      caches[static_cast<std::size_t>(part)].get(shape).run(a.data() + rows.begin * k, packed,
                                                            c.data() + rows.begin * n);
    });
  };
  multiply();
  const double flops = 2.0 * m * n * k;
  double best = 0;
  const auto until = Clock::now() + std::chrono::milliseconds(200);
  for (int runs = 0; runs < 3 || Clock::now() < until; ++runs) {
    const auto begin = Clock::now();
    multiply();
    best = std::max(best, flops / std::chrono::duration<double, std::nano>(Clock::now() - begin).count());
  }
  return best;
}

}  // namespace

std::string cpu_name() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    if (line.rfind("model name", 0) != 0) continue;
    const auto colon = line.find(':');
    if (colon != std::string::npos) return line.substr(line.find_first_not_of(" \t", colon + 1));
  }
  return "unknown processor";
}

int usable_processors() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof(set), &set) == 0) return std::max(1, CPU_COUNT(&set));
  return std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
}

std::unique_ptr<Backend> make_cpu_backend(int threads) {
  return std::make_unique<CpuBackend>(threads > 0 ? threads : usable_processors());
}

}  // namespace charrnn::cpu
