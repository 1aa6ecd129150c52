// After CityHash 1.0.2 (Geoff Pike and Jyrki Alakuijala, Google, 2011; MIT): the same constants,
// rounds and order of them, which is what makes it the same hash.

#include "city_hash.h"

#include <cstring>
#include <utility>

namespace ring2::dmi {
namespace {

constexpr uint64_t k0 = 0xc3a5c85c97cb3127u;
constexpr uint64_t k1 = 0xb492b66fbe98f273u;
constexpr uint64_t k2 = 0x9ae16a3b2f90404fu;
constexpr uint64_t k3 = 0xc949d7c7509e6557u;
constexpr uint64_t kPair = 0x9ddfea08eb382d69u;

template <typename T = uint64_t>
uint64_t at(const uint8_t *data) {
  T value;
  std::memcpy(&value, data, sizeof value);
  return value;
}

uint64_t turn(uint64_t value, unsigned by) { return value >> by | value << (64 - by); }
uint64_t fold(uint64_t value) { return value ^ value >> 47; }

uint64_t pair(uint64_t first, uint64_t second) {
  const uint64_t once = fold((first ^ second) * kPair);
  return fold((second ^ once) * kPair) * kPair;
}

uint64_t up_to_16(const uint8_t *data, uint64_t bytes) {
  if (bytes > 8) {
    const uint64_t first = at(data), last = at(data + bytes - 8);
    return pair(first, turn(last + bytes, static_cast<unsigned>(bytes))) ^ last;
  }
  if (bytes >= 4) {
    return pair(bytes + (at<uint32_t>(data) << 3), at<uint32_t>(data + bytes - 4));
  }
  if (bytes == 0) return k2;
  const uint64_t low = data[0] + (uint64_t{data[bytes / 2]} << 8);
  const uint64_t high = bytes + (uint64_t{data[bytes - 1]} << 2);
  return fold(low * k2 ^ high * k3) * k2;
}

// 32 bytes and two seeds.
Hash128 weak(const uint8_t *data, uint64_t first, uint64_t second) {
  const uint64_t last = at(data + 24);
  first += at(data);
  second = turn(second + first + last, 21);
  const uint64_t before = first;
  first += at(data + 8) + at(data + 16);
  second += turn(first, 44);
  return {first + last, second + before};
}

Hash128 short_text(const uint8_t *data, uint64_t bytes, Hash128 seed) {
  uint64_t a = seed.low, b = seed.high, c, d;
  if (bytes <= 16) {
    a = fold(a * k1) * k1;
    c = b * k1 + up_to_16(data, bytes);
    d = fold(a + (bytes >= 8 ? at(data) : c));
  } else {
    c = pair(at(data + bytes - 8) + k1, a);
    d = pair(b + bytes, c + at(data + bytes - 16));
    a += d;
    for (int64_t left = static_cast<int64_t>(bytes) - 16; left > 0; left -= 16, data += 16) {
      a = (a ^ fold(at(data) * k1) * k1) * k1;
      b ^= a;
      c = (c ^ fold(at(data + 8) * k1) * k1) * k1;
      d ^= c;
    }
  }
  a = pair(a, c);
  b = pair(d, b);
  return {a ^ b, pair(b, a)};
}

Hash128 seeded(const uint8_t *data, uint64_t bytes, Hash128 seed) {
  if (bytes < 128) return short_text(data, bytes, seed);
  const uint8_t *const end = data + bytes;
  uint64_t x = seed.low, y = seed.high, z = bytes * k1, left = bytes;
  Hash128 v, w;
  v.low = turn(y ^ k1, 49) * k1 + at(data);
  v.high = turn(v.low, 42) * k1 + at(data + 8);
  w.low = turn(y + z, 35) * k1 + x;
  w.high = turn(x + at(data + 88), 53) * k1;
  for (; left >= 128; left -= 128) {
    for (int half = 0; half < 2; ++half, data += 64) {
      x = turn(x + y + v.low + at(data + 16), 37) * k1;
      y = turn(y + v.high + at(data + 48), 42) * k1;
      x ^= w.high;
      y ^= v.low;
      z = turn(z ^ w.low, 33);
      v = weak(data, v.high * k1, x + w.low);
      w = weak(data + 32, z + w.high, y);
      std::swap(z, x);
    }
  }
  y += turn(w.low, 37) * k0 + z;
  x += turn(v.low + z, 49) * k0;
  // What is left, in parts of 32 bytes from the end; the last part reaches into what was read.
  for (uint64_t done = 0; done < left;) {
    done += 32;
    y = turn(y - x, 42) * k0 + v.high;
    w.low += at(end - done + 16);
    x = turn(x, 49) * k0 + w.low;
    w.low += v.low;
    v = weak(end - done, v.low, v.high);
  }
  x = pair(x, v.low);
  y = pair(y, w.low);
  return {pair(x + v.high, w.high) + y, pair(x + w.high, y + v.high)};
}

}  // namespace

Hash128 city_hash_128(const uint8_t *data, uint64_t bytes) {
  if (bytes >= 16) return seeded(data + 16, bytes - 16, {at(data) ^ k3, at(data + 8)});
  if (bytes >= 8) return seeded(data, 0, {at(data) ^ bytes * k0, at(data + bytes - 8) ^ k1});
  return seeded(data, bytes, {k0, k1});
}

}  // namespace ring2::dmi
