// The statistics of RING2_GROUP_OUTLIERS: kurtosis and small values row by row, the median of |x|
// and what stands out from it over the slice. Fed by the walk of moments.cc.
#ifndef RING2_KERNELS_OUTLIERS_H
#define RING2_KERNELS_OUTLIERS_H

#include "moments_run.h"

namespace ring2 {

class OutlierRows {
 public:
  explicit OutlierRows(const SliceContext &context)
      : context_(context), kurtosis_samples_(context, RING2_SIGNAL_KURTOSIS) {}

  void row(const RowMoments &row);
  void publish(const RowWalk &walk, const SliceMoments &moments);

 private:
  void add_kurtosis(const RowMoments &row, double rms);
  void publish_median(const RowWalk &walk, const SliceMoments &moments);

  const SliceContext &context_;
  SampleBatch kurtosis_samples_;
  Summary kurtosis_, norm_no_first_;
  double squares_ = 0;
  uint64_t rows_ = 0;
  uint64_t judged_ = 0, near_zero_ = 0, zero_ = 0;  // elements of rows with a norm
};

}  // namespace ring2
#endif
