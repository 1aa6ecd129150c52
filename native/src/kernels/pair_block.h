// Two rows against each other, and rows added up: the inner loops of what compares tokens with
// tokens. The products of all pairs of rows are in pair_gram_block.h.
#ifndef RING2_KERNELS_PAIR_BLOCK_H
#define RING2_KERNELS_PAIR_BLOCK_H

#include "careful.h"

namespace ring2 {
namespace {

constexpr double kRowSquaresSafeMax = 0x1p126;

RING2_INLINE bool row_squares_are_safe(double squares) {
  return squares >= kRowSquaresSafeMin && squares <= kRowSquaresSafeMax;
}

struct PairLanes {
  Floats dot_a = {}, dot_b = {}, first_a = {}, first_b = {}, second_a = {}, second_b = {};
};

template <typename T>
RING2_INLINE void pair_step(PairLanes *lanes, const uint8_t *first, const uint8_t *second) {
  const Pair x = T::pair(first);
  const Pair y = T::pair(second);
  lanes->dot_a += x.a * y.a;
  lanes->dot_b += x.b * y.b;
  lanes->first_a += x.a * x.a;
  lanes->first_b += x.b * x.b;
  lanes->second_a += y.a * y.a;
  lanes->second_b += y.b * y.b;
}

// For squares that leave float32's range, zero rows, and elements that are not finite: those make
// the sums NaN or infinite.
template <typename T>
__attribute__((noinline)) void careful_pair(const uint8_t *first, const uint8_t *second,
                                            size_t count, PairSums *sums) {
  for (size_t i = 0; i < count; ++i) {
    const double x = static_cast<double>(T::value(first + i * T::kBytes));
    const double y = static_cast<double>(T::value(second + i * T::kBytes));
    sums->dot += x * y;
    sums->first += x * x;
    sums->second += y * y;
  }
}

template <typename T>
RING2_INLINE void pair_part(const uint8_t *first, const uint8_t *second, size_t count,
                            PairSums *sums) {
  PairLanes lanes;
  const uint8_t *x = first, *y = second;
  size_t left = count;
  for (; left >= kStep; left -= kStep, x += kStepBytes<T>, y += kStepBytes<T>) {
    prefetch_lines(x, kStepBytes<T>);
    prefetch_lines(y, kStepBytes<T>);
    pair_step<T>(&lanes, x, y);
  }
  if (left > 0) {
    alignas(64) uint8_t tails[2][kStepBytes<T>];
    load_tail<T>(tails[0], first, x + left * T::kBytes, left);
    load_tail<T>(tails[1], second, y + left * T::kBytes, left);
    pair_step<T>(&lanes, tails[0], tails[1]);
  }
  const double first_squares = static_cast<double>(sum_lanes(lanes.first_a + lanes.first_b));
  const double second_squares = static_cast<double>(sum_lanes(lanes.second_a + lanes.second_b));
  if (!row_squares_are_safe(first_squares) || !row_squares_are_safe(second_squares)) {
    careful_pair<T>(first, second, count, sums);
    return;
  }
  sums->dot += static_cast<double>(sum_lanes(lanes.dot_a + lanes.dot_b));
  sums->first += first_squares;
  sums->second += second_squares;
}

template <typename T>
void pair_rows(const uint8_t *first, const uint8_t *second, size_t width, PairSums *sums) {
  *sums = PairSums{};
  for (size_t done = 0; done < width; done += kBlockElements) {
    const size_t count = width - done < kBlockElements ? width - done : kBlockElements;
    pair_part<T>(first + done * T::kBytes, second + done * T::kBytes, count, sums);
  }
}

struct SumLanes {
  Floats sum_a, sum_b, scaled_a, scaled_b;

  RING2_INLINE void load_from(SumLanes *self, const float *sum, const float *scaled) {
    *self = {load<Floats>(sum), load<Floats>(sum + kLanes), load<Floats>(scaled),
             load<Floats>(scaled + kLanes)};
  }
  RING2_INLINE void add(SumLanes *self, const Pair &x, float scale) {
    self->sum_a += x.a;
    self->sum_b += x.b;
    self->scaled_a += x.a * scale;
    self->scaled_b += x.b * scale;
  }
  RING2_INLINE void store_to(const SumLanes &self, float *sum, float *scaled) {
    __builtin_memcpy(sum, &self.sum_a, kVectorBytes);
    __builtin_memcpy(sum + kLanes, &self.sum_b, kVectorBytes);
    __builtin_memcpy(scaled, &self.scaled_a, kVectorBytes);
    __builtin_memcpy(scaled + kLanes, &self.scaled_b, kVectorBytes);
  }
};

template <typename T>
void add_rows(const uint8_t *const *rows, const float *scales, size_t count, size_t width,
              float *sum, float *scaled) {
  SumLanes lanes;
  size_t done = 0;
  for (; done + kStep <= width; done += kStep) {
    SumLanes::load_from(&lanes, sum + done, scaled + done);
    for (size_t row = 0; row < count; ++row) {
      SumLanes::add(&lanes, T::pair(rows[row] + done * T::kBytes), scales[row]);
    }
    SumLanes::store_to(lanes, sum + done, scaled + done);
  }
  if (done == width) return;
  SumLanes::load_from(&lanes, sum + done, scaled + done);
  for (size_t row = 0; row < count; ++row) {
    alignas(64) uint8_t tail[kStepBytes<T>];
    load_tail<T>(tail, rows[row], rows[row] + width * T::kBytes, width - done);
    SumLanes::add(&lanes, T::pair(tail), scales[row]);
  }
  SumLanes::store_to(lanes, sum + done, scaled + done);
}

RING2_INLINE float squares_about(const Pair &x, const float *center) {
  const Floats a = x.a - load<Floats>(center), b = x.b - load<Floats>(center + kLanes);
  return sum_lanes(a * a + b * b);
}

// Squares of the distances from `center`, which is in the order of add_rows.
template <typename T>
double centred_row(const uint8_t *row, size_t width, const float *center) {
  double squares = 0;
  size_t done = 0;
  for (; done + kStep <= width; done += kStep) {
    squares += static_cast<double>(squares_about(T::pair(row + done * T::kBytes), center + done));
  }
  if (done < width) {
    alignas(64) uint8_t tail[kStepBytes<T>];
    load_tail<T>(tail, row, row + width * T::kBytes, width - done);
    squares += static_cast<double>(squares_about(T::pair(tail), center + done));
  }
  return squares;
}

}  // namespace
}  // namespace ring2
#endif
