// The kernels of pair_block.h and pair_gram_block.h for float64 elements: plain loops.
#include <cstring>

#include "kernels.h"

namespace ring2 {
namespace {

double element(const uint8_t *data, size_t index) {
  double value;
  std::memcpy(&value, data + index * sizeof value, sizeof value);
  return value;
}

}  // namespace

void pair_float64(const uint8_t *first, const uint8_t *second, size_t width, PairSums *sums) {
  *sums = PairSums{};
  for (size_t i = 0; i < width; ++i) {
    const double x = element(first, i), y = element(second, i);
    sums->dot += x * y;
    sums->first += x * x;
    sums->second += y * y;
  }
}

void add_rows_float64(const uint8_t *const *rows, const float *scales, size_t count, size_t width,
                      float *sum, float *scaled) {
  for (size_t row = 0; row < count; ++row) {
    const double scale = static_cast<double>(scales[row]);
    for (size_t i = 0; i < width; ++i) {
      const double value = element(rows[row], i);
      sum[i] += static_cast<float>(value);
      scaled[i] += static_cast<float>(value * scale);
    }
  }
}

double centred_float64(const uint8_t *row, size_t width, const float *center) {
  double squares = 0;
  for (size_t i = 0; i < width; ++i) {
    const double distance = element(row, i) - static_cast<double>(center[i]);
    squares += distance * distance;
  }
  return squares;
}

void gram_float64(const uint8_t *const *rows, size_t count, size_t width, GramSums *sums) {
  double products[kGramRows][kGramRows] = {};
  double values[kGramRows];
  for (size_t column = 0; column < width; ++column) {
    double mean = 0;
    for (size_t row = 0; row < count; ++row) mean += values[row] = element(rows[row], column);
    mean /= static_cast<double>(count);
    for (size_t row = 0; row < count; ++row) values[row] -= mean;
    for (size_t i = 0; i < count; ++i) {
      for (size_t j = i; j < count; ++j) products[i][j] += values[i] * values[j];
    }
  }
  *sums = GramSums{};
  for (size_t i = 0; i < count; ++i) {
    sums->trace += products[i][i];
    sums->squares += products[i][i] * products[i][i];
    for (size_t j = i + 1; j < count; ++j) sums->squares += 2 * products[i][j] * products[i][j];
  }
}

}  // namespace ring2
