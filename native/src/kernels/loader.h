// How elements of each type become float vectors, and which of their bit patterns are not finite.
//
// Finiteness is tested on integer bit patterns (the exponent field), never by comparing floats:
// x86's max swallows a NaN, and compilers may fold isnan away.
#ifndef RING2_KERNELS_LOADER_H
#define RING2_KERNELS_LOADER_H

#include "vector.h"

namespace ring2 {
namespace {

RING2_INLINE float half_to_float(uint16_t half) {
  const uint32_t magnitude = half & 0x7fffu;
  const uint32_t sign = (half & 0x8000u) << 16;
  if (magnitude >= 0x7c00u) return bits<float>(sign | 0x7f800000u | ((magnitude & 0x3ffu) << 13));
  // The multiplication moves the exponent's bias from 15 to 127, exactly, subnormals included.
  const float value = bits<float>(magnitude << 13) * bits<float>(uint32_t{0x77800000});
  return bits<float>(bits<uint32_t>(value) | sign);
}

#if defined(__AVX512F__) && RING2_VECTOR_BYTES == 64
RING2_INLINE Floats halves_to_floats(const uint8_t *from) {
  // The zero-masking form: the plain one trips a false warning inside the compiler's own header.
  return bits<Floats>(_mm512_maskz_cvtph_ps(0xffff, load<__m256i>(from)));
}
#elif defined(__F16C__)
RING2_INLINE Floats halves_to_floats(const uint8_t *from) {
  __m256 parts[kVectorBytes / 32];
  for (size_t part = 0; part < kVectorBytes / 32; ++part) {
    parts[part] = _mm256_cvtph_ps(load<__m128i>(from + 16 * part));
  }
  return load<Floats>(parts);
}
#else
RING2_INLINE Floats halves_to_floats(const uint8_t *from) {
  const Words half = __builtin_convertvector(load<HalfShorts>(from), Words);
  const Words magnitude = half & 0x7fffu;
  const Floats finite = bits<Floats>(magnitude << 13) * bits<float>(uint32_t{0x77800000});
  const Words special = (magnitude << 13) | 0x7f800000u;
  const Words value = magnitude >= 0x7c00u ? special : bits<Words>(finite);
  return bits<Floats>(value | ((half & 0x8000u) << 16));
}
#endif

RING2_INLINE uint64_t sum_words(Words v) {
  uint32_t words[kLanes];
  __builtin_memcpy(words, &v, sizeof v);
  uint64_t sum = 0;
  for (size_t lane = 0; lane < kLanes; ++lane) sum += words[lane];
  return sum;
}

// Each loader: Magnitudes is a vector of the largest |x| seen as an integer; Codes of the largest
// raw code, where NaN, every negative number and -0 are above the infinity. any_from_infinity: a
// code is the infinity or above when adding what lifts the infinity to the top bit sets that bit,
// or when it has it already. ordered_pair holds the elements in their order.
struct Float32 {
  typedef Ints Magnitudes;
  typedef Words Codes;
  static constexpr size_t kBytes = 4;
  static constexpr uint32_t kInfinity = 0x7f800000u;
  RING2_INLINE uint32_t code(const uint8_t *at) { return load<uint32_t>(at); }
  RING2_INLINE float value(const uint8_t *at) { return load<float>(at); }
  RING2_INLINE float from_code(uint32_t code) { return bits<float>(code); }
  RING2_INLINE Pair pair(const uint8_t *at) {
    return {load<Floats>(at), load<Floats>(at + kVectorBytes)};
  }
  RING2_INLINE Pair ordered_pair(const uint8_t *at) { return pair(at); }
  RING2_INLINE void magnitudes(Magnitudes *largest, const uint8_t *at) {
    const Ints mask = Ints{} + 0x7fffffff;
    const Ints a = load<Ints>(at) & mask;
    const Ints b = load<Ints>(at + kVectorBytes) & mask;
    *largest = larger(*largest, larger(a, b));
  }
  RING2_INLINE Magnitudes magnitude(const uint8_t *at) { return load<Ints>(at) & 0x7fffffff; }
  RING2_INLINE Magnitudes broadcast_code(uint64_t code) {
    return Ints{} + static_cast<int32_t>(code);
  }
  RING2_INLINE uint64_t sum_counts(Magnitudes counts) { return sum_words(bits<Words>(counts)); }
  RING2_INLINE void codes(Codes *largest, const uint8_t *at) {
    *largest = larger(*largest, larger(load<Words>(at), load<Words>(at + kVectorBytes)));
  }
  RING2_INLINE bool any(const uint8_t *at) {
    return any_bit(load<Words>(at) | load<Words>(at + kVectorBytes));
  }
  RING2_INLINE bool any_from_infinity(Codes codes) {
    return any_bit(((codes + (0x80000000u - kInfinity)) | codes) & 0x80000000u);
  }
};

struct Bits16 {
  typedef SignedShorts Magnitudes;
  typedef Shorts Codes;
  static constexpr size_t kBytes = 2;
  RING2_INLINE uint32_t code(const uint8_t *at) { return load<uint16_t>(at); }
  RING2_INLINE void magnitudes(Magnitudes *largest, const uint8_t *at) {
    *largest = larger(*largest, load<SignedShorts>(at) & static_cast<int16_t>(0x7fff));
  }
  RING2_INLINE Magnitudes magnitude(const uint8_t *at) {
    return load<SignedShorts>(at) & static_cast<int16_t>(0x7fff);
  }
  RING2_INLINE Magnitudes broadcast_code(uint64_t code) {
    return SignedShorts{} + static_cast<int16_t>(code);
  }
  // Counts that are not negative: two of them side by side make one word.
  RING2_INLINE uint64_t sum_counts(Magnitudes counts) {
    const Words pairs = bits<Words>(counts);
    return sum_words((pairs & 0xffffu) + (pairs >> 16));
  }
  RING2_INLINE void codes(Codes *largest, const uint8_t *at) {
    *largest = larger(*largest, load<Shorts>(at));
  }
  RING2_INLINE bool any(const uint8_t *at) { return any_bit(load<Shorts>(at)); }
  template <uint32_t kFrom>
  RING2_INLINE bool any_code_from(Codes codes) {
    const uint16_t to_top = static_cast<uint16_t>(0x8000u - kFrom);
    return any_bit(((codes + to_top) | codes) & static_cast<uint16_t>(0x8000u));
  }
};

struct Float16 : Bits16 {
  static constexpr uint32_t kInfinity = 0x7c00u;
  RING2_INLINE bool any_from_infinity(Codes codes) { return any_code_from<kInfinity>(codes); }
  RING2_INLINE float value(const uint8_t *at) { return half_to_float(load<uint16_t>(at)); }
  RING2_INLINE float from_code(uint32_t code) {
    return half_to_float(static_cast<uint16_t>(code));
  }
  RING2_INLINE Pair pair(const uint8_t *at) {
    return {halves_to_floats(at), halves_to_floats(at + kVectorBytes / 2)};
  }
  RING2_INLINE Pair ordered_pair(const uint8_t *at) { return pair(at); }
};

// A pair holds the even elements, then the odd ones: no shuffle is needed, and no sum minds.
struct Bfloat16 : Bits16 {
  static constexpr uint32_t kInfinity = 0x7f80u;
  RING2_INLINE bool any_from_infinity(Codes codes) { return any_code_from<kInfinity>(codes); }
  RING2_INLINE float value(const uint8_t *at) {
    return bits<float>(uint32_t{load<uint16_t>(at)} << 16);
  }
  RING2_INLINE float from_code(uint32_t code) { return bits<float>(code << 16); }
  RING2_INLINE Pair pair(const uint8_t *at) {
    const Words words = load<Words>(at);
    return {bits<Floats>(words << 16), bits<Floats>(words & 0xffff0000u)};
  }
  RING2_INLINE Pair ordered_pair(const uint8_t *at) {
    const Words a = __builtin_convertvector(load<HalfShorts>(at), Words);
    const Words b = __builtin_convertvector(load<HalfShorts>(at + kVectorBytes / 2), Words);
    return {bits<Floats>(a << 16), bits<Floats>(b << 16)};
  }
};

template <typename Vector>
RING2_INLINE uint32_t largest_code(Vector v) {
  uint32_t result = 0;
  for (size_t lane = 0; lane < sizeof v / sizeof v[0]; ++lane) {
    const uint32_t code = static_cast<uint32_t>(v[lane]);
    result = code > result ? code : result;
  }
  return result;
}

template <typename T>
constexpr size_t kStepBytes = kStep * T::kBytes;

// Bytes of the largest step in zeros, then in ones, then in zeros.
struct TailMask {
  uint8_t bytes[6 * kVectorBytes];
  constexpr TailMask() : bytes{} {
    for (size_t i = 2 * kVectorBytes; i < 4 * kVectorBytes; ++i) bytes[i] = 0xff;
  }
};
alignas(64) constexpr TailMask kTailMask;

// The last `count` < kStep elements before `end`, zeros around them, in `step` (kStepBytes long).
// Nothing outside begin..end is read: with a whole step behind `end` it is loaded and masked.
template <typename T>
RING2_INLINE void load_tail(uint8_t *step, const uint8_t *begin, const uint8_t *end, size_t count) {
  const size_t bytes = count * T::kBytes;
  if (static_cast<size_t>(end - begin) >= kStepBytes<T>) {
    const uint8_t *mask = kTailMask.bytes + 2 * kVectorBytes - kStepBytes<T> + bytes;
    for (size_t at = 0; at < kStepBytes<T>; at += kVectorBytes) {
      const Words kept = load<Words>(end - kStepBytes<T> + at) & load<Words>(mask + at);
      __builtin_memcpy(step + at, &kept, kVectorBytes);
    }
    return;
  }
  for (size_t at = 0; at < kStepBytes<T>; at += kVectorBytes) {
    const Words zero = {};
    __builtin_memcpy(step + at, &zero, kVectorBytes);
  }
  __builtin_memcpy(step, end - bytes, bytes);
}

// The first `count` < kStep elements from `at`, zeros behind them, in `step`. The whole step at `at`
// is read.
template <typename T>
RING2_INLINE void load_head(uint8_t *step, const uint8_t *at, size_t count) {
  const uint8_t *mask = kTailMask.bytes + 4 * kVectorBytes - count * T::kBytes;
  for (size_t part = 0; part < kStepBytes<T>; part += kVectorBytes) {
    const Words kept = load<Words>(at + part) & load<Words>(mask + part);
    __builtin_memcpy(step + part, &kept, kVectorBytes);
  }
}

}  // namespace
}  // namespace ring2
#endif
