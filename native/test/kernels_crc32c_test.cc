// CRC-32C against its published check values, and the two ways of computing it against each other.
#include <gtest/gtest.h>

#include <random>
#include <vector>

#include "crc32c.h"
#include "ring2.h"

namespace {

std::vector<uint8_t> random_bytes(size_t count) {
  std::mt19937 generator(7);
  std::vector<uint8_t> bytes(count);
  for (uint8_t &byte : bytes) byte = static_cast<uint8_t>(generator());
  return bytes;
}

TEST(Crc32c, MatchesThePublishedCheckValues) {
  EXPECT_EQ(ring2_crc32c("123456789", 9, 0), 0xe3069283u);
  const std::vector<uint8_t> zeros(32, 0), ones(32, 0xff);  // RFC 3720, appendix B.4
  EXPECT_EQ(ring2_crc32c(zeros.data(), 32, 0), 0x8a9136aau);
  EXPECT_EQ(ring2_crc32c(ones.data(), 32, 0), 0x62a8ab43u);
  EXPECT_EQ(ring2_crc32c(nullptr, 0, 0), 0u);
}

TEST(Crc32c, HardwareAndTablesAgreeAtEveryLengthAndStart) {
  const std::vector<uint8_t> bytes = random_bytes(20000);
  for (const size_t length : {0u, 1u, 7u, 8u, 9u, 767u, 768u, 769u, 6143u, 6144u, 6145u, 19990u}) {
    for (size_t start = 0; start < 9; ++start) {
      EXPECT_EQ(ring2::crc32c(bytes.data() + start, length, 0),
                ring2::crc32c_portable(bytes.data() + start, length, 0));
    }
  }
}

TEST(Crc32c, ASeedContinuesTheBytesBefore) {
  const std::vector<uint8_t> bytes = random_bytes(9000);
  const uint32_t whole = ring2_crc32c(bytes.data(), bytes.size(), 0);
  for (const size_t cut : {1u, 8u, 4000u, 8999u}) {
    const uint32_t head = ring2_crc32c(bytes.data(), cut, 0);
    EXPECT_EQ(ring2_crc32c(bytes.data() + cut, bytes.size() - cut, head), whole);
  }
}

TEST(Crc32c, PartsAreSummedEachAndMustLieWithin) {
  const std::vector<uint8_t> bytes = random_bytes(1000);
  const uint64_t parts[] = {3, 500, 0, 0, 1000, 0, 999, 1};
  uint32_t sums[4] = {1, 1, 1, 1};
  ASSERT_EQ(ring2_crc32c_parts(bytes.data(), bytes.size(), parts, 4, sums), RING2_OK);
  EXPECT_EQ(sums[0], ring2_crc32c(bytes.data() + 3, 500, 0));
  EXPECT_EQ(sums[1], 0u);
  EXPECT_EQ(sums[2], 0u);
  EXPECT_EQ(sums[3], ring2_crc32c(bytes.data() + 999, 1, 0));
  const uint64_t outside[][2] = {{1000, 1}, {1001, 0}, {1, UINT64_MAX}, {UINT64_MAX, 1}};
  for (const auto &part : outside) {
    EXPECT_EQ(ring2_crc32c_parts(bytes.data(), bytes.size(), part, 1, sums), -RING2_E_ARGUMENT);
  }
}

}  // namespace
