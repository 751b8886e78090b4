// Device memory and a stream as values, for tests of the stand-ins.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <stdexcept>
#include <vector>

#include "host_cuda/library_support.h"

namespace host_cuda {

inline void succeed(cudaError_t error) {
  if (error != cudaSuccess) throw std::runtime_error("a CUDA call of the test itself failed");
}

class Stream {
 public:
  Stream() { succeed(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking)); }
  ~Stream() { static_cast<void>(cudaStreamDestroy(stream_)); }
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;

  operator cudaStream_t() const { return stream_; }
  void wait() const { succeed(cudaStreamSynchronize(stream_)); }

 private:
  cudaStream_t stream_ = nullptr;
};

/// `count` elements on the device, made from and read back as doubles.
class DeviceArray {
 public:
  DeviceArray(Element element, std::size_t count) : element_(element), count_(count) {
    succeed(cudaMalloc(&memory_, bytes()));
  }
  DeviceArray(Element element, const std::vector<double>& values) : DeviceArray(element, values.size()) { put(values); }
  ~DeviceArray() { static_cast<void>(cudaFree(memory_)); }
  DeviceArray(const DeviceArray&) = delete;
  DeviceArray& operator=(const DeviceArray&) = delete;

  void put(const std::vector<double>& values) {
    std::vector<std::byte> host(bytes());
    from_double(element_, values.data(), count_, host.data());
    succeed(cudaMemcpy(memory_, host.data(), host.size(), cudaMemcpyHostToDevice));
  }
  std::vector<double> read() const {
    std::vector<std::byte> host(bytes());
    succeed(cudaMemcpy(host.data(), memory_, host.size(), cudaMemcpyDeviceToHost));
    std::vector<double> values(count_);
    to_double(element_, host.data(), count_, values.data());
    return values;
  }

  void* at(std::size_t element = 0) const { return byte_offset(memory_, element * bytes_of(element_)); }
  Element element() const { return element_; }
  std::size_t count() const { return count_; }
  std::size_t bytes() const { return count_ * bytes_of(element_); }

 private:
  Element element_;
  std::size_t count_;
  void* memory_ = nullptr;
};

/// What storing as `element` makes of a value.
inline double rounded(Element element, double value) {
  std::byte stored[4];
  from_double(element, &value, 1, stored);
  to_double(element, stored, 1, &value);
  return value;
}

/// Numbers in [-1, 1), a fixed sequence.
inline std::vector<double> noise(std::size_t count, std::uint64_t seed) {
  std::vector<double> values(count);
  std::uint64_t state = seed * 2654435761U + 12345U;
  for (double& value : values) {
    state = state * 6364136223846793005U + 1442695040888963407U;
    value = static_cast<double>(static_cast<std::int64_t>(state) >> 11) * 0x1p-52;
  }
  return values;
}

}  // namespace host_cuda
