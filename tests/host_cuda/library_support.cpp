#include "host_cuda/library_support.h"

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <map>
#include <mutex>

namespace host_cuda {

std::size_t bytes_of(Element element) { return element == Element::kFloat ? 4 : 2; }

void to_double(Element element, const void* from, std::size_t count, double* to) {
  switch (element) {
    case Element::kFloat:
      for (std::size_t i = 0; i < count; ++i) to[i] = static_cast<double>(static_cast<const float*>(from)[i]);
      return;
    case Element::kHalf:
      for (std::size_t i = 0; i < count; ++i) {
        to[i] = static_cast<double>(__half2float(static_cast<const __half*>(from)[i]));
      }
      return;
    case Element::kBfloat16:
      for (std::size_t i = 0; i < count; ++i) {
        to[i] = static_cast<double>(__bfloat162float(static_cast<const __nv_bfloat16*>(from)[i]));
      }
      return;
  }
}

void from_double(Element element, const double* from, std::size_t count, void* to) {
  switch (element) {
    case Element::kFloat:
      for (std::size_t i = 0; i < count; ++i) static_cast<float*>(to)[i] = static_cast<float>(from[i]);
      return;
    case Element::kHalf:
      for (std::size_t i = 0; i < count; ++i) static_cast<__half*>(to)[i] = __double2half(from[i]);
      return;
    case Element::kBfloat16:
      for (std::size_t i = 0; i < count; ++i) static_cast<__nv_bfloat16*>(to)[i] = __double2bfloat16(from[i]);
      return;
  }
}

double round_to_tf32(double value) {
  auto bits = std::bit_cast<std::uint32_t>(static_cast<float>(value));
  constexpr std::uint32_t kDropped = 13, kExponent = 0x7f800000U;  // of a float's 23 bits of mantissa 10 are left
  if ((bits & kExponent) == kExponent) return value;               // infinite or NaN
  bits += (1U << (kDropped - 1U)) - 1U + ((bits >> kDropped) & 1U);
  bits &= ~((1U << kDropped) - 1U);
  return static_cast<double>(std::bit_cast<float>(bits));
}

std::uint64_t checksum(std::uint64_t seed, const void* data, std::size_t bytes) {
  constexpr std::uint64_t kPrime = 0x9e3779b97f4a7c15U;
  std::uint64_t sum = seed + kPrime;
  for (std::size_t i = 0; i < bytes; i += sizeof(std::uint64_t)) {
    std::uint64_t word = 0;
    std::memcpy(&word, byte_offset(data, i), std::min(sizeof word, bytes - i));
    sum = (sum ^ word) * kPrime;
    sum ^= sum >> 32U;  // so that high bits reach the low ones
  }
  return sum;
}

namespace {
std::mutex objects_mutex;
// Never freed: objects of a program under test may outlive statics of this file.
std::map<const void*, std::string>& objects() {
  static auto* map = new std::map<const void*, std::string>;
  return *map;
}
}  // namespace

void object_made(const char* kind, const void* object) {
  const std::lock_guard lock(objects_mutex);
  objects()[object] = kind;
}

bool object_lives(const char* kind, const void* object) {
  const std::lock_guard lock(objects_mutex);
  const auto found = objects().find(object);
  return found != objects().end() && found->second == kind;
}

bool object_gone(const char* kind, const void* object) {
  const std::lock_guard lock(objects_mutex);
  const auto found = objects().find(object);
  if (found == objects().end() || found->second != kind) return false;
  objects().erase(found);
  return true;
}

std::vector<std::string> library_objects() {
  const std::lock_guard lock(objects_mutex);
  std::vector<std::string> kinds;
  for (const auto& [object, kind] : objects()) kinds.push_back(kind);
  return kinds;
}

}  // namespace host_cuda
