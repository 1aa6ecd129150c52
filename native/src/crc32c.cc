#include "crc32c.h"

#include <array>
#include <cstring>

#include "error.h"
#include "ring2.h"

#if defined(__x86_64__)
#include <cpuid.h>
#include <nmmintrin.h>
#endif

namespace ring2 {
namespace {

constexpr uint32_t kPolynomial = 0x82f63b78u;

// slice[k][b]: the checksum state of byte b followed by k zero bytes.
struct SliceTables {
  std::array<std::array<uint32_t, 256>, 8> slice{};

  constexpr SliceTables() {
    for (uint32_t byte = 0; byte < 256; ++byte) {
      uint32_t state = byte;
      for (int bit = 0; bit < 8; ++bit) state = (state >> 1) ^ ((state & 1) ? kPolynomial : 0);
      slice[0][byte] = state;
    }
    for (uint32_t k = 1; k < 8; ++k) {
      for (uint32_t byte = 0; byte < 256; ++byte) {
        const uint32_t before = slice[k - 1][byte];
        slice[k][byte] = (before >> 8) ^ slice[0][before & 0xff];
      }
    }
  }
};

constexpr SliceTables kTables;

uint64_t load_word(const uint8_t *at) {
  uint64_t word;
  std::memcpy(&word, at, sizeof word);
  return word;
}

uint32_t advance_byte(uint32_t state, uint8_t byte) {
  return (state >> 8) ^ kTables.slice[0][(state ^ byte) & 0xff];
}

#if defined(__x86_64__)

// The instruction takes 3 cycles and a new one can start every cycle: three stretches are done at
// once and joined by appending zeros, which is linear in the state, hence four table look-ups.
struct ZeroTables {
  std::array<std::array<uint32_t, 256>, 4> of_byte{};

  constexpr explicit ZeroTables(uint32_t zero_bytes) {
    std::array<uint32_t, 32> image{};
    for (uint32_t bit = 0; bit < 32; ++bit) {
      uint32_t state = uint32_t{1} << bit;
      for (uint32_t i = 0; i < zero_bytes; ++i) {
        state = (state >> 8) ^ kTables.slice[0][state & 0xff];
      }
      image[bit] = state;
    }
    for (uint32_t k = 0; k < 4; ++k) {
      for (uint32_t byte = 0; byte < 256; ++byte) {
        for (uint32_t bit = 0; bit < 8; ++bit) {
          if (byte >> bit & 1) of_byte[k][byte] ^= image[8 * k + bit];
        }
      }
    }
  }

  uint32_t apply(uint32_t state) const {
    return of_byte[0][state & 0xff] ^ of_byte[1][state >> 8 & 0xff] ^
           of_byte[2][state >> 16 & 0xff] ^ of_byte[3][state >> 24];
  }
};

constexpr uint32_t kLongStretch = 2048;
constexpr uint32_t kShortStretch = 256;
constexpr ZeroTables kLongZeros(kLongStretch);
constexpr ZeroTables kShortZeros(kShortStretch);

constexpr uint32_t kLineBytes = 64;

// Asks for the same place of the next three stretches; reads nothing, never faults.
inline void prefetch(const uint8_t *at, uintptr_t ahead) {
  __builtin_prefetch(reinterpret_cast<const void *>(reinterpret_cast<uintptr_t>(at) + ahead));
}

template <uint32_t kStretch>
__attribute__((target("sse4.2"))) uint32_t three_stretches(const uint8_t *data, uint32_t state,
                                                           const ZeroTables &zeros) {
  uint64_t first = state, second = 0, third = 0;
  for (uint32_t line = 0; line < kStretch; line += kLineBytes) {
    prefetch(data + line, 3 * kStretch);
    prefetch(data + line, 4 * kStretch);
    prefetch(data + line, 5 * kStretch);
    for (uint32_t at = line; at < line + kLineBytes; at += 8) {
      first = _mm_crc32_u64(first, load_word(data + at));
      second = _mm_crc32_u64(second, load_word(data + kStretch + at));
      third = _mm_crc32_u64(third, load_word(data + 2 * kStretch + at));
    }
  }
  const uint32_t joined = zeros.apply(static_cast<uint32_t>(first)) ^ static_cast<uint32_t>(second);
  return zeros.apply(joined) ^ static_cast<uint32_t>(third);
}

__attribute__((target("sse4.2"))) uint32_t crc32c_hardware(const uint8_t *data, uint64_t bytes,
                                                           uint32_t seed) {
  uint32_t state = ~seed;
  for (; bytes >= 3 * kLongStretch; bytes -= 3 * kLongStretch, data += 3 * kLongStretch) {
    state = three_stretches<kLongStretch>(data, state, kLongZeros);
  }
  for (; bytes >= 3 * kShortStretch; bytes -= 3 * kShortStretch, data += 3 * kShortStretch) {
    state = three_stretches<kShortStretch>(data, state, kShortZeros);
  }
  for (; bytes >= 8; bytes -= 8, data += 8) {
    state = static_cast<uint32_t>(_mm_crc32_u64(state, load_word(data)));
  }
  for (; bytes > 0; --bytes, ++data) state = _mm_crc32_u8(state, *data);
  return ~state;
}

bool has_crc_instruction() {
  unsigned a, b, c, d;
  return __get_cpuid(1, &a, &b, &c, &d) != 0 && (c & bit_SSE4_2) != 0;
}

#endif

}  // namespace

uint32_t crc32c_portable(const uint8_t *data, uint64_t bytes, uint32_t seed) {
  uint32_t state = ~seed;
  const auto &slice = kTables.slice;
  for (; bytes >= 8; bytes -= 8, data += 8) {
    const uint64_t word = load_word(data) ^ state;  // little-endian, like the segment
    state = slice[7][word & 0xff] ^ slice[6][word >> 8 & 0xff] ^ slice[5][word >> 16 & 0xff] ^
            slice[4][word >> 24 & 0xff] ^ slice[3][word >> 32 & 0xff] ^
            slice[2][word >> 40 & 0xff] ^ slice[1][word >> 48 & 0xff] ^ slice[0][word >> 56];
  }
  for (; bytes > 0; --bytes, ++data) state = advance_byte(state, *data);
  return ~state;
}

uint32_t crc32c(const uint8_t *data, uint64_t bytes, uint32_t seed) {
#if defined(__x86_64__)
  static const bool hardware = has_crc_instruction();
  if (hardware) return crc32c_hardware(data, bytes, seed);
#endif
  return crc32c_portable(data, bytes, seed);
}

}  // namespace ring2

extern "C" RING2_API uint32_t ring2_crc32c(const void *data, uint64_t bytes, uint32_t seed) {
  return ring2::crc32c(static_cast<const uint8_t *>(data), bytes, seed);
}

extern "C" RING2_API int ring2_crc32c_parts(const void *data, uint64_t data_bytes,
                                            const uint64_t *parts, uint64_t count, uint32_t *sums) {
  for (uint64_t index = 0; index < count; ++index) {
    const uint64_t offset = parts[2 * index];
    const uint64_t bytes = parts[2 * index + 1];
    if (offset > data_bytes || bytes > data_bytes - offset) {
      return ring2_set_error(RING2_E_ARGUMENT, "part %llu is not within %llu bytes",
                             static_cast<unsigned long long>(index),
                             static_cast<unsigned long long>(data_bytes));
    }
    sums[index] = ring2::crc32c(static_cast<const uint8_t *>(data) + offset, bytes, 0);
  }
  return RING2_OK;
}
