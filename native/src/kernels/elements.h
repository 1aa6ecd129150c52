// Single elements of any type, for what happens once in a row or a slice: values, and codes. A code
// is an element's bit pattern without its sign, an integer that grows with |x|; NaN and infinities
// have the largest. Not for inner loops, and not for the flavours' files.
#ifndef RING2_KERNELS_ELEMENTS_H
#define RING2_KERNELS_ELEMENTS_H

#include <cmath>
#include <cstdint>
#include <cstring>

#include "kernels.h"

namespace ring2 {

template <typename To, typename From>
inline To bits_as(From from) {
  static_assert(sizeof(To) == sizeof(From), "a reinterpretation keeps the size");
  To to;
  std::memcpy(&to, &from, sizeof to);
  return to;
}

template <typename Integer>
inline Integer read_as(const uint8_t *at) {
  Integer value;
  std::memcpy(&value, at, sizeof value);
  return value;
}

inline uint64_t element_code(ElementType type, const uint8_t *at) {
  if (type == kFloat64) return read_as<uint64_t>(at) & 0x7fffffffffffffffu;
  if (type == kFloat32) return read_as<uint32_t>(at) & 0x7fffffffu;
  return read_as<uint16_t>(at) & 0x7fffu;
}

inline uint64_t infinity_code(ElementType type) {
  const uint64_t codes[kElementTypes] = {0x7f800000u, 0x7c00u, 0x7f80u, 0x7ff0000000000000u};
  return codes[type];
}

// |x| of a finite element's code.
inline double code_value(ElementType type, uint64_t code) {
  if (type == kFloat64) return bits_as<double>(code);
  const uint32_t word = static_cast<uint32_t>(code);
  if (type == kFloat32) return static_cast<double>(bits_as<float>(word));
  if (type == kBfloat16) return static_cast<double>(bits_as<float>(word << 16));
  const int exponent = static_cast<int>(word >> 10);
  const double fraction = static_cast<double>(word & 0x3ffu);
  return exponent == 0 ? std::ldexp(fraction, -24) : std::ldexp(1024 + fraction, exponent - 25);
}

// The code of the largest finite element that is not above `limit` >= 0.
inline uint64_t code_at_most(ElementType type, double limit) {
  const uint64_t largest = infinity_code(type) - 1;
  if (limit >= code_value(type, largest)) return largest;
  if (type == kFloat64) return bits_as<uint64_t>(limit);
  if (type == kFloat16) {
    if (limit < 0x1p-14) return static_cast<uint64_t>(limit * 0x1p24);
    const int exponent = std::ilogb(limit);
    const double fraction = std::ldexp(limit, 10 - exponent) - 1024;
    return static_cast<uint64_t>(exponent + 15) << 10 | static_cast<uint64_t>(fraction);
  }
  // Rounding to float32 may have gone up.
  const float rounded = static_cast<float>(limit);
  uint32_t word = bits_as<uint32_t>(rounded);
  if (static_cast<double>(rounded) > limit) --word;
  return type == kFloat32 ? word : word >> 16;
}

inline double element_value(ElementType type, const uint8_t *at) {
  const double magnitude = code_value(type, element_code(type, at));
  const size_t bytes = type == kFloat64 ? 8 : type == kFloat32 ? 4 : 2;
  return (at[bytes - 1] & 0x80) != 0 ? -magnitude : magnitude;
}

}  // namespace ring2
#endif
