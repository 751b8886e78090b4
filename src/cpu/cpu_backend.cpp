#include "cpu/cpu_backend.h"

#include <sched.h>

#include <algorithm>
#include <chrono>
#include <fstream>
#include <oneapi/dnnl/dnnl.hpp>
#include <type_traits>

#include "cpu/cpu_network.h"
#include "cpu/cpu_session.h"

namespace charrnn::cpu {

namespace {

/// oneDNN is asked what the processor has, so that what limits it (DNNL_MAX_CPU_ISA) also limits which precisions there
/// are, and whether our own loops use AVX-512.
bool effective_isa_has(dnnl::cpu_isa wanted) {
  const auto features = static_cast<unsigned>(wanted);  // a value is a set of features
  return (static_cast<unsigned>(dnnl::get_effective_cpu_isa()) & features) == features;
}

class CpuBackend final : public Backend {
 public:
  explicit CpuBackend(int threads) : pool_(std::make_shared<ThreadPool>(threads)) {
    info_.backend = "cpu";
    info_.name = cpu_name();
    info_.threads = threads;
    info_.precisions = precisions();
  }

  const DeviceInfo& info() const override { return info_; }

  std::unique_ptr<Network> make_network(const NetworkShape& shape, Precision precision) override {
    return std::make_unique<CpuNetwork>(shape, supported(precision), pool_);
  }

  std::size_t memory_bytes(const NetworkShape& shape, const SessionShape& session) const override {
    const int threads = pool_->size();
    return CpuNetwork::memory_bytes(shape) + std::max(CpuSession<float>::memory_bytes(shape, session, threads),
                                                      CpuSession<Bf16>::memory_bytes(shape, session, threads));
  }

  double product_gflops(int m, int n, int k, Precision precision) override;

 private:
  Precision supported(Precision precision) const;

  std::shared_ptr<ThreadPool> pool_;
  DeviceInfo info_;
};

Precision CpuBackend::supported(Precision precision) const {
  const auto& have = info_.precisions;
  if (precision == Precision::kAuto) return have.front();
  if (std::find(have.begin(), have.end(), precision) != have.end()) return precision;
  std::string names;
  for (const Precision p : have) names += (names.empty() ? "" : ", ") + std::string(name_of(p));
  throw DeviceError("the cpu backend has no " + std::string(name_of(precision)) + " on this processor (" + info_.name +
                    "): it computes in " + names +
                    (precision == Precision::kBf16 ? "; bf16 takes AVX-512 BF16 or AMX" : "") +
                    "; set the precision (train.precision, --precision) to one of these or auto");
}

/// A [m,k] B [k,n] with rows of A dealt to the threads, as fast as it goes for 200 ms.
template <class E>
double best_product_gflops(ThreadPool& pool, int m, int n, int k) {
  using Clock = std::chrono::steady_clock;
  HostArray<E> a(static_cast<std::size_t>(m) * static_cast<std::size_t>(k));
  HostBuffer b(static_cast<std::size_t>(k) * static_cast<std::size_t>(n));
  HostBuffer c(static_cast<std::size_t>(m) * static_cast<std::size_t>(n));
  const auto fill = [](auto* x, std::size_t count) {  // memory that was never written would sit on one zero page
    for (std::size_t i = 0; i < count; ++i) {
      x[i] = from_float<std::remove_reference_t<decltype(*x)>>(static_cast<float>(i % 7) - 3.0F);
    }
  };
  fill(a.data(), a.size());
  fill(b.data(), b.size());
  fill(c.data(), c.size());
  PackedWeights packed({b.data(), k, n, n, 1});
  const int parts = std::min(pool.size(), m);
  std::vector<ProductCache> caches(static_cast<std::size_t>(parts));
  const auto multiply = [&] {
    pool.run(parts, [&](int part) {
      const Range rows = split_range(m, part, parts);
      const ProductShape shape{.m = rows.size(), .n = n, .k = k, .a_row = k, .c_row = n};
      caches[static_cast<std::size_t>(part)].multiply(shape, a.data() + rows.begin * k, packed,
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

double CpuBackend::product_gflops(int m, int n, int k, Precision precision) {
  return supported(precision) == Precision::kBf16 ? best_product_gflops<Bf16>(*pool_, m, n, k)
                                                  : best_product_gflops<float>(*pool_, m, n, k);
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

std::vector<Precision> precisions() {
  if (effective_isa_has(dnnl::cpu_isa::avx512_core_bf16)) return {Precision::kBf16, Precision::kFp32};
  return {Precision::kFp32};
}

int usable_processors() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof(set), &set) == 0) return std::max(1, CPU_COUNT(&set));
  return std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
}

std::unique_ptr<Backend> make_cpu_backend(int threads) {
  if (!effective_isa_has(dnnl::cpu_isa::avx512_core)) limit_vectors_to_avx2();
  return std::make_unique<CpuBackend>(threads > 0 ? threads : usable_processors());
}

}  // namespace charrnn::cpu
