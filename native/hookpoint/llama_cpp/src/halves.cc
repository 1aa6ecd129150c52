#include "halves.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace ring2_llama {

namespace {

float dot_portable(const float *one, const uint16_t *other, int64_t count) {
  float sums[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    for (int64_t lane = 0; lane < kLanes; ++lane) {
      sums[lane] += one[i + lane] * half_to_float(other[i + lane]);
    }
  }
  float sum = 0;
  for (; i < count; ++i) sum += one[i] * half_to_float(other[i]);
  for (const float part : sums) sum += part;
  return sum;
}

#if defined(__x86_64__)
// The same sums in the same order: no fused multiply-add.
__attribute__((target("avx,f16c"))) float dot_wide(const float *one, const uint16_t *other,
                                                   int64_t count) {
  __m256 total = _mm256_setzero_ps();
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    const __m256 wide = _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i *>(other + i)));
    total = _mm256_add_ps(total, _mm256_mul_ps(_mm256_loadu_ps(one + i), wide));
  }
  float sums[kLanes];
  _mm256_storeu_ps(sums, total);
  float sum = 0;
  for (; i < count; ++i) sum += one[i] * half_to_float(other[i]);
  for (const float part : sums) sum += part;
  return sum;
}
#endif

}  // namespace

float dot_halves(const float *one, const uint16_t *other, int64_t count) {
#if defined(__x86_64__)
  static const bool wide = __builtin_cpu_supports("avx") && __builtin_cpu_supports("f16c");
  if (wide) return dot_wide(one, other, count);
#endif
  return dot_portable(one, other, count);
}

}  // namespace ring2_llama
