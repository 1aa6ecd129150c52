#include "outliers.h"

#include <cmath>
#include <limits>

#include "elements.h"
#include "median.h"

namespace ring2 {
namespace {

// At this share of the row's RMS and below, a value is near zero. Shares of it compare across
// layers, absolute bounds do not.
constexpr double kNearZero = 1e-3;
// Sun et al. 2024: massive activations.
constexpr double kMassiveAbove = 100;
constexpr double kMassiveMedians = 1000;
// Below, 1 / RMS nears the end of float32.
constexpr double kScaleSafeMin = 0x1p-100;
// A row whose spread is so small a share of its RMS is centred in float64.
constexpr double kSpreadSafeMin = 1e-3;
constexpr double kLargest = std::numeric_limits<double>::max();

// m4 / m2^2 in float64, element by element; NaN when all are equal. Divided by the row's RMS first,
// so that no power leaves float64.
double careful_kurtosis(const SliceContext &context, const RowMoments &row, double rms) {
  const auto for_each = [&](auto see) {
    for (uint64_t i = 0; i < row.width; ++i) {
      const uint8_t *at = row.data + i * context.element_bytes;
      if (element_code(context.type, at) >= infinity_code(context.type)) continue;
      see(element_value(context.type, at) / rms);
    }
  };
  const double count = static_cast<double>(row.used);
  double sum = 0, least = HUGE_VAL, most = -HUGE_VAL;
  for_each([&](double value) {
    sum += value;
    least = std::fmin(least, value);
    most = std::fmax(most, value);
  });
  if (least == most) return std::numeric_limits<double>::quiet_NaN();
  double second = 0, fourth = 0;
  const double mean = sum / count;
  for_each([&](double value) {
    const double square = (value - mean) * (value - mean);
    second += square;
    fourth += square * square;
  });
  return count * fourth / (second * second);
}

}  // namespace

void OutlierRows::row(const RowMoments &row) {
  const uint64_t position = static_cast<uint64_t>(context_.slice->token_start) + rows_++;
  if (row.used == 0 || !(row.sum_squares <= kLargest)) return;
  const double rms = std::sqrt(row.sum_squares / static_cast<double>(row.used));
  if (context_.slice->ndim == 2 && position >= 1) norm_no_first_.add(std::sqrt(row.sum_squares));
  squares_ += row.sum_squares;
  const uint64_t pivots[2] = {0, code_at_most(context_.type, kNearZero * rms)};
  uint64_t above[2] = {0, 0};
  context_.kernels->count_above[context_.type](row.data, row.width, pivots, 2, above);
  judged_ += row.used;
  zero_ += row.width - above[0];
  near_zero_ += row.width - above[1];
  if (rms > 0) add_kurtosis(row, rms);
}

void OutlierRows::add_kurtosis(const RowMoments &row, double rms) {
  double value = 0;
  const double count = static_cast<double>(row.width);
  CentralMoments moments = {0, 0};
  if (row.plain && rms >= kScaleSafeMin) {
    // The mean is taken off after scaling with the very scale that the elements get.
    const double scale = static_cast<double>(static_cast<float>(1 / rms));
    const double mean = context_.kernels->sum[context_.type](row.data, row.width) / count;
    context_.kernels->central[context_.type](row.data, row.width, scale, mean * scale, &moments);
  }
  if (moments.second > count * kSpreadSafeMin * kSpreadSafeMin) {
    value = count * moments.fourth / (moments.second * moments.second);
  } else {
    value = careful_kurtosis(context_, row, rms);
    if (std::isnan(value)) return;
  }
  kurtosis_.add(value);
  kurtosis_samples_.add(value);
}

void OutlierRows::publish(const RowWalk &walk, const SliceMoments &moments) {
  kurtosis_samples_.flush();
  ring2_slice *slice = context_.slice;
  if (kurtosis_.count > 0) {
    set_stat(slice, RING2_STAT_KURTOSIS_MEAN, kurtosis_.mean());
    set_stat(slice, RING2_STAT_KURTOSIS_MAX, kurtosis_.most);
  }
  if (norm_no_first_.count > 0) {
    set_stat(slice, RING2_STAT_L2_NO_FIRST_MEAN, norm_no_first_.mean());
  }
  if (judged_ > 0) {
    const double judged = static_cast<double>(judged_);
    const double near_zero = static_cast<double>(near_zero_) / judged;
    set_stat(slice, RING2_STAT_NEAR_ZERO_SHARE, near_zero);
    set_stat(slice, RING2_STAT_ZERO_SHARE, static_cast<double>(zero_) / judged);
    fold_value(context_, RING2_SIGNAL_NEAR_ZERO_SHARE, near_zero);
  }
  if (moments.used > 0) publish_median(walk, moments);
}

void OutlierRows::publish_median(const RowWalk &walk, const SliceMoments &moments) {
  ring2_slice *slice = context_.slice;
  const ElementType type = context_.type;
  const uint64_t largest = code_at_most(type, moments.abs_max);
  const double rms = std::sqrt(squares_ / static_cast<double>(moments.used));
  const uint64_t code = median_code(context_, walk, moments.used, largest, rms);
  const double median = code_value(type, code);
  set_stat(slice, RING2_STAT_ABS_MEDIAN, median);
  if (median > 0 && moments.abs_max / median <= kLargest) {
    const double ratio = moments.abs_max / median;
    set_stat(slice, RING2_STAT_OUTLIER_RATIO, ratio);
    fold_value(context_, RING2_SIGNAL_OUTLIER_RATIO, ratio);
  }
  const double threshold = std::fmax(kMassiveAbove, kMassiveMedians * median);
  uint64_t massive = 0;
  if (moments.abs_max > threshold) {
    const uint64_t not_finite = slice->elements - moments.used;
    const uint64_t above = count_above(context_, walk, code_at_most(type, threshold));
    massive = above > not_finite ? above - not_finite : 0;
  }
  set_stat(slice, RING2_STAT_MASSIVE_COUNT, static_cast<double>(massive));
}

}  // namespace ring2
