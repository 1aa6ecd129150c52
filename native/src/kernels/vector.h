// Vectors of RING2_VECTOR_BYTES bytes on GCC's vector extensions: types, unaligned loads, selects
// and reductions. Included by one flavour's file only (see flavour.h); everything has internal
// linkage, so that no flavour's code can stand in for another's.
#ifndef RING2_KERNELS_VECTOR_H
#define RING2_KERNELS_VECTOR_H

#include <stddef.h>
#include <stdint.h>

#if defined(__SSE2__)
#include <immintrin.h>
#endif

#define RING2_INLINE static inline __attribute__((always_inline))

namespace ring2 {
namespace {

constexpr size_t kVectorBytes = RING2_VECTOR_BYTES;
constexpr size_t kLanes = kVectorBytes / sizeof(float);
// Every loop step takes two float vectors: one whole vector of 16-bit elements.
constexpr size_t kStep = 2 * kLanes;

typedef float Floats __attribute__((vector_size(RING2_VECTOR_BYTES)));
typedef int32_t Ints __attribute__((vector_size(RING2_VECTOR_BYTES)));
typedef uint32_t Words __attribute__((vector_size(RING2_VECTOR_BYTES)));
typedef uint16_t Shorts __attribute__((vector_size(RING2_VECTOR_BYTES)));
typedef int16_t SignedShorts __attribute__((vector_size(RING2_VECTOR_BYTES)));
typedef uint16_t HalfShorts __attribute__((vector_size(RING2_VECTOR_BYTES / 2)));
typedef uint64_t Longs __attribute__((vector_size(RING2_VECTOR_BYTES)));

struct Pair {
  Floats a, b;
};

template <typename Vector>
RING2_INLINE Vector load(const void *from) {
  Vector vector;
  __builtin_memcpy(&vector, from, sizeof vector);
  return vector;
}

// Processors stop fetching ahead at page boundaries, which costs a tenth to a fifth of the memory's
// rate. A prefetch reads nothing and never faults, also past the end of memory.
constexpr size_t kPrefetchBytes = 2048;

RING2_INLINE void prefetch_lines(const uint8_t *at, size_t bytes) {
  for (size_t line = 0; line < bytes; line += 64) {
    const uintptr_t ahead = reinterpret_cast<uintptr_t>(at) + line + kPrefetchBytes;
    __builtin_prefetch(reinterpret_cast<const void *>(ahead));
  }
}

template <typename To, typename From>
RING2_INLINE To bits(From from) {
  static_assert(sizeof(To) == sizeof(From), "a reinterpretation keeps the size");
  To to;
  __builtin_memcpy(&to, &from, sizeof to);
  return to;
}

RING2_INLINE Floats broadcast(float value) { return Floats{} + value; }

// With x86's max instruction this returns b when either is NaN: callers have ruled NaN out, or
// redo the block once the exponent test has found it.
template <typename Vector>
RING2_INLINE Vector larger(Vector a, Vector b) {
  return a > b ? a : b;
}

template <typename Vector>
RING2_INLINE Vector smaller(Vector a, Vector b) {
  return a < b ? a : b;
}

// Compilers find the max instruction in the selects above for integers, but often emit a compare
// and a blend for floats. The 512-bit ones are written in their zero-masking form because the plain
// one trips a false warning inside the compiler's own header.
#if defined(__AVX512F__) && RING2_VECTOR_BYTES == 64
RING2_INLINE Floats larger(Floats a, Floats b) {
  return bits<Floats>(_mm512_maskz_max_ps(0xffff, bits<__m512>(a), bits<__m512>(b)));
}
RING2_INLINE Floats smaller(Floats a, Floats b) {
  return bits<Floats>(_mm512_maskz_min_ps(0xffff, bits<__m512>(a), bits<__m512>(b)));
}
#elif defined(__AVX__) && RING2_VECTOR_BYTES == 32
RING2_INLINE Floats larger(Floats a, Floats b) {
  return bits<Floats>(_mm256_max_ps(bits<__m256>(a), bits<__m256>(b)));
}
RING2_INLINE Floats smaller(Floats a, Floats b) {
  return bits<Floats>(_mm256_min_ps(bits<__m256>(a), bits<__m256>(b)));
}
#elif defined(__SSE2__) && RING2_VECTOR_BYTES == 16
RING2_INLINE Floats larger(Floats a, Floats b) {
  return bits<Floats>(_mm_max_ps(bits<__m128>(a), bits<__m128>(b)));
}
RING2_INLINE Floats smaller(Floats a, Floats b) {
  return bits<Floats>(_mm_min_ps(bits<__m128>(a), bits<__m128>(b)));
}
#endif

RING2_INLINE float sum_lanes(Floats v) {
  typedef float Quarter __attribute__((vector_size(16)));
  Quarter parts[kVectorBytes / 16];
  __builtin_memcpy(parts, &v, sizeof v);
  Quarter total = parts[0];
  for (size_t part = 1; part < kVectorBytes / 16; ++part) total += parts[part];
  total += __builtin_shufflevector(total, total, 2, 3, 0, 1);
  return total[0] + total[1];
}

RING2_INLINE float largest_lane(Floats v) {
  float result = v[0];
  for (size_t lane = 1; lane < kLanes; ++lane) result = v[lane] > result ? v[lane] : result;
  return result;
}

#if defined(__AVX__) && RING2_VECTOR_BYTES == 32
template <typename Vector>
RING2_INLINE bool any_bit(Vector v) {
  return !_mm256_testz_si256(bits<__m256i>(v), bits<__m256i>(v));
}
#else
template <typename Vector>
RING2_INLINE bool any_bit(Vector v) {
  uint64_t parts[kVectorBytes / 8];
  __builtin_memcpy(parts, &v, sizeof v);
  uint64_t all = 0;
  for (size_t part = 0; part < kVectorBytes / 8; ++part) all |= parts[part];
  return all != 0;
}
#endif

}  // namespace
}  // namespace ring2
#endif
