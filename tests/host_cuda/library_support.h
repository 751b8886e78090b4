// What the stand-ins of cuBLASLt and cuDNN share: element types, and which handles and descriptors are alive.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace host_cuda {

enum class Element { kFloat, kHalf, kBfloat16 };

std::size_t bytes_of(Element element);
void to_double(Element element, const void* from, std::size_t count, double* to);
/// Rounds once, to nearest even.
void from_double(Element element, const double* from, std::size_t count, void* to);
/// Rounds to the 10 bits of mantissa that a tensor core reads of a float: to nearest, ties to even.
double round_to_tf32(double value);

inline const void* byte_offset(const void* base, std::size_t bytes) { return static_cast<const char*>(base) + bytes; }
inline void* byte_offset(void* base, std::size_t bytes) { return static_cast<char*>(base) + bytes; }

/// Mixes `bytes` into a checksum, eight at a time.
std::uint64_t checksum(std::uint64_t seed, const void* data, std::size_t bytes);

// Handles and descriptors of the libraries. A pointer is known from object_made() to object_gone().

void object_made(const char* kind, const void* object);
bool object_lives(const char* kind, const void* object);
/// @returns false if there is no such object: destroyed twice, or never made
bool object_gone(const char* kind, const void* object);
/// The kinds of those that are still there: each is a leak once the code under test has ended.
std::vector<std::string> library_objects();

}  // namespace host_cuda
