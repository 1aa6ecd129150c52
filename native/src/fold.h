// Folding of samples into base-2 exponential histograms, one series for each
// (signal, hook, layer, phase), and of plain counts for each (hook, layer). The public functions
// are in ring2.h; these are the ones that measuring uses.
//
// A fold has one owner and no locks. It never shrinks and holds at most kFoldSeriesMax series and
// kFoldCountsMax counters; what would need one more is refused and counted, and ring2_fold_counts
// reports it as one more entry with hook UINT32_MAX, layer -1 and `elements` = samples refused.
#ifndef RING2_FOLD_H
#define RING2_FOLD_H

#include <cstdint>

#include "ring2.h"

namespace ring2 {

constexpr uint32_t kFoldSeriesMax = 16384;  // 1.4 KiB each, made when first needed
constexpr uint32_t kFoldCountsMax = 8192;
constexpr int32_t kFoldScaleMax = 20;
constexpr int32_t kFoldScaleMin = -10;
// Samples below this count as zero: rounding noise of a norm or an entropy would otherwise force a
// coarse scale on the whole series.
constexpr double kFoldZeroBelow = 1e-9;
// A sample this far below 0 is no rounding error of a signal that cannot be negative.
constexpr double kFoldNegativeMax = 1e-6;

struct FoldKey {
  uint32_t signal;
  uint32_t hook;
  int32_t layer;
  uint32_t phase;
};

// Index of the bucket (base^i, base^(i+1)] that holds `value` at `scale`, base = 2^(2^-scale).
// value: positive and finite, not subnormal.
int32_t fold_bucket(double value, int32_t scale);

// values: finite and not below -kFoldNegativeMax.
void fold_samples(ring2_fold *fold, const FoldKey &key, const double *values, uint64_t count,
                  uint64_t request_key, uint64_t realtime_ns);
// Adds every field of `counts` to the counter of its hook and layer.
void fold_counts(ring2_fold *fold, const ring2_counts &counts);

}  // namespace ring2
#endif
