// The slow, exact way through a block that holds something the fast loops cannot take: NaN,
// infinities, masked scores, or values whose squares leave float32's range.
#ifndef RING2_KERNELS_CAREFUL_H
#define RING2_KERNELS_CAREFUL_H

#include "kernels.h"
#include "loader.h"

namespace ring2 {
namespace {

// Squares of values in between neither overflow nor lose what matters in float32.
constexpr float kSquareSafeMax = 0x1p57f;
constexpr float kSquareSafeMin = 0x1p-40f;

constexpr double kRowSquaresSafeMin = 0x1p-80;

RING2_INLINE bool squares_are_safe(float abs_max) {
  return abs_max == 0.0f || (abs_max >= kSquareSafeMin && abs_max <= kSquareSafeMax);
}

// Packs the usable elements of one row into `values`, counts the others, returns how many are used.
template <typename T>
size_t keep_finite(const uint8_t *row, size_t width, double mask_at, float *values,
                   MomentsBlock *block) {
  const float limit = static_cast<float>(mask_at);
  const uint32_t magnitude_mask = T::kBytes == 2 ? 0x7fffu : 0x7fffffffu;
  size_t used = 0;
  for (size_t i = 0; i < width; ++i) {
    const uint32_t code = T::code(row + i * T::kBytes);
    const uint32_t magnitude = code & magnitude_mask;
    const bool negative = code > magnitude;
    if (magnitude >= T::kInfinity) {
      block->nan += magnitude > T::kInfinity;
      block->pos_inf += magnitude == T::kInfinity && !negative;
      block->neg_inf += magnitude == T::kInfinity && negative;
      continue;
    }
    const float value = T::from_code(code);
    values[used] = value;
    used += value > limit;
  }
  return used;
}

RING2_INLINE double magnitude_of(double value) { return value < 0 ? -value : value; }

// Adds one row's values to the block's sum and largest magnitude, and returns their squares' sum.
double add_values(const float *values, size_t count, MomentsBlock *block) {
  double sum = 0, sum_squares = 0, abs_max = block->abs_max;
  for (size_t i = 0; i < count; ++i) {
    const double value = values[i];
    sum += value;
    sum_squares += value * value;
    abs_max = magnitude_of(value) > abs_max ? magnitude_of(value) : abs_max;
  }
  block->sum += sum;
  block->abs_max = abs_max;
  block->used += count;
  return sum_squares;
}

double centred_values(const float *values, size_t count, double mean) {
  double centred = 0;
  for (size_t i = 0; i < count; ++i) centred += (values[i] - mean) * (values[i] - mean);
  return centred;
}

template <typename T>
__attribute__((noinline)) void careful_moments(const uint8_t *data, const BlockShape &shape,
                                               double mask_at, MomentsBlock *block,
                                               RowSquares *squares) {
  float values[kBlockElements];
  size_t kept = 0;
  squares->all_used = false;
  *block = MomentsBlock{};
  for (size_t row = 0; row < shape.rows; ++row) {
    const uint8_t *at = data + row * shape.stride_bytes;
    const size_t used = keep_finite<T>(at, shape.width, mask_at, values + kept, block);
    squares->of_row[row] = add_values(values + kept, used, block);
    squares->used[row] = static_cast<uint32_t>(used);
    kept += used;
  }
  if (kept == 0) return;
  block->centred = centred_values(values, kept, block->sum / static_cast<double>(kept));
}

// Squares of one finite row whose float32 sum is so small that some may have been flushed to 0.
template <typename T>
__attribute__((noinline)) double tiny_row_squares(const uint8_t *row, size_t width) {
  double sum_squares = 0;
  for (size_t i = 0; i < width; ++i) {
    const double value = static_cast<double>(T::value(row + i * T::kBytes));
    sum_squares += value * value;
  }
  return sum_squares;
}

}  // namespace
}  // namespace ring2
#endif
