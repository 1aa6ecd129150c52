// Sums of p and p ln p over one row of an attention pattern, keys 1 and up.
#ifndef RING2_KERNELS_ATTENTION_BLOCK_H
#define RING2_KERNELS_ATTENTION_BLOCK_H

#include "careful.h"
#include "vector_math.h"

namespace ring2 {
namespace {

struct PatternSums {
  Floats mass_a = {}, mass_b = {}, p_log_p_a = {}, p_log_p_b = {};

  RING2_INLINE void step(PatternSums *self, Pair p) {
    self->mass_a += p.a;
    self->mass_b += p.b;
    self->p_log_p_a += p.a * log_clamped(p.a);
    self->p_log_p_b += p.b * log_clamped(p.b);
  }
};

// Adds `count` elements to the row; true when one of them may be no probability.
template <typename T>
RING2_INLINE bool pattern_block(const uint8_t *begin, const uint8_t *data, size_t count,
                                    AttentionRow *row) {
  PatternSums sums;
  typename T::Codes codes = {};
  const uint8_t *at = data;
  size_t left = count;
  for (; left >= kStep; left -= kStep, at += kStepBytes<T>) {
    prefetch_lines(at, kStepBytes<T>);
    T::codes(&codes, at);
    PatternSums::step(&sums, T::pair(at));
  }
  if (left > 0) {
    alignas(64) uint8_t tail[kStepBytes<T>];
    load_tail<T>(tail, begin, at + left * T::kBytes, left);
    T::codes(&codes, tail);
    PatternSums::step(&sums, T::pair(tail));
  }
  row->rest += static_cast<double>(sum_lanes(sums.mass_a + sums.mass_b));
  row->rest_p_log_p += static_cast<double>(sum_lanes(sums.p_log_p_a + sums.p_log_p_b));
  return T::any_from_infinity(codes);
}

template <typename T>
RING2_INLINE bool all_zero(const uint8_t *begin, const uint8_t *data, size_t count) {
  const uint8_t *at = data;
  size_t left = count;
  for (; left >= kStep; left -= kStep, at += kStepBytes<T>) {
    if (T::any(at)) return false;
  }
  if (left == 0) return true;
  alignas(64) uint8_t tail[kStepBytes<T>];
  load_tail<T>(tail, begin, at + left * T::kBytes, left);
  return !T::any(tail);
}

// Counts what is no probability, in a row where something seemed to be none (-0 seems so too).
template <typename T>
__attribute__((noinline)) void count_unusable(const uint8_t *data, size_t keys,
                                              AttentionRow *row) {
  const uint32_t magnitude_mask = T::kBytes == 2 ? 0x7fffu : 0x7fffffffu;
  for (size_t key = 0; key < keys; ++key) {
    const uint32_t code = T::code(data + key * T::kBytes);
    const uint32_t magnitude = code & magnitude_mask;
    const bool negative = code > magnitude;
    row->nan += magnitude > T::kInfinity;
    row->pos_inf += magnitude == T::kInfinity && !negative;
    row->neg_inf += magnitude == T::kInfinity && negative;
    row->negative += negative && magnitude != 0 && magnitude < T::kInfinity;
  }
}

template <typename T>
void attention_row(const uint8_t *data, size_t keys, size_t visible, AttentionRow *row) {
  *row = AttentionRow{};
  row->first = static_cast<double>(T::value(data));
  const uint8_t *end = data + visible * T::kBytes;
  if (visible < keys && !all_zero<T>(data, end, keys - visible)) visible = keys;
  bool suspect = T::code(data) >= T::kInfinity;
  for (size_t done = 1; done < visible; done += kBlockElements) {
    const size_t left = visible - done;
    const size_t count = left < kBlockElements ? left : kBlockElements;
    suspect |= pattern_block<T>(data, data + done * T::kBytes, count, row);
  }
  if (suspect) count_unusable<T>(data, keys, row);
}

}  // namespace
}  // namespace ring2
#endif
