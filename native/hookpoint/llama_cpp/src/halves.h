// Dot products of float queries with float16 or float32 keys. Eight partial sums, so that the compiler
// vectorizes them in the same order everywhere.
#ifndef RING2_LLAMA_HALVES_H
#define RING2_LLAMA_HALVES_H

#include <cstdint>
#include <cstring>

namespace ring2_llama {

constexpr int64_t kLanes = 8;

// IEEE 754 binary16, subnormals, infinities and NaN included.
inline float half_to_float(uint16_t half) {
  const uint32_t sign = static_cast<uint32_t>(half & 0x8000U) << 16;
  const uint32_t exponent = (half >> 10) & 0x1FU;
  const uint32_t fraction = half & 0x3FFU;
  uint32_t bits = sign;
  float value = 0;
  if (exponent == 0) {
    value = static_cast<float>(fraction) * 0x1p-24F;
    return sign != 0 ? -value : value;
  }
  bits |= exponent == 31 ? 0x7F800000U | fraction << 13 : (exponent + 112) << 23 | fraction << 13;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

inline float dot_floats(const float *one, const float *other, int64_t count) {
  float sums[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    for (int64_t lane = 0; lane < kLanes; ++lane) sums[lane] += one[i + lane] * other[i + lane];
  }
  float sum = 0;
  for (; i < count; ++i) sum += one[i] * other[i];
  for (const float part : sums) sum += part;
  return sum;
}

float dot_halves(const float *one, const uint16_t *other, int64_t count);

}  // namespace ring2_llama

#endif
