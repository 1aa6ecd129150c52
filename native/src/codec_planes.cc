// The lossless codec's kernels: elements into planes of their bytes and back, and how far an entropy
// coder could shrink a plane. Not here: compression itself, and the container (docs/codecs.md).

#include <cmath>
#include <cstdint>
#include <cstring>

#include "error.h"
#include "ring2_codec.h"

namespace ring2 {
namespace {

// Plane p holds byte p of every element. The constant size lets the compiler make shuffles of it.
template <size_t kBytes>
void split(const uint8_t *elements, uint64_t count, uint8_t *planes) {
  for (size_t plane = 0; plane < kBytes; ++plane) {
    uint8_t *const out = planes + plane * count;
    for (uint64_t i = 0; i < count; ++i) out[i] = elements[i * kBytes + plane];
  }
}

template <size_t kBytes>
void join(const uint8_t *planes, uint64_t count, uint8_t *elements) {
  const uint8_t *from[kBytes];
  for (size_t plane = 0; plane < kBytes; ++plane) from[plane] = planes + plane * count;
  for (uint64_t i = 0; i < count; ++i) {
    uint8_t element[kBytes];
    for (size_t plane = 0; plane < kBytes; ++plane) element[plane] = from[plane][i];
    std::memcpy(elements + i * kBytes, element, kBytes);
  }
}

int check(const void *from, const void *to, uint64_t bytes, uint32_t element_bytes) {
  const bool size = element_bytes == 1 || element_bytes == 2 || element_bytes == 4 ||
                    element_bytes == 8;
  if (!size) {
    return ring2_set_error(RING2_E_ARGUMENT, "expected elements of 1, 2, 4 or 8 bytes, got %u",
                           element_bytes);
  }
  if (bytes % element_bytes != 0) {
    return ring2_set_error(RING2_E_ARGUMENT, "expected whole elements of %u bytes, got %llu bytes",
                           element_bytes, static_cast<unsigned long long>(bytes));
  }
  if (bytes > 0 && (from == nullptr || to == nullptr)) {
    return ring2_set_error(RING2_E_ARGUMENT, "expected two buffers, got NULL");
  }
  return RING2_OK;
}

}  // namespace
}  // namespace ring2

extern "C" {

int ring2_planes_split(const void *elements, uint64_t bytes, uint32_t element_bytes, void *planes) {
  const int checked = ring2::check(elements, planes, bytes, element_bytes);
  if (checked != RING2_OK || bytes == 0) return checked;
  const uint8_t *const from = static_cast<const uint8_t *>(elements);
  uint8_t *const to = static_cast<uint8_t *>(planes);
  const uint64_t count = bytes / element_bytes;
  if (element_bytes == 1) std::memcpy(to, from, bytes);
  if (element_bytes == 2) ring2::split<2>(from, count, to);
  if (element_bytes == 4) ring2::split<4>(from, count, to);
  if (element_bytes == 8) ring2::split<8>(from, count, to);
  return RING2_OK;
}

int ring2_planes_join(const void *planes, uint64_t bytes, uint32_t element_bytes, void *elements) {
  const int checked = ring2::check(planes, elements, bytes, element_bytes);
  if (checked != RING2_OK || bytes == 0) return checked;
  const uint8_t *const from = static_cast<const uint8_t *>(planes);
  uint8_t *const to = static_cast<uint8_t *>(elements);
  const uint64_t count = bytes / element_bytes;
  if (element_bytes == 1) std::memcpy(to, from, bytes);
  if (element_bytes == 2) ring2::join<2>(from, count, to);
  if (element_bytes == 4) ring2::join<4>(from, count, to);
  if (element_bytes == 8) ring2::join<8>(from, count, to);
  return RING2_OK;
}

double ring2_entropy_bits(const void *data, uint64_t bytes) {
  // Four tables, so that a run of one value does not wait for its own counter.
  uint64_t counts[4][256] = {};
  const uint8_t *const from = static_cast<const uint8_t *>(data);
  uint64_t i = 0;
  for (; i + 4 <= bytes; i += 4) {
    for (unsigned table = 0; table < 4; ++table) ++counts[table][from[i + table]];
  }
  for (; i < bytes; ++i) ++counts[0][from[i]];
  double bits = 0;
  for (unsigned value = 0; value < 256; ++value) {
    const uint64_t count = counts[0][value] + counts[1][value] + counts[2][value] + counts[3][value];
    if (count == 0) continue;
    const double share = static_cast<double>(count) / static_cast<double>(bytes);
    bits -= share * std::log2(share);
  }
  return bits;
}

}  // extern "C"
