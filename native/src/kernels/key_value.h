// The statistics of RING2_GROUP_KV over keys or values [tokens, heads, head_dim]: which tokens and
// which channels of a head stand out. Fed by the walk of moments.cc.
#ifndef RING2_KERNELS_KEY_VALUE_H
#define RING2_KERNELS_KEY_VALUE_H

#include <memory>

#include "moments_run.h"

namespace ring2 {

// Whether the slice is one of keys or values that is long enough, and the group is wanted.
bool has_key_value(const SliceContext &context);

class KeyValueRows {
 public:
  explicit KeyValueRows(const SliceContext &context);

  void row(const RowMoments &row);  // token by token, head by head
  void publish(const RowWalk &walk, const SliceMoments &moments);

 private:
  void add_channels(const RowMoments &row, uint64_t head);
  void merge_channels();
  void publish_head(uint64_t head);

  const SliceContext &context_;
  uint64_t tokens_, heads_, width_;
  uint64_t rows_ = 0, pending_tokens_ = 0;
  // One of each for every row or channel, or all null when there was no memory: then no values.
  std::unique_ptr<double[]> norms_;      // [heads, tokens]; NaN: none
  std::unique_ptr<float[]> pending_;     // [heads, head_dim]: squares of the last tokens
  std::unique_ptr<double[]> squares_;    // [heads, head_dim]: of those before
  std::unique_ptr<uint32_t[]> missing_;  // [heads, head_dim]: elements that are not finite
  std::unique_ptr<double[]> sorted_;     // room to select from
  Summary token_outlier_, channel_outlier_, first_token_;
  SampleBatch token_samples_, channel_samples_, first_samples_;
};

}  // namespace ring2
#endif
