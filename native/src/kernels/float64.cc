// The kernels for float64 elements: plain loops, correct for every value. Models rarely run in
// float64, so speed was not sought; squares beyond float64's own range come out as infinity, and
// the callers give no value then.
#include <cmath>
#include <cstring>
#include <limits>

#include "kernels.h"

namespace ring2 {
namespace {

double element(const uint8_t *data, size_t index) {
  double value;
  std::memcpy(&value, data + index * sizeof value, sizeof value);
  return value;
}

bool count_not_finite(double value, MomentsBlock *block) {
  if (std::isfinite(value)) return false;
  if (std::isnan(value)) {
    ++block->nan;
  } else if (value > 0) {
    ++block->pos_inf;
  } else {
    ++block->neg_inf;
  }
  return true;
}

}  // namespace

void moments_float64(const uint8_t *data, const BlockShape &shape, double mask_at,
                     MomentsBlock *block, RowSquares *squares) {
  double values[kBlockElements];
  *block = MomentsBlock{};
  squares->all_used = false;
  for (size_t row = 0; row < shape.rows; ++row) {
    squares->of_row[row] = 0;
    squares->used[row] = 0;
    for (size_t i = 0; i < shape.width; ++i) {
      const double value = element(data + row * shape.stride_bytes, i);
      if (count_not_finite(value, block) || value <= mask_at) continue;
      values[block->used++] = value;
      squares->of_row[row] += value * value;
      ++squares->used[row];
      block->sum += value;
      block->abs_max = std::fmax(block->abs_max, std::fabs(value));
    }
  }
  if (block->used == 0) return;
  const double mean = block->sum / static_cast<double>(block->used);
  for (uint64_t i = 0; i < block->used; ++i) {
    block->centred += (values[i] - mean) * (values[i] - mean);
  }
}

void logits_float64(const uint8_t *data, size_t count, double running_maximum,
                    LogitsBlock *block) {
  *block = LogitsBlock{};
  RowSquares squares;
  const BlockShape shape = {count * sizeof(double), 1, count};
  const double infinity = std::numeric_limits<double>::infinity();
  moments_float64(data, shape, -infinity, &block->moments, &squares);
  block->sum_squares = squares.of_row[0];
  block->maximum = block->second = -infinity;
  if (block->moments.nan + block->moments.pos_inf > 0) return;
  for (size_t i = 0; i < count; ++i) {
    const double value = element(data, i);
    if (value > block->maximum) {
      block->second = block->maximum;
      block->maximum = value;
      if (value > running_maximum) block->top_index = static_cast<uint32_t>(i);
    } else if (value > block->second) {
      block->second = value;
    }
  }
  for (size_t i = 0; i < count; ++i) {
    const double t = element(data, i) - block->maximum;
    const double e = std::exp(t);
    if (!(e > 0)) continue;
    block->weight += e;
    block->weighted += t * e;
    block->squared += t * t * e;
  }
}

void attention_float64(const uint8_t *data, size_t keys, size_t, AttentionRow *row) {
  *row = AttentionRow{};
  row->first = element(data, 0);
  MomentsBlock counts{};
  for (size_t key = 0; key < keys; ++key) {
    const double p = element(data, key);
    if (count_not_finite(p, &counts)) continue;
    row->negative += p < 0;
    if (key == 0) continue;
    row->rest += p;
    if (p > 0) row->rest_p_log_p += p * std::log(p);
  }
  row->nan = static_cast<uint32_t>(counts.nan);
  row->pos_inf = static_cast<uint32_t>(counts.pos_inf);
  row->neg_inf = static_cast<uint32_t>(counts.neg_inf);
}

double sum_float64(const uint8_t *data, size_t count) {
  double sum = 0;
  for (size_t i = 0; i < count; ++i) sum += element(data, i);
  return sum;
}

void attention_places_float64(const uint8_t *row, size_t position, AttentionPlaces *places) {
  const size_t keys = position + 1;
  const size_t recent = keys < kRecentKeys ? keys : kRecentKeys;
  places->first_four = sum_float64(row, keys < 4 ? keys : 4);
  places->previous = position > 0 ? element(row, position - 1) : 0;
  places->self = element(row, position);
  places->recent = sum_float64(row + (keys - recent) * sizeof(double), recent);
}

void add_columns_float64(const uint8_t *row, size_t, size_t count, float *columns) {
  for (size_t i = 0; i < count; ++i) columns[i] += static_cast<float>(element(row, i));
}

void central_float64(const uint8_t *row, size_t width, double scale, double center,
                     CentralMoments *moments) {
  *moments = CentralMoments{};
  for (size_t i = 0; i < width; ++i) {
    const double distance = element(row, i) * scale - center;
    const double square = distance * distance;
    moments->second += square;
    moments->fourth += square * square;
  }
}

void count_above_float64(const uint8_t *data, size_t count, const uint64_t *pivots,
                         size_t pivot_count, uint64_t *above) {
  for (size_t i = 0; i < count; ++i) {
    uint64_t code;
    std::memcpy(&code, data + i * sizeof code, sizeof code);
    code &= 0x7fffffffffffffffu;
    for (size_t pivot = 0; pivot < pivot_count; ++pivot) above[pivot] += code > pivots[pivot];
  }
}

void add_squares_float64(const uint8_t *row, size_t count, float *columns) {
  for (size_t i = 0; i < count; ++i) {
    const double value = element(row, i);
    columns[i] += static_cast<float>(value * value);
  }
}

}  // namespace ring2
