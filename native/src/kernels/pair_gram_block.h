// The products of all pairs of up to kGramRows centred rows: what a participation ratio is made of.
//
// A strip of columns is widened and turned, so that the rows lie side by side in vectors; the mean
// of each column is taken off before anything is multiplied, so that a large common part cancels
// nothing.
#ifndef RING2_KERNELS_PAIR_GRAM_BLOCK_H
#define RING2_KERNELS_PAIR_GRAM_BLOCK_H

#include "loader.h"

namespace ring2 {
namespace {

constexpr size_t kTileRows = 4;
constexpr size_t kTileColumns = 2 * kLanes;

// Turns kStep columns of every row; columns past the end are 0.
template <typename T>
RING2_INLINE void turn_step(const uint8_t *const *rows, size_t count, size_t width, size_t done,
                            float (*strip)[kGramRows]) {
  for (size_t row = 0; row < count; ++row) {
    alignas(64) uint8_t tail[kStepBytes<T>];
    const uint8_t *at = rows[row] + done * T::kBytes;
    if (width - done < kStep) {
      load_tail<T>(tail, rows[row], rows[row] + width * T::kBytes, width - done);
      at = tail;
    }
    const Pair x = T::pair(at);
    alignas(64) float values[kStep];
    __builtin_memcpy(values, &x.a, kVectorBytes);
    __builtin_memcpy(values + kLanes, &x.b, kVectorBytes);
    for (size_t column = 0; column < kStep; ++column) strip[column][row] = values[column];
  }
}

// Takes the mean of each column off its first `count` rows; the other rows are 0.
RING2_INLINE void centre_strip(float (*strip)[kGramRows], size_t columns, size_t count) {
  for (size_t column = 0; column < columns; ++column) {
    float *values = strip[column];
    for (size_t row = count; row < kGramRows; ++row) values[row] = 0;
    Floats sum = {};
    for (size_t row = 0; row < kGramRows; row += kLanes) sum += load<Floats>(values + row);
    const float mean = sum_lanes(sum) / static_cast<float>(count);
    for (size_t row = 0; row < count; ++row) values[row] -= mean;
  }
}

// products[i][j] += over the strip's columns, at least for j >= i.
RING2_INLINE void multiply_strip(const float (*strip)[kGramRows], size_t columns,
                                 float (*products)[kGramRows]) {
  for (size_t i = 0; i < kGramRows; i += kTileRows) {
    for (size_t j = i / kTileColumns * kTileColumns; j < kGramRows; j += kTileColumns) {
      Floats a[kTileRows], b[kTileRows];
      for (size_t row = 0; row < kTileRows; ++row) {
        a[row] = load<Floats>(products[i + row] + j);
        b[row] = load<Floats>(products[i + row] + j + kLanes);
      }
      for (size_t column = 0; column < columns; ++column) {
        const Floats first = load<Floats>(strip[column] + j);
        const Floats second = load<Floats>(strip[column] + j + kLanes);
        for (size_t row = 0; row < kTileRows; ++row) {
          a[row] += first * strip[column][i + row];
          b[row] += second * strip[column][i + row];
        }
      }
      for (size_t row = 0; row < kTileRows; ++row) {
        __builtin_memcpy(products[i + row] + j, &a[row], kVectorBytes);
        __builtin_memcpy(products[i + row] + j + kLanes, &b[row], kVectorBytes);
      }
    }
  }
}

template <typename T>
void gram_rows(const uint8_t *const *rows, size_t count, size_t width, GramSums *sums) {
  alignas(64) float strip[kGramColumns][kGramRows];
  alignas(64) float products[kGramRows][kGramRows];
  __builtin_memset(products, 0, sizeof products);
  for (size_t done = 0; done < width;) {
    size_t columns = 0;
    for (; columns < kGramColumns && done < width; columns += kStep, done += kStep) {
      turn_step<T>(rows, count, width, done, strip + columns);
    }
    centre_strip(strip, columns, count);
    multiply_strip(strip, columns, products);
  }
  *sums = GramSums{};
  for (size_t i = 0; i < count; ++i) {
    const double own = static_cast<double>(products[i][i]);
    sums->trace += own;
    sums->squares += own * own;
    for (size_t j = i + 1; j < count; ++j) {
      const double product = static_cast<double>(products[i][j]);
      sums->squares += 2 * product * product;
    }
  }
}

}  // namespace
}  // namespace ring2
#endif
