// The shape of a row's values about their mean, and how many elements are above given magnitudes.
#ifndef RING2_KERNELS_OUTLIERS_BLOCK_H
#define RING2_KERNELS_OUTLIERS_BLOCK_H

#include "kernels.h"
#include "loader.h"

namespace ring2 {
namespace {

struct CentralSums {
  Floats second_a = {}, second_b = {}, fourth_a = {}, fourth_b = {};

  RING2_INLINE void step(CentralSums *self, Pair x, float scale, float center) {
    const Floats a = x.a * scale - center;
    const Floats b = x.b * scale - center;
    const Floats square_a = a * a, square_b = b * b;
    self->second_a += square_a;
    self->second_b += square_b;
    self->fourth_a += square_a * square_a;
    self->fourth_b += square_b * square_b;
  }
};

template <typename T>
RING2_INLINE void central_block(const uint8_t *data, size_t count, float scale, float center,
                                CentralMoments *moments) {
  CentralSums sums;
  const uint8_t *at = data;
  size_t left = count;
  for (; left >= kStep; left -= kStep, at += kStepBytes<T>) {
    CentralSums::step(&sums, T::pair(at), scale, center);
  }
  // One by one: the zeros around a tail would be far from the center.
  for (; left > 0; --left, at += T::kBytes) {
    const float distance = T::value(at) * scale - center;
    const double square = static_cast<double>(distance) * static_cast<double>(distance);
    moments->second += square;
    moments->fourth += square * square;
  }
  moments->second += static_cast<double>(sum_lanes(sums.second_a + sums.second_b));
  moments->fourth += static_cast<double>(sum_lanes(sums.fourth_a + sums.fourth_b));
}

template <typename T>
void central_moments(const uint8_t *row, size_t width, double scale, double center,
                     CentralMoments *moments) {
  *moments = CentralMoments{};
  for (size_t done = 0; done < width; done += kBlockElements) {
    const size_t left = width - done;
    central_block<T>(row + done * T::kBytes, left < kBlockElements ? left : kBlockElements,
                     static_cast<float>(scale), static_cast<float>(center), moments);
  }
}

// Lanes of a count; none gets to its sign bit within a stretch.
template <typename T>
constexpr size_t kCountStretch = kStep * 8192;

template <typename T, size_t kPivots>
RING2_INLINE void count_stretch(const uint8_t *begin, const uint8_t *data, size_t count,
                                const uint64_t *pivots, uint64_t *above) {
  typename T::Magnitudes limits[kPivots], counts[kPivots];
  for (size_t i = 0; i < kPivots; ++i) {
    limits[i] = T::broadcast_code(pivots[i]);
    counts[i] = typename T::Magnitudes{};
  }
  const uint8_t *at = data;
  size_t left = count;
  for (; left >= kStep; left -= kStep, at += kStepBytes<T>) {
    prefetch_lines(at, kStepBytes<T>);
    for (size_t part = 0; part < kStepBytes<T>; part += kVectorBytes) {
      const typename T::Magnitudes codes = T::magnitude(at + part);
      for (size_t i = 0; i < kPivots; ++i) counts[i] -= codes > limits[i];
    }
  }
  if (left > 0) {
    alignas(64) uint8_t tail[kStepBytes<T>];
    load_tail<T>(tail, begin, at + left * T::kBytes, left);
    for (size_t part = 0; part < kStepBytes<T>; part += kVectorBytes) {
      const typename T::Magnitudes codes = T::magnitude(tail + part);
      for (size_t i = 0; i < kPivots; ++i) counts[i] -= codes > limits[i];
    }
  }
  for (size_t i = 0; i < kPivots; ++i) above[i] += T::sum_counts(counts[i]);
}

template <typename T, size_t kPivots>
RING2_INLINE void count_stretches(const uint8_t *data, size_t count, const uint64_t *pivots,
                                  uint64_t *above) {
  for (size_t done = 0; done < count; done += kCountStretch<T>) {
    const size_t part = count - done < kCountStretch<T> ? count - done : kCountStretch<T>;
    count_stretch<T, kPivots>(data, data + done * T::kBytes, part, pivots, above);
  }
}

template <typename T>
void count_above(const uint8_t *data, size_t count, const uint64_t *pivots, size_t pivot_count,
                 uint64_t *above) {
  if (pivot_count == 1) {
    count_stretches<T, 1>(data, count, pivots, above);
  } else if (pivot_count == 2) {
    count_stretches<T, 2>(data, count, pivots, above);
  } else {
    count_stretches<T, kPivotsMax>(data, count, pivots, above);
  }
}

// `count` columns; no step is read or written past them.
template <typename T>
void add_squares(const uint8_t *row, size_t count, float *columns) {
  size_t done = 0;
  for (; done + kStep <= count; done += kStep) {
    const Pair x = T::ordered_pair(row + done * T::kBytes);
    const Floats a = load<Floats>(columns + done) + x.a * x.a;
    const Floats b = load<Floats>(columns + done + kLanes) + x.b * x.b;
    __builtin_memcpy(columns + done, &a, sizeof a);
    __builtin_memcpy(columns + done + kLanes, &b, sizeof b);
  }
  for (; done < count; ++done) {
    const float value = T::value(row + done * T::kBytes);
    columns[done] += value * value;
  }
}

}  // namespace
}  // namespace ring2
#endif
