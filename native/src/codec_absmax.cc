// The error-bounded codec's kernels: elements to whole numbers of a step that each block has for
// itself, and back. Format, bound and proof: docs/codecs.md. Not here: compression, the container.
//
// Every code is verified while it is made: what the decoder will say, rounded to the element type,
// is compared with the element, and an element that would miss the bound is kept as it is. So the
// bound holds for every input, and the arithmetic below need only be good, not proven.
//
// Plain loops over a block, which compilers turn into vectors of whatever the machine has. The build
// turns fused multiply-add off for this file, so that every machine decodes the same bits.

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "codec_bits.h"
#include "crc32c.h"
#include "error.h"
#include "ring2_codec.h"

namespace ring2 {
namespace {

constexpr uint32_t kBlockMax = RING2_ABSMAX_BLOCK_MAX;
// The bound that codes are held to; below 1e-3, so that the comparison's own rounding cannot matter.
constexpr float kBound = 0.9999e-3f;
// Adding and subtracting it rounds a small float to the nearest whole number.
constexpr float kRounder = 12582912.0f;  // 1.5 * 2^23

template <typename To, typename From>
inline To as(From from) {
  static_assert(sizeof(To) == sizeof(From), "a reinterpretation keeps the size");
  To to;
  std::memcpy(&to, &from, sizeof to);
  return to;
}

// Elements whose magnitude, as bits, is kApartFrom or more are kept as they are: what is not finite,
// and what fills masked scores, which would leave every other element of its block at zero.
struct Float32 {
  typedef uint32_t Bits;
  static constexpr uint32_t kApartFrom = 0x71800000u;  // 2^100
  static constexpr unsigned kLowBits = 2;
  static inline float value(Bits bits) { return as<float>(bits); }
  static inline Bits round(float value) { return as<uint32_t>(value); }
};

struct Bfloat16 {
  typedef uint16_t Bits;
  static constexpr uint32_t kApartFrom = 0x71800000u;
  static constexpr unsigned kLowBits = 3;
  static inline float value(Bits bits) { return as<float>(static_cast<uint32_t>(bits) << 16); }
  static inline Bits round(float value) {
    const uint32_t bits = as<uint32_t>(value);
    return static_cast<Bits>((bits + 0x7fffu + (bits >> 16 & 1)) >> 16);
  }
};

struct Float16 {
  typedef uint16_t Bits;
  static constexpr uint32_t kApartFrom = 0x47000000u;  // 2^15
  static constexpr unsigned kLowBits = 3;
  static inline float value(Bits bits) {
    const uint32_t magnitude = bits & 0x7fffu;
    const uint32_t sign = (bits & 0x8000u) << 16;
    // The product moves the exponent's bias from 15 to 127. Infinities and NaN become 2^16 and more.
    const float finite = as<float>(magnitude << 13) * as<float>(0x77800000u);
    return as<float>(as<uint32_t>(finite) | sign);
  }
  // To the nearest even, of |value| < 65520.
  static inline Bits round(float value) {
    const uint32_t bits = as<uint32_t>(value) & 0x7fffffffu;
    const uint32_t sign = as<uint32_t>(value) >> 16 & 0x8000u;
    const uint32_t normal = (bits + 0xfffu + (bits >> 13 & 1) - 0x38000000u) >> 13;
    // Adding 0.5 leaves a unit in the last place of 2^-24, which is that of subnormal halves.
    const uint32_t subnormal = as<uint32_t>(as<float>(bits) + 0.5f) - 0x3f000000u;
    return static_cast<Bits>(sign | (bits >= 0x38800000u ? normal : subnormal));
  }
};

template <typename Type>
constexpr int kLevels = (1 << (7 + Type::kLowBits)) - 1;  // 511 or 1023
template <typename Type>
constexpr int kBias = kLevels<Type> + 1;  // code 0 is left for elements kept as they are

// The smallest bfloat16 that is not below.
inline uint16_t scale_of(uint32_t magnitude) {
  return static_cast<uint16_t>((magnitude + 0xffffu) >> 16);
}

inline float scale_value(uint16_t scale) { return as<float>(static_cast<uint32_t>(scale) << 16); }

template <typename Type>
struct Block {
  typename Type::Bits bits[kBlockMax];
  float values[kBlockMax];
  float decoded[kBlockMax];
  uint16_t codes[kBlockMax];
  uint8_t high[kBlockMax];
  uint8_t low[kBlockMax];
};

// The largest magnitude, as bits, of the elements that are not kept apart.
template <typename Type>
uint32_t largest(const Block<Type> &block, uint32_t count) {
  uint32_t most = 0;
  for (uint32_t i = 0; i < count; ++i) {
    const uint32_t magnitude = as<uint32_t>(block.values[i]) & 0x7fffffffu;
    most = std::max(most, magnitude < Type::kApartFrom ? magnitude : 0u);
  }
  return most;
}

// Codes of a block, and its bits as a decoder will give them. Returns how many are kept apart.
template <typename Type>
uint32_t quantise_block(Block<Type> &block, uint32_t count, uint16_t *scale) {
  typedef typename Type::Bits Bits;
  for (uint32_t i = 0; i < count; ++i) block.values[i] = Type::value(block.bits[i]);
  const uint32_t most = largest(block, count);
  *scale = scale_of(most);
  const float step = scale_value(*scale) / static_cast<float>(kLevels<Type>);
  // A step that is subnormal has lost its precision: such a block is kept as it is, but for zeros.
  const bool usable = step >= 0x1p-126f;
  const float inverse = usable ? 1.0f / step : 0.0f;
  const float bound = usable ? as<float>(most) * kBound : 0.0f;
  uint32_t apart = 0;
  for (uint32_t i = 0; i < count; ++i) {
    const float value = block.values[i];
    const bool fits = (as<uint32_t>(value) & 0x7fffffffu) < Type::kApartFrom;
    const float scaled = fits ? value * inverse : 0.0f;
    const int32_t number = as<int32_t>(scaled + kRounder) - as<int32_t>(kRounder);
    const float decoded = Type::value(Type::round(static_cast<float>(number) * step));
    const float error = as<float>(as<uint32_t>(value - decoded) & 0x7fffffffu);
    const bool kept = !fits || !(error <= bound);
    block.decoded[i] = decoded;
    block.codes[i] = static_cast<uint16_t>(kept ? 0 : number + kBias<Type>);
    apart += kept ? 1 : 0;
  }
  for (uint32_t i = 0; i < count; ++i) {
    block.high[i] = static_cast<uint8_t>(block.codes[i] >> Type::kLowBits);
    block.low[i] = static_cast<uint8_t>(block.codes[i] & ((1u << Type::kLowBits) - 1));
    const Bits rounded = Type::round(block.decoded[i]);
    block.bits[i] = block.codes[i] == 0 ? block.bits[i] : rounded;
  }
  return apart;
}

struct Sizes {
  uint64_t count;
  uint64_t blocks;
  uint64_t low_bytes;
};

struct Shape {
  uint64_t bytes;
  uint64_t row_elements;
  uint32_t block_elements;
};

template <typename Type>
Sizes sizes_of(const Shape &shape) {
  const uint64_t count = shape.bytes / sizeof(typename Type::Bits);
  const uint64_t per_row = (shape.row_elements + shape.block_elements - 1) / shape.block_elements;
  return {count, count / shape.row_elements * per_row, packed_bytes(count, Type::kLowBits)};
}

template <typename Type>
int quantise(const uint8_t *elements, const Shape &shape, uint8_t *out, uint64_t *result) {
  typedef typename Type::Bits Bits;
  const Sizes sizes = sizes_of<Type>(shape);
  uint8_t *scales = out;
  uint8_t *high = scales + 2 * sizes.blocks;
  BitPacker low(high + sizes.count, Type::kLowBits);
  uint8_t *apart = high + sizes.count + sizes.low_bytes;
  uint64_t kept = 0;
  uint32_t crc = 0;
  Block<Type> block;
  for (uint64_t at = 0, in_row = 0; at < sizes.count;) {
    const uint32_t count = static_cast<uint32_t>(
        std::min<uint64_t>(shape.block_elements, shape.row_elements - in_row));
    const uint8_t *const from = elements + at * sizeof(Bits);
    std::memcpy(block.bits, from, count * sizeof(Bits));
    uint16_t scale;
    const uint32_t here = quantise_block(block, count, &scale);
    std::memcpy(scales, &scale, 2);
    std::memcpy(high, block.high, count);
    low.put(block.low, count);
    for (uint32_t i = 0; here > 0 && i < count; ++i) {
      if (block.codes[i] != 0) continue;
      std::memcpy(apart, from + i * sizeof(Bits), sizeof(Bits));
      apart += sizeof(Bits);
    }
    crc = crc32c(reinterpret_cast<const uint8_t *>(block.bits), count * sizeof(Bits), crc);
    kept += here;
    scales += 2;
    high += count;
    at += count;
    in_row = in_row + count == shape.row_elements ? 0 : in_row + count;
  }
  low.finish();
  result[0] = kept;
  result[1] = crc;
  return RING2_OK;
}

template <typename Type>
int dequantise(const uint8_t *planes, uint64_t kept, const Shape &shape, uint8_t *elements) {
  typedef typename Type::Bits Bits;
  const Sizes sizes = sizes_of<Type>(shape);
  const uint8_t *scales = planes;
  const uint8_t *high = scales + 2 * sizes.blocks;
  BitUnpacker low(high + sizes.count, sizes.low_bytes, Type::kLowBits);
  const uint8_t *apart = high + sizes.count + sizes.low_bytes;
  uint64_t left = kept;
  Block<Type> block;
  for (uint64_t at = 0, in_row = 0; at < sizes.count;) {
    const uint32_t count = static_cast<uint32_t>(
        std::min<uint64_t>(shape.block_elements, shape.row_elements - in_row));
    uint16_t scale;
    std::memcpy(&scale, scales, 2);
    if (scale >= 0x7f80u) {
      return ring2_set_error(RING2_E_ARGUMENT, "expected finite scales, got the bits %#x", scale);
    }
    low.take(block.low, count);
    const float step = scale_value(scale) / static_cast<float>(kLevels<Type>);
    uint32_t here = 0;
    for (uint32_t i = 0; i < count; ++i) {
      const int32_t code = high[i] << Type::kLowBits | block.low[i];
      block.codes[i] = static_cast<uint16_t>(code);
      here += code == 0 ? 1 : 0;
      block.bits[i] = Type::round(static_cast<float>(code - kBias<Type>) * step);
    }
    if (here > left) {
      return ring2_set_error(RING2_E_ARGUMENT, "expected %llu elements kept as they are, got more",
                             static_cast<unsigned long long>(kept));
    }
    left -= here;
    for (uint32_t i = 0; here > 0 && i < count; ++i) {
      if (block.codes[i] != 0) continue;
      std::memcpy(&block.bits[i], apart, sizeof(Bits));
      apart += sizeof(Bits);
    }
    std::memcpy(elements + at * sizeof(Bits), block.bits, count * sizeof(Bits));
    scales += 2;
    high += count;
    at += count;
    in_row = in_row + count == shape.row_elements ? 0 : in_row + count;
  }
  if (left == 0) return RING2_OK;
  return ring2_set_error(RING2_E_ARGUMENT, "expected %llu elements kept as they are, got %llu",
                         static_cast<unsigned long long>(kept),
                         static_cast<unsigned long long>(kept - left));
}

bool is_float(uint32_t dtype) {
  return dtype == RING2_DTYPE_FLOAT32 || dtype == RING2_DTYPE_FLOAT16 ||
         dtype == RING2_DTYPE_BFLOAT16;
}

// Sizes are bounded before anything is multiplied.
int check(uint32_t dtype, const Shape &shape) {
  if (!is_float(dtype)) {
    return ring2_set_error(RING2_E_ARGUMENT, "expected float32, float16 or bfloat16, got dtype %u",
                           dtype);
  }
  const uint64_t count = shape.bytes / ring2_dtype_bytes(dtype);
  const bool whole = shape.bytes > 0 && shape.bytes <= RING2_CODEC_BYTES_MAX &&
                     shape.bytes % ring2_dtype_bytes(dtype) == 0 && shape.row_elements > 0 &&
                     count % shape.row_elements == 0;
  if (!whole) {
    return ring2_set_error(RING2_E_ARGUMENT,
                           "expected whole rows in at most %u bytes, got rows of %llu in %llu bytes",
                           RING2_CODEC_BYTES_MAX,
                           static_cast<unsigned long long>(shape.row_elements),
                           static_cast<unsigned long long>(shape.bytes));
  }
  if (shape.block_elements == 0 || shape.block_elements > kBlockMax) {
    return ring2_set_error(RING2_E_ARGUMENT, "expected blocks of 1 to %u elements, got %u",
                           kBlockMax, shape.block_elements);
  }
  return RING2_OK;
}

uint64_t fixed_bytes(uint32_t dtype, const Shape &shape) {
  const Sizes sizes =
      dtype == RING2_DTYPE_FLOAT32 ? sizes_of<Float32>(shape) : sizes_of<Bfloat16>(shape);
  return 2 * sizes.blocks + sizes.count + sizes.low_bytes;
}

int check_buffer(const char *what, uint64_t expected, uint64_t actual) {
  if (actual == expected) return RING2_OK;
  return ring2_set_error(RING2_E_ARGUMENT, "expected %llu bytes for %s, got %llu",
                         static_cast<unsigned long long>(expected), what,
                         static_cast<unsigned long long>(actual));
}

}  // namespace
}  // namespace ring2

