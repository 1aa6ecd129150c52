// The codecs' kernels: what goes in comes back, within the bound for every element, for every size,
// dtype and kind of value; and hostile planes cost an error, never more.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "codec_bits.h"
#include "crc32c.h"
#include "kernels/elements.h"
#include "ring2_codec.h"

namespace {

typedef std::vector<uint8_t> Bytes;

struct Case {
  uint32_t dtype;
  ring2::ElementType type;
  uint32_t bytes;
};

constexpr Case kCases[] = {{RING2_DTYPE_FLOAT32, ring2::kFloat32, 4},
                           {RING2_DTYPE_FLOAT16, ring2::kFloat16, 2},
                           {RING2_DTYPE_BFLOAT16, ring2::kBfloat16, 2}};
constexpr uint32_t kBlock = 64;

uint64_t low_bits(const Case &one) { return one.dtype == RING2_DTYPE_FLOAT32 ? 2 : 3; }

uint64_t fixed_bytes(const Case &one, uint64_t count, uint64_t row, uint32_t block = kBlock) {
  return 2 * (count / row) * ((row + block - 1) / block) + count + (count * low_bits(one) + 7) / 8;
}

struct Encoded {
  Bytes planes;
  uint64_t kept;
  uint32_t crc;
};

Encoded encode(const Case &one, const Bytes &elements, uint64_t row, uint32_t block = kBlock) {
  const uint64_t count = elements.size() / one.bytes;
  Encoded encoded;
  encoded.planes.resize(fixed_bytes(one, count, row, block) + elements.size());
  uint64_t result[2];
  EXPECT_EQ(ring2_quantise(elements.data(), elements.size(), one.dtype, row, block,
                           encoded.planes.data(), encoded.planes.size(), result),
            RING2_OK)
      << ring2_last_error();
  encoded.kept = result[0];
  encoded.crc = static_cast<uint32_t>(result[1]);
  encoded.planes.resize(fixed_bytes(one, count, row, block) + encoded.kept * one.bytes);
  return encoded;
}

Bytes decode(const Case &one, const Encoded &encoded, size_t bytes, uint64_t row,
             uint32_t block = kBlock) {
  Bytes decoded(bytes);
  EXPECT_EQ(ring2_dequantise(encoded.planes.data(), encoded.planes.size(), encoded.kept, one.dtype,
                             row, block, decoded.data(), bytes),
            RING2_OK)
      << ring2_last_error();
  return decoded;
}

bool finite(const Case &one, const uint8_t *at) {
  return ring2::element_code(one.type, at) < ring2::infinity_code(one.type);
}

// Every element of every block against 1e-3 of the block's largest finite magnitude, in double.
void expect_within_bound(const Case &one, const Bytes &given, const Bytes &got, uint64_t row,
                         uint32_t block = kBlock) {
  const uint64_t count = given.size() / one.bytes;
  for (uint64_t at = 0; at < count;) {
    const uint64_t end = std::min(at + std::min<uint64_t>(block, row - at % row), count);
    double most = 0;
    for (uint64_t i = at; i < end; ++i) {
      const uint8_t *const element = given.data() + i * one.bytes;
      if (finite(one, element)) {
        most = std::max(most, std::fabs(ring2::element_value(one.type, element)));
      }
    }
    for (; at < end; ++at) {
      const uint8_t *const before = given.data() + at * one.bytes;
      const uint8_t *const after = got.data() + at * one.bytes;
      if (!finite(one, before)) {
        ASSERT_EQ(std::memcmp(before, after, one.bytes), 0) << "element " << at;
        continue;
      }
      ASSERT_TRUE(finite(one, after)) << "element " << at;
      const double error =
          std::fabs(ring2::element_value(one.type, before) - ring2::element_value(one.type, after));
      ASSERT_LE(error, 1e-3 * most) << "element " << at << " of dtype " << one.dtype;
    }
  }
}

// Bits of any pattern: every exponent, subnormals, both zeros, infinities and NaN.
Bytes any_bits(std::mt19937 &generator, const Case &one, uint64_t count) {
  Bytes bytes(count * one.bytes);
  for (uint8_t &byte : bytes) byte = static_cast<uint8_t>(generator());
  return bytes;
}

Bytes rounded(const Case &one, const std::vector<float> &values) {
  Bytes bytes(values.size() * one.bytes);
  for (size_t i = 0; i < values.size(); ++i) {
    uint32_t word;
    std::memcpy(&word, &values[i], 4);
    if (one.type == ring2::kBfloat16) word >>= 16;
    if (one.type == ring2::kFloat16) {
      const double magnitude = std::fabs(static_cast<double>(values[i]));
      word = static_cast<uint32_t>(ring2::code_at_most(one.type, magnitude)) |
             (std::signbit(values[i]) ? 0x8000u : 0);
    }
    std::memcpy(bytes.data() + i * one.bytes, &word, one.bytes);
  }
  return bytes;
}

void expect_round_trip(const Case &one, const Bytes &given, uint64_t row, uint32_t block = kBlock) {
  const Encoded encoded = encode(one, given, row, block);
  const Bytes got = decode(one, encoded, given.size(), row, block);
  expect_within_bound(one, given, got, row, block);
  EXPECT_EQ(encoded.crc, ring2::crc32c(got.data(), got.size(), 0));
}

TEST(Absmax, EveryBitPatternStaysWithinTheBound) {
  std::mt19937 generator(11);
  for (const Case &one : kCases) {
    for (int turn = 0; turn < 40; ++turn) {
      expect_round_trip(one, any_bits(generator, one, 640), 640);
    }
  }
}

TEST(Absmax, EverySizeOfRowAndBlockComesBack) {
  std::mt19937 generator(12);
  std::normal_distribution<float> normal(0, 3);
  for (const Case &one : kCases) {
    for (uint64_t row = 1; row <= 200; row += row < 70 ? 1 : 13) {
      std::vector<float> values(row * 3);
      for (float &value : values) value = normal(generator);
      for (const uint32_t block : {1u, 7u, 64u, 256u}) {
        expect_round_trip(one, rounded(one, values), row, block);
      }
    }
  }
}

TEST(Absmax, EveryMantissaOfTheLargestElementStaysWithinTheBound) {
  for (const Case &one : kCases) {
    std::mt19937 generator(13);
    std::uniform_real_distribution<float> uniform(-1, 1);
    for (int mantissa = 0; mantissa < 256; ++mantissa) {
      const float most = 1.0f + static_cast<float>(mantissa) / 256;
      std::vector<float> values(64);
      for (float &value : values) value = most * uniform(generator);
      values[17] = most;
      expect_round_trip(one, rounded(one, values), 64);
    }
  }
}

TEST(Absmax, EveryMagnitudeFromSubnormalToMaskStaysWithinTheBound) {
  std::mt19937 generator(14);
  std::normal_distribution<float> normal(0, 1);
  for (const Case &one : kCases) {
    for (int exponent = -149; exponent < 128; ++exponent) {
      std::vector<float> values(64);
      for (float &value : values) {
        value = std::ldexp(normal(generator), exponent);
        if (!std::isfinite(value)) value = std::numeric_limits<float>::max();
      }
      expect_round_trip(one, rounded(one, values), 64);
    }
  }
}

TEST(Absmax, OrdinaryValuesNeedNoElementKept) {
  std::mt19937 generator(15);
  std::normal_distribution<float> normal(0, 1);
  std::vector<float> values(64 * 500);
  for (float &value : values) value = normal(generator);
  for (const Case &one : kCases) {
    EXPECT_EQ(encode(one, rounded(one, values), 64).kept, 0u) << "dtype " << one.dtype;
  }
}

TEST(Absmax, AMaskDoesNotTakeItsBlocksPrecision) {
  const Case &one = kCases[0];
  std::vector<float> values(64, std::numeric_limits<float>::lowest());
  for (int i = 0; i < 10; ++i) values[i] = 0.125f * static_cast<float>(i);
  values[11] = -std::numeric_limits<float>::infinity();
  const Bytes given = rounded(one, values);
  const Encoded encoded = encode(one, given, 64);
  const Bytes got = decode(one, encoded, given.size(), 64);
  EXPECT_EQ(encoded.kept, 54u);
  for (int i = 0; i < 10; ++i) {
    float value;
    std::memcpy(&value, got.data() + 4 * i, 4);
    EXPECT_NEAR(value, 0.125f * static_cast<float>(i), 1e-3 * 1.125);
  }
  EXPECT_EQ(std::memcmp(given.data() + 40, got.data() + 40, given.size() - 40), 0);
}

TEST(Absmax, ZeroBlocksBecomeZero) {
  const Case &one = kCases[0];
  std::vector<float> values(100, 0.0f);
  values[3] = -0.0f;
  const Bytes given = rounded(one, values);
  const Encoded encoded = encode(one, given, 100);
  EXPECT_EQ(encoded.kept, 0u);
  EXPECT_EQ(decode(one, encoded, given.size(), 100), Bytes(400, 0));
}

TEST(Absmax, HostilePlanesAreAnErrorOrATensorButNeverAStrayRead) {
  std::mt19937 generator(16);
  for (const Case &one : kCases) {
    const Bytes given = any_bits(generator, one, 300);
    const Encoded encoded = encode(one, given, 100);
    Bytes got(given.size());
    for (int turn = 0; turn < 4000; ++turn) {
      Encoded bad = encoded;
      for (int flips = 0; flips < 1 + turn % 4; ++flips) {
        bad.planes[generator() % bad.planes.size()] ^= static_cast<uint8_t>(1u << generator() % 8);
      }
      if (turn % 3 == 0) bad.planes.resize(generator() % (bad.planes.size() + 1));
      const uint64_t kept = turn % 5 == 0 ? generator() % 400 : bad.kept;
      const int answer = ring2_dequantise(bad.planes.data(), bad.planes.size(), kept, one.dtype,
                                          100, kBlock, got.data(), got.size());
      EXPECT_TRUE(answer == RING2_OK || answer == -RING2_E_ARGUMENT);
    }
  }
}

TEST(Absmax, SizesThatDoNotFitAreRefused) {
  Bytes bytes(4096);
  uint64_t result[2];
  const auto refused = [&](uint64_t size, uint32_t dtype, uint64_t row, uint32_t block,
                           uint64_t planes) {
    return ring2_quantise(bytes.data(), size, dtype, row, block, bytes.data(), planes, result) ==
           -RING2_E_ARGUMENT;
  };
  EXPECT_TRUE(refused(256, RING2_DTYPE_INT32, 64, 64, 4096));
  EXPECT_TRUE(refused(255, RING2_DTYPE_FLOAT32, 64, 64, 4096));
  EXPECT_TRUE(refused(256, RING2_DTYPE_FLOAT32, 63, 64, 4096));
  EXPECT_TRUE(refused(256, RING2_DTYPE_FLOAT32, 0, 64, 4096));
  EXPECT_TRUE(refused(256, RING2_DTYPE_FLOAT32, 64, 0, 4096));
  EXPECT_TRUE(refused(256, RING2_DTYPE_FLOAT32, 64, 257, 4096));
  EXPECT_TRUE(refused(256, RING2_DTYPE_FLOAT32, 64, 64, 100));
  EXPECT_TRUE(refused(uint64_t{1} << 40, RING2_DTYPE_FLOAT32, 64, 64, 4096));
  EXPECT_EQ(ring2_dequantise(bytes.data(), 82, ~uint64_t{0}, RING2_DTYPE_FLOAT32, 64, 64,
                             bytes.data(), 256),
            -RING2_E_ARGUMENT);
}

TEST(Planes, SplitAndJoinAreInverseAtEverySize) {
  std::mt19937 generator(17);
  for (const uint32_t size : {1u, 2u, 4u, 8u}) {
    for (const uint64_t count : {0u, 1u, 15u, 16u, 17u, 1000u}) {
      Bytes given(count * size), planes(count * size), got(count * size);
      for (uint8_t &byte : given) byte = static_cast<uint8_t>(generator());
      ASSERT_EQ(ring2_planes_split(given.data(), given.size(), size, planes.data()), RING2_OK);
      for (uint64_t i = 0; i < count; ++i) {
        for (uint32_t plane = 0; plane < size; ++plane) {
          ASSERT_EQ(planes[plane * count + i], given[i * size + plane]);
        }
      }
      ASSERT_EQ(ring2_planes_join(planes.data(), planes.size(), size, got.data()), RING2_OK);
      EXPECT_EQ(given, got);
    }
  }
  EXPECT_EQ(ring2_planes_split("abcdef", 6, 3, nullptr), -RING2_E_ARGUMENT);
  EXPECT_EQ(ring2_planes_split("abcdef", 6, 4, nullptr), -RING2_E_ARGUMENT);
}

TEST(Planes, EntropyIsThatOfTheBytesCounts) {
  Bytes bytes(1024);
  EXPECT_EQ(ring2_entropy_bits(bytes.data(), bytes.size()), 0);
  for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<uint8_t>(i % 256);
  EXPECT_NEAR(ring2_entropy_bits(bytes.data(), bytes.size()), 8, 1e-9);
  for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<uint8_t>(i % 4);
  EXPECT_NEAR(ring2_entropy_bits(bytes.data(), bytes.size()), 2, 1e-9);
  EXPECT_EQ(ring2_entropy_bits(bytes.data(), 0), 0);
}

TEST(Bits, RunsOfAnyLengthPackAsOneStream) {
  std::mt19937 generator(18);
  for (const unsigned width : {2u, 3u}) {
    std::vector<uint8_t> numbers(1001), got(1001);
    for (uint8_t &number : numbers) number = static_cast<uint8_t>(generator() % (1u << width));
    Bytes packed(ring2::packed_bytes(numbers.size(), width));
    ring2::BitPacker packer(packed.data(), width);
    ring2::BitUnpacker unpacker(packed.data(), packed.size(), width);
    for (size_t at = 0; at < numbers.size();) {
      const size_t run = std::min<size_t>(1 + generator() % 20, numbers.size() - at);
      packer.put(numbers.data() + at, run);
      at += run;
    }
    packer.finish();
    for (size_t i = 0; i < numbers.size(); ++i) {
      unsigned number = 0;
      for (unsigned bit = 0; bit < width; ++bit) {
        const size_t place = i * width + bit;
        number |= (packed[place / 8] >> place % 8 & 1u) << bit;
      }
      ASSERT_EQ(number, numbers[i]);
    }
    for (size_t at = 0; at < numbers.size(); at += 13) {
      unpacker.take(got.data() + at, std::min<size_t>(13, numbers.size() - at));
    }
    EXPECT_EQ(got, numbers);
  }
}

// Of the reference implementation, by pyarrow.Codec("lz4"): "abc" twenty times, "the end", the bytes
// 0 to 39, "the end", and "z" three hundred times.
constexpr uint8_t kFrame[] = {
    0x04, 0x22, 0x4d, 0x18, 0x60, 0x40, 0x82, 0x46, 0x00, 0x00, 0x00, 0x3f, 0x61, 0x62,
    0x63, 0x03, 0x00, 0x26, 0xf3, 0x20, 0x74, 0x68, 0x65, 0x20, 0x65, 0x6e, 0x64, 0x00,
    0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07, 0x08, 0x09, 0x0a, 0x0b, 0x0c, 0x0d, 0x0e,
    0x0f, 0x10, 0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18, 0x19, 0x1a, 0x1b, 0x1c,
    0x1d, 0x1e, 0x1f, 0x20, 0x21, 0x22, 0x23, 0x24, 0x25, 0x26, 0x27, 0x2f, 0x00, 0x1f,
    0x7a, 0x01, 0x00, 0xff, 0x14, 0x50, 0x7a, 0x7a, 0x7a, 0x7a, 0x7a, 0x00, 0x00, 0x00,
    0x00};

Bytes frame_content() {
  std::string text;
  for (int i = 0; i < 20; ++i) text += "abc";
  text += "the end";
  for (char i = 0; i < 40; ++i) text += i;
  text += "the end" + std::string(300, 'z');
  return Bytes(text.begin(), text.end());
}

TEST(Lz4, ReadsAFrameOfTheReferenceImplementation) {
  const Bytes expected = frame_content();
  uint64_t size = 0;
  ASSERT_EQ(ring2_lz4_size(kFrame, sizeof kFrame, 4096, &size), RING2_OK) << ring2_last_error();
  ASSERT_EQ(size, expected.size());
  Bytes got(size);
  ASSERT_EQ(ring2_lz4_decode(kFrame, sizeof kFrame, got.data(), size), RING2_OK);
  EXPECT_EQ(got, expected);
  EXPECT_EQ(ring2_lz4_size(kFrame, sizeof kFrame, size - 1, &size), -RING2_E_ARGUMENT);
  for (size_t length = 0; length < sizeof kFrame; ++length) {
    EXPECT_EQ(ring2_lz4_decode(kFrame, length, got.data(), size), -RING2_E_ARGUMENT);
  }
}

TEST(Lz4, HostileFramesAreAnErrorNeverAStrayRead) {
  std::mt19937 generator(19);
  Bytes out(4096);
  for (int turn = 0; turn < 20000; ++turn) {
    Bytes frame(kFrame, kFrame + sizeof kFrame);
    for (int flips = 0; flips < 1 + turn % 3; ++flips) {
      // Beyond the header's checksum, so that the blocks are reached.
      frame[7 + generator() % (frame.size() - 7)] ^= static_cast<uint8_t>(1u << generator() % 8);
    }
    if (turn % 4 == 0) frame.resize(generator() % frame.size());
    uint64_t size = 0;
    const int sized = ring2_lz4_size(frame.data(), frame.size(), out.size(), &size);
    EXPECT_TRUE(sized == RING2_OK || sized == -RING2_E_ARGUMENT);
    EXPECT_LE(size, out.size());
    const int answer = ring2_lz4_decode(frame.data(), frame.size(), out.data(), size);
    EXPECT_TRUE(answer == RING2_OK || answer == -RING2_E_ARGUMENT);
  }
  uint64_t size;
  EXPECT_EQ(ring2_lz4_size(nullptr, 0, 100, &size), -RING2_E_ARGUMENT);
}

}  // namespace
