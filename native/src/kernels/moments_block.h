// Sum, squares, centred squares and largest magnitude of a block of rows, in one fused loop.
//
// The loop is optimistic: it also keeps the largest |x| as an integer, and when that says the block
// holds a value which is not finite, masked, or too large or small to square in float32, the block
// is redone the careful way from the L1 cache.
#ifndef RING2_KERNELS_MOMENTS_BLOCK_H
#define RING2_KERNELS_MOMENTS_BLOCK_H

#include "careful.h"

namespace ring2 {
namespace {

// sum(x^2) - n mean^2 loses the digits that the two have in common. Above this ratio of squares to
// centred squares the block is centred again about its mean.
constexpr double kCancellationMax = 16.0;

template <typename T>
struct MomentSums {
  Floats sum_a = {}, sum_b = {};
  typename T::Magnitudes largest = {};

  RING2_INLINE void step(MomentSums *self, const uint8_t *at, Floats *square_a, Floats *square_b) {
    T::magnitudes(&self->largest, at);
    const Pair x = T::pair(at);
    self->sum_a += x.a;
    self->sum_b += x.b;
    *square_a += x.a * x.a;
    *square_b += x.b * x.b;
  }
};

template <typename T>
RING2_INLINE float row_squares(MomentSums<T> *sums, const uint8_t *begin, const uint8_t *row,
                               size_t width) {
  Floats a = {}, b = {}, c = {}, d = {};
  const uint8_t *at = row;
  size_t left = width;
  for (; left >= 2 * kStep; left -= 2 * kStep, at += 2 * kStepBytes<T>) {
    prefetch_lines(at, 2 * kStepBytes<T>);
    MomentSums<T>::step(sums, at, &a, &b);
    MomentSums<T>::step(sums, at + kStepBytes<T>, &c, &d);
  }
  if (left >= kStep) {
    MomentSums<T>::step(sums, at, &a, &b);
    left -= kStep;
    at += kStepBytes<T>;
  }
  if (left > 0) {
    alignas(64) uint8_t tail[kStepBytes<T>];
    load_tail<T>(tail, begin, at + left * T::kBytes, left);
    MomentSums<T>::step(sums, tail, &c, &d);
  }
  return sum_lanes((a + b) + (c + d));
}

// Squares about `mean`, less the little that a rounded mean leaves: sum(d^2) - sum(d)^2 / n.
template <typename T>
__attribute__((noinline)) double centred_block(const uint8_t *data, const BlockShape &shape,
                                               double mean) {
  const Floats center = broadcast(static_cast<float>(mean));
  const double count = static_cast<double>(shape.rows * shape.width);
  Floats sum_a = {}, sum_b = {}, square_a = {}, square_b = {};
  double sum = 0, squares = 0;
  for (size_t row = 0; row < shape.rows; ++row) {
    const uint8_t *at = data + row * shape.stride_bytes;
    size_t left = shape.width;
    for (; left >= kStep; left -= kStep, at += kStepBytes<T>) {
      const Pair x = T::pair(at);
      const Floats a = x.a - center, b = x.b - center;
      sum_a += a;
      sum_b += b;
      square_a += a * a;
      square_b += b * b;
    }
    for (; left > 0; --left, at += T::kBytes) {
      const double d = static_cast<double>(T::value(at)) - static_cast<double>(center[0]);
      sum += d;
      squares += d * d;
    }
  }
  sum += static_cast<double>(sum_lanes(sum_a + sum_b));
  squares += static_cast<double>(sum_lanes(square_a + square_b));
  return squares - sum * sum / count;
}

template <typename T>
RING2_INLINE double centred_from(double sum_squares, double sum, double count, const uint8_t *data,
                                 const BlockShape &shape) {
  const double mean = sum / count;
  const double centred = sum_squares - sum * mean;
  if (centred * kCancellationMax >= sum_squares) return centred;
  const double again = centred_block<T>(data, shape, mean);
  return again > 0 ? again : 0;
}

template <typename T>
void moments_block(const uint8_t *data, const BlockShape &shape, double mask_at,
                   MomentsBlock *block, RowSquares *squares) {
  MomentSums<T> sums;
  double sum_squares = 0;
  for (size_t row = 0; row < shape.rows; ++row) {
    const uint8_t *at = data + row * shape.stride_bytes;
    double of_row = static_cast<double>(row_squares<T>(&sums, data, at, shape.width));
    if (of_row < kRowSquaresSafeMin) of_row = tiny_row_squares<T>(at, shape.width);
    squares->of_row[row] = of_row;
    sum_squares += of_row;
  }
  const uint32_t largest = largest_code(sums.largest);
  const float abs_max = largest < T::kInfinity ? T::from_code(largest) : 0.0f;
  const bool masked = static_cast<double>(abs_max) >= magnitude_of(mask_at);
  if (largest >= T::kInfinity || masked || !squares_are_safe(abs_max)) {
    careful_moments<T>(data, shape, mask_at, block, squares);
    return;
  }
  const double count = static_cast<double>(shape.rows * shape.width);
  squares->all_used = true;
  *block = MomentsBlock{};
  block->used = shape.rows * shape.width;
  block->abs_max = static_cast<double>(abs_max);
  block->sum = static_cast<double>(sum_lanes(sums.sum_a + sums.sum_b));
  block->centred = centred_from<T>(sum_squares, block->sum, count, data, shape);
}

}  // namespace
}  // namespace ring2
#endif