extern "C" {

int ring2_quantise(const void *elements, uint64_t bytes, uint32_t dtype, uint64_t row_elements,
                   uint32_t block_elements, void *planes, uint64_t planes_bytes,
                   uint64_t *result) {
  const ring2::Shape shape = {bytes, row_elements, block_elements};
  int checked = ring2::check(dtype, shape);
  if (checked != RING2_OK) return checked;
  const uint64_t needed = ring2::fixed_bytes(dtype, shape) + bytes;
  checked = ring2::check_buffer("the planes and every element", needed, planes_bytes);
  if (checked != RING2_OK) return checked;
  const uint8_t *const from = static_cast<const uint8_t *>(elements);
  uint8_t *const to = static_cast<uint8_t *>(planes);
  if (dtype == RING2_DTYPE_FLOAT32) return ring2::quantise<ring2::Float32>(from, shape, to, result);
  if (dtype == RING2_DTYPE_FLOAT16) return ring2::quantise<ring2::Float16>(from, shape, to, result);
  return ring2::quantise<ring2::Bfloat16>(from, shape, to, result);
}

int ring2_dequantise(const void *planes, uint64_t planes_bytes, uint64_t kept, uint32_t dtype,
                     uint64_t row_elements, uint32_t block_elements, void *elements,
                     uint64_t bytes) {
  const ring2::Shape shape = {bytes, row_elements, block_elements};
  int checked = ring2::check(dtype, shape);
  if (checked != RING2_OK) return checked;
  if (kept > bytes / ring2_dtype_bytes(dtype)) {
    return ring2_set_error(RING2_E_ARGUMENT, "expected at most every element kept as it is");
  }
  const uint64_t expected = ring2::fixed_bytes(dtype, shape) + kept * ring2_dtype_bytes(dtype);
  checked = ring2::check_buffer("the planes", expected, planes_bytes);
  if (checked != RING2_OK) return checked;
  const uint8_t *const from = static_cast<const uint8_t *>(planes);
  uint8_t *const to = static_cast<uint8_t *>(elements);
  if (dtype == RING2_DTYPE_FLOAT32) {
    return ring2::dequantise<ring2::Float32>(from, kept, shape, to);
  }
  if (dtype == RING2_DTYPE_FLOAT16) {
    return ring2::dequantise<ring2::Float16>(from, kept, shape, to);
  }
  return ring2::dequantise<ring2::Bfloat16>(from, kept, shape, to);
}

}  // extern "C"
