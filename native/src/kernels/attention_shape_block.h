// Where the mass of a pattern's row lies: sums over a few keys, over a stretch of keys, and over
// the queries of each key. Rows are known to hold probabilities only.
#ifndef RING2_KERNELS_ATTENTION_SHAPE_BLOCK_H
#define RING2_KERNELS_ATTENTION_SHAPE_BLOCK_H

#include "kernels.h"
#include "loader.h"

namespace ring2 {
namespace {

// At most kBlockElements; what may be read begins at `begin`.
template <typename T>
RING2_INLINE float block_sum(const uint8_t *begin, const uint8_t *data, size_t count) {
  Floats a = {}, b = {}, c = {}, d = {};
  const uint8_t *at = data;
  size_t left = count;
  for (; left >= 2 * kStep; left -= 2 * kStep, at += 2 * kStepBytes<T>) {
    const Pair x = T::pair(at), y = T::pair(at + kStepBytes<T>);
    a += x.a;
    b += x.b;
    c += y.a;
    d += y.b;
  }
  if (left >= kStep) {
    const Pair x = T::pair(at);
    a += x.a;
    b += x.b;
    left -= kStep;
    at += kStepBytes<T>;
  }
  if (left > 0) {
    alignas(64) uint8_t tail[kStepBytes<T>];
    load_tail<T>(tail, begin, at + left * T::kBytes, left);
    const Pair x = T::pair(tail);
    a += x.a;
    b += x.b;
  }
  return sum_lanes((a + b) + (c + d));
}

template <typename T>
double sum_elements(const uint8_t *data, size_t count) {
  double sum = 0;
  for (size_t done = 0; done < count; done += kBlockElements) {
    const size_t left = count - done;
    const size_t part = left < kBlockElements ? left : kBlockElements;
    sum += static_cast<double>(block_sum<T>(data, data + done * T::kBytes, part));
  }
  return sum;
}

template <typename T>
void attention_places(const uint8_t *row, size_t position, AttentionPlaces *places) {
  const size_t keys = position + 1;
  const size_t recent = keys < kRecentKeys ? keys : kRecentKeys;
  float first_four = 0;
  for (size_t key = 0; key < keys && key < 4; ++key) first_four += T::value(row + key * T::kBytes);
  places->first_four = static_cast<double>(first_four);
  places->self = static_cast<double>(T::value(row + position * T::kBytes));
  places->previous =
      position > 0 ? static_cast<double>(T::value(row + (position - 1) * T::kBytes)) : 0;
  const uint8_t *from = row + (keys - recent) * T::kBytes;
  places->recent = static_cast<double>(block_sum<T>(row, from, recent));
}

RING2_INLINE void add_to(float *columns, Pair x) {
  const Floats a = load<Floats>(columns) + x.a;
  const Floats b = load<Floats>(columns + kLanes) + x.b;
  __builtin_memcpy(columns, &a, sizeof a);
  __builtin_memcpy(columns + kLanes, &b, sizeof b);
}

static_assert(kColumnsStep % kStep == 0, "a whole step fits behind the last column");

template <typename T>
void add_columns(const uint8_t *row, size_t width, size_t count, float *columns) {
  size_t done = 0;
  for (; done + kStep <= count; done += kStep) {
    add_to(columns + done, T::ordered_pair(row + done * T::kBytes));
  }
  if (done < count && done + kStep <= width) {
    alignas(64) uint8_t head[kStepBytes<T>];
    load_head<T>(head, row + done * T::kBytes, count - done);
    add_to(columns + done, T::ordered_pair(head));
    return;
  }
  for (; done < count; ++done) columns[done] += T::value(row + done * T::kBytes);
}

}  // namespace
}  // namespace ring2
#endif
