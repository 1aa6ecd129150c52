// What the drivers of the statistics share: a slice being measured, its walk over rows, and the
// checksum of each stretch of bytes just before a kernel reads them from the cache.
#ifndef RING2_KERNELS_SLICE_H
#define RING2_KERNELS_SLICE_H

#include <cstdint>

#include "../crc32c.h"
#include "../fold.h"
#include "kernels.h"
#include "ring2.h"

namespace ring2 {

struct SliceContext {
  const uint8_t *data;
  ring2_slice *slice;
  ring2_fold *fold;  // nullptr: values are not folded
  const Kernels *kernels;
  ElementType type;
  uint32_t element_bytes;
  bool wants_crc;
  double *row_lse;  // nullptr, or room for the log-sum-exp of every row of logits; NaN: it has none
};

inline void set_stat(ring2_slice *slice, ring2_stat stat, double value) {
  slice->stats[stat] = value;
  slice->defined |= uint64_t{1} << stat;
}

// Whether a group of statistics is wanted. A tensor without a STEP may hold padding and gets none.
inline bool wants_group(const SliceContext &context, ring2_group group) {
  return (context.slice->flags & RING2_SLICE_UNATTRIBUTED) == 0 &&
         (context.slice->groups & static_cast<uint32_t>(group)) != 0;
}

inline void add_to_crc(const SliceContext &context, const uint8_t *data, uint64_t bytes) {
  if (context.wants_crc) context.slice->crc32c = crc32c(data, bytes, context.slice->crc32c);
}

// Rows in order: outer axes, and one axis of equally spaced rows. With join_axes, neighbouring axes
// that are evenly spaced as one are walked as one.
struct RowWalk {
  uint64_t outer_dims[2];
  uint64_t outer_strides_bytes[2];
  uint64_t rows;
  uint64_t stride_bytes;
  uint64_t width;

  uint64_t outer_count() const { return outer_dims[0] * outer_dims[1]; }
  const uint8_t *outer(const uint8_t *data, uint64_t index) const {
    return data + index / outer_dims[1] * outer_strides_bytes[0] +
           index % outer_dims[1] * outer_strides_bytes[1];
  }
};

RowWalk walk_of(const ring2_slice &slice, uint32_t element_bytes, bool join_axes);

// Gathers samples of one signal and folds them in batches.
class SampleBatch {
 public:
  SampleBatch(const SliceContext &context, uint32_t signal)
      : fold_(context.fold),
        key_{signal, context.slice->hook, context.slice->layer, context.slice->phase},
        request_key_(context.slice->request_key),
        realtime_ns_(context.slice->captured_realtime_ns) {}

  void add(double value) {
    if (fold_ == nullptr) return;
    values_[count_++] = value;
    if (count_ == kSamples) flush();
  }

  void add(const double *values, uint32_t count) {
    if (count == 1) return add(*values);
    if (fold_ == nullptr) return;
    flush();
    fold_samples(fold_, key_, values, count, request_key_, realtime_ns_);
  }

  void flush() {
    if (fold_ != nullptr) {
      fold_samples(fold_, key_, values_, count_, request_key_, realtime_ns_);
    }
    count_ = 0;
  }

 private:
  static constexpr uint32_t kSamples = 512;
  ring2_fold *fold_;
  FoldKey key_;
  uint64_t request_key_, realtime_ns_;
  uint32_t count_ = 0;
  double values_[kSamples];
};

// One sample of a signal that a slice has once.
inline void fold_value(const SliceContext &context, uint32_t signal, double value) {
  if (context.fold == nullptr) return;
  const ring2_slice &slice = *context.slice;
  fold_samples(context.fold, {signal, slice.hook, slice.layer, slice.phase}, &value, 1,
               slice.request_key, slice.captured_realtime_ns);
}

// Mean, least and greatest of the values added.
struct Summary {
  double sum = 0, least = 0, most = 0;
  uint64_t count = 0;

  void add(double value) {
    least = count == 0 || value < least ? value : least;
    most = count == 0 || value > most ? value : most;
    sum += value;
    ++count;
  }
  void merge(const Summary &other) {
    if (other.count == 0) return;
    least = count == 0 || other.least < least ? other.least : least;
    most = count == 0 || other.most > most ? other.most : most;
    sum += other.sum;
    count += other.count;
  }
  double mean() const { return sum / static_cast<double>(count); }
};

// Moments of a whole slice, merged block by block (Chan, Golub and LeVeque; Pebay).
struct SliceMoments {
  uint64_t used = 0;
  double mean = 0, centred = 0, abs_max = 0;

  void merge(const MomentsBlock &block);
  void publish(ring2_slice *slice) const;
};

// L2 norms and RMS of rows.
class RowNorms {
 public:
  RowNorms(const SliceContext &context, bool folded)
      : folded_(folded), samples_(context, RING2_SIGNAL_L2_NORM) {}

  // Rows with sums of squares over `used` elements, which may be none. Returns how many had no
  // value: nothing used in them, or squares beyond float64.
  uint64_t add(const double *sum_squares, const uint32_t *used, uint64_t count);
  // The same for rows that all used `width` elements of a type narrower than float64.
  void add_whole(const double *sum_squares, uint64_t width, uint64_t count);
  void publish(ring2_slice *slice);

 private:
  bool folded_;
  SampleBatch samples_;
  Summary norm_, rms_;
};

void measure_bytes(const SliceContext &context);  // the checksum alone
void measure_moments(const SliceContext &context);
void measure_counts(const SliceContext &context);  // elements that are not finite, and no values
void measure_logits(const SliceContext &context);
void measure_attention(const SliceContext &context);
void measure_router_logits(const SliceContext &context);
void measure_expert_weights(const SliceContext &context);

}  // namespace ring2
#endif
