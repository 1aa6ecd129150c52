// Bytes as clients send them: checksums, frames, types, numbers.

#include <gtest/gtest.h>

#include "city_hash.h"
#include "frames.h"
#include "statements.h"
#include "types.h"

namespace ring2::dmi {
namespace {

Memory memory(const std::string &text) {
  return Memory(reinterpret_cast<const uint8_t *>(text.data()), text.size());
}

TEST(DmiWire, TheChecksumIsThatOfCityHash102) {
  // As the Python package clickhouse-cityhash 1.0.2 gives them.
  struct Known {
    uint64_t bytes, low, high;
  };
  constexpr Known kKnown[] = {
      {0, 0x3df09dfc64c09a2bu, 0x3cb540c392e51e29u},
      {1, 0x8be55b379cce0e40u, 0x5ab4744478b1cbau},
      {4, 0x905dcb2063ae124fu, 0x57fd5b5954a593c5u},
      {7, 0xd7ba2459ab7c2913u, 0x53dd430b513ca460u},
      {8, 0xf5a4ca47208136a0u, 0x3dd4575b3d46e5abu},
      {15, 0xd956065c63d9ab15u, 0x9623caadd0037b73u},
      {16, 0x3f3a3275564b7f48u, 0xb48a2a7a16bac60bu},
      {17, 0xaee34bf68bb2e0a2u, 0xe0d6910555f00b87u},
      {31, 0x9b7f93e5ecfaed63u, 0xd646e40154fb0d6bu},
      {33, 0x4e495b057af3b520u, 0xabae1d24f18410b5u},
      {64, 0xe225cf33b373dc02u, 0x8d252ce5152d6d96u},
      {127, 0xc244dc8a06ce8c41u, 0xf30e2cf6b33629a6u},
      {143, 0x59abee69ce16e6a3u, 0x83e91d7a8903bfbeu},
      {144, 0x2ca82631884c46a7u, 0x71edb8d50338bb1fu},
      {160, 0x5cb38c23f218820bu, 0x28eec84c96793879u},
      {300, 0xad7d1f77d7e62c5u, 0x702d3372375ccf2u},
      {1000, 0x597ff4957972ad7eu, 0x7f39a4abd7c010e1u}};
  std::vector<uint8_t> data(1000);
  for (size_t i = 0; i < data.size(); ++i) data[i] = static_cast<uint8_t>(i * 31 + 7);
  for (const Known &known : kKnown) {
    const Hash128 hash = city_hash_128(data.data(), known.bytes);
    EXPECT_EQ(hash.low, known.low) << known.bytes;
    EXPECT_EQ(hash.high, known.high) << known.bytes;
  }
}

std::string frame(uint8_t method, const std::string &packed, uint32_t content) {
  std::string out(1, static_cast<char>(method));
  const uint32_t sizes[2] = {static_cast<uint32_t>(packed.size() + 9), content};
  out.append(reinterpret_cast<const char *>(sizes), sizeof sizes);
  out += packed;
  const Hash128 hash = city_hash_128(reinterpret_cast<const uint8_t *>(out.data()), out.size());
  return std::string(reinterpret_cast<const char *>(&hash), sizeof hash) + out;
}

TEST(DmiWire, FramesOfEveryMethodHoldWhatWasPutIn) {
  std::string content;
  for (int i = 0; i < 20; ++i) content += "ring2 ";
  const std::string lz4("\x6fring2 \x06\x00\x5aPing2 ", 16);
  const std::string zstd(
      "\x28\xb5\x2f\xfd\x20\x78\x6d\x00\x00\x30ring2 \x01\x00\x2f\x69\x29\x02", 22);
  std::vector<std::string> all = {as_frame(content), frame(0x02, content, 120),
                                  frame(0x82, lz4, 120)};
#ifdef RING2_HAVE_ZSTD
  all.push_back(frame(0x90, zstd, 120));
#endif
  Budget budget(1 << 20);
  for (const std::string &one : all) {
    Memory under = memory(one);
    Frames frames(under, budget);
    std::string got(120, '\0');
    frames.all(got.data(), got.size());
    EXPECT_EQ(got, content);
    EXPECT_EQ(under.left(), 0u);
  }
}

TEST(DmiWire, ABadFrameIsSkippedUpToTheNextPacket) {
  std::string wrong = frame(0x02, "abcdef", 6);
  wrong[3] ^= 1;
  const std::string packet = std::string("\x02\x00", 2) + frame(0x02, "next", 4);
  const std::string all = wrong + frame(0x02, "of the same block", 17) + packet;
  Memory under = memory(all);
  Budget budget(1 << 20);
  Frames frames(under, budget);
  EXPECT_THROW(frames.byte(), Damaged);
  frames.resume();
  EXPECT_EQ(under.left(), packet.size());
}

TEST(DmiWire, AFrameAboveAllMemoryIsReadAndGivenUp) {
  const std::string large = frame(0x82, std::string(100, 'x'), 1 << 30);
  Memory under = memory(large);
  Budget budget(1 << 20);
  Frames frames(under, budget);
  EXPECT_THROW(frames.byte(), Damaged);
  EXPECT_EQ(under.left(), 0u);
}

TEST(DmiWire, NumbersAndTextsThatCannotBeAreLost) {
  const std::string eleven(11, '\xff'), most = std::string(9, '\xff') + "\x01";
  const std::string two_to_60 = std::string(8, '\x80') + "\x10";
  Memory overlong = memory(eleven);
  EXPECT_THROW(overlong.varint(), Lost);
  Memory largest = memory(most);
  EXPECT_EQ(largest.varint(), UINT64_MAX);
  Memory text = memory(two_to_60);
  EXPECT_THROW(text.length(), Lost);
}

struct Column {
  const char *type;
  uint64_t rows;
  uint64_t bytes;  // what the column has
  std::string content;
};

std::string words(std::initializer_list<uint64_t> values) {
  std::string out;
  for (const uint64_t value : values) out.append(reinterpret_cast<const char *>(&value), 8);
  return out;
}

TEST(DmiWire, ColumnsOfOtherTypesAreSkippedExactly) {
  const Column columns[] = {
      {"UInt8", 3, 3, ""},
      {"DateTime('UTC')", 2, 8, ""},
      {"DateTime64(3, 'a,b)')", 2, 16, ""},
      {"Decimal(18, 4)", 2, 16, ""},
      {"Enum8('a' = 1, 'b' = 2)", 5, 5, ""},
      {"FixedString(7)", 3, 21, ""},
      {"UUID", 2, 32, ""},
      {"Nullable(Int64)", 3, 27, ""},
      {"Tuple(a Int8, b Tuple(Int16, UUID))", 2, 38, ""},
      {"String", 2, 0, std::string("\x02" "ab\x00", 4)},
      {"Array(Int16)", 2, 0, words({1, 3}) + "abcdef"},
      {"Map(String, UInt8)", 1, 0, words({2}) + std::string("\x01" "a\x01" "b\x05\x06", 6)},
      {"LowCardinality(String)", 3, 0,
       words({1, 0x600, 2}) + std::string("\x00\x01" "a", 3) + words({3}) +
           std::string("\x00\x01\x01", 3)},
      {"Array(LowCardinality(Nullable(String)))", 1, 0,
       words({1, 2, 0x600, 1}) + std::string(1, '\0') + words({2}) + std::string(2, '\0')},
  };
  for (const Column &column : columns) {
    const auto type = parse_type(column.type);
    ASSERT_TRUE(type.has_value()) << column.type;
    const std::string zeros(column.bytes, '\0');
    const std::string &content = column.content.empty() ? zeros : column.content;
    const std::string all = content + "end";
    Memory stream = memory(all);
    skip_column(stream, *type, column.rows);
    EXPECT_EQ(stream.left(), 3u) << column.type;
  }
  for (const char *const unknown : {"JSON", "AggregateFunction(sum, Int8)", "Variant(Int8)",
                                    "Array(", "Nullable()", "FixedString(-1)", ""}) {
    EXPECT_FALSE(parse_type(unknown).has_value()) << unknown;
  }
  std::string deep;
  for (int i = 0; i < 100; ++i) deep += "Array(";
  EXPECT_FALSE(parse_type(deep + "Int8" + std::string(100, ')')).has_value());
}

TEST(DmiWire, AnInsertTakesTheColumnsOfItsTable) {
  Tables tables;
  tables.learn("CREATE TABLE IF NOT EXISTS `d`.`t` (a Int8 CODEC(ZSTD(1)), `b c` Array(Tuple(Int8, "
               "String)), PRIMARY KEY (a)) ENGINE = MergeTree ORDER BY a");
  const Columns expected = {{"a", "Int8"}, {"b c", "Array(Tuple(Int8,String))"}};
  EXPECT_EQ(tables.of_insert(read_statement("insert into d.t values")), expected);
  const Columns two = {{"bytes", "String"}, {"shape", "Array(Int64)"}};
  const Statement statement = read_statement("/* x */ INSERT INTO other (bytes, `shape`) VALUES");
  EXPECT_EQ(statement.kind, Statement::kInsert);
  EXPECT_EQ(tables.of_insert(statement), two);
  EXPECT_EQ(read_statement("SELECT 1;").kind, Statement::kLiteral);
  EXPECT_EQ(read_statement("select count() from t").kind, Statement::kOther);
  EXPECT_EQ(read_statement("USE d").kind, Statement::kEngine);
  EXPECT_EQ(read_statement("INSERT INTO a SELECT 1").kind, Statement::kEngine);
  EXPECT_EQ(read_statement("/* never ends").kind, Statement::kOther);
}

}  // namespace
}  // namespace ring2::dmi
