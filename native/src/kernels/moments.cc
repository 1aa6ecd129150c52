// Moments and row norms of a slice: any float hook.
#include <cmath>
#include <limits>

#include "key_value.h"
#include "moments_run.h"
#include "outliers.h"
#include "ring2_hooks.h"

namespace ring2 {
namespace {

constexpr double kLargest = std::numeric_limits<double>::max();

constexpr uint32_t kOutlierHooks = 1u << RING2_HOOK_RESID_PRE | 1u << RING2_HOOK_RESID_MID |
                                   1u << RING2_HOOK_RESID_FINAL | 1u << RING2_HOOK_EMBED |
                                   1u << RING2_HOOK_ATTN_OUT | 1u << RING2_HOOK_MLP_OUT;

bool has_outliers(const SliceContext &context) {
  const uint32_t hook = context.slice->hook;
  return hook < 32 && (kOutlierHooks >> hook & 1) != 0 &&
         wants_group(context, RING2_GROUP_OUTLIERS);
}

template <typename Viewer>
void measure_for(const SliceContext &context, Viewer *viewer) {
  const RowWalk walk = walk_of(*context.slice, context.element_bytes, true);
  MomentsRun<Viewer> run(context, context.slice->hook != RING2_HOOK_ATTN_SCORES, *viewer);
  run.run(walk);
  run.moments.publish(context.slice);
  run.norms.publish(context.slice);
  viewer->publish(walk, run.moments);
}

}  // namespace

// Masked attention scores are -Inf or near the type's lowest number, sometimes both in one row (the
// mask is added in the type itself): at half of it and below, a score counts as masked.
double masked_at(const SliceContext &context) {
  const bool masked = context.slice->hook == RING2_HOOK_ATTN_SCORES;
  if (!masked) return -std::numeric_limits<double>::infinity();
  switch (context.type) {
    case kFloat16:
      return -65504.0 / 2;
    case kBfloat16:
      return -0x1.fep127 / 2;
    case kFloat64:
      return std::numeric_limits<double>::lowest() / 2;
    default:
      return static_cast<double>(std::numeric_limits<float>::lowest()) / 2;
  }
}

RowWalk walk_of(const ring2_slice &slice, uint32_t element_bytes, bool join_axes) {
  const uint32_t last = slice.ndim - 1;
  RowWalk walk = {{1, 1}, {0, 0}, 1, 0, slice.dims[last]};
  walk.stride_bytes = walk.width * element_bytes;
  if (slice.ndim == 1) return walk;
  uint32_t axis = last - 1;
  walk.rows = slice.dims[axis];
  walk.stride_bytes = slice.strides[axis] * element_bytes;
  while (join_axes && axis > 0 &&
         slice.strides[axis - 1] * element_bytes == walk.rows * walk.stride_bytes) {
    walk.rows *= slice.dims[--axis];
  }
  for (uint32_t slot = 2; axis > 0 && slot > 0;) {
    --axis;
    --slot;
    walk.outer_dims[slot] = slice.dims[axis];
    walk.outer_strides_bytes[slot] = slice.strides[axis] * element_bytes;
  }
  return walk;
}

void SliceMoments::merge(const MomentsBlock &block) {
  if (block.used == 0) return;
  const double added = static_cast<double>(block.used);
  const double before = static_cast<double>(used);
  const double total = before + added;
  const double difference = block.sum / added - mean;
  mean += difference * (added / total);
  centred += block.centred + difference * difference * (before * added / total);
  used += block.used;
  abs_max = std::fmax(abs_max, block.abs_max);
}

void SliceMoments::publish(ring2_slice *slice) const {
  if (used == 0) return;
  set_stat(slice, RING2_STAT_ABS_MAX, abs_max);
  const double variance = centred / static_cast<double>(used);
  if (!std::isfinite(mean) || !std::isfinite(variance)) return;
  set_stat(slice, RING2_STAT_MEAN, mean);
  set_stat(slice, RING2_STAT_VARIANCE, variance);
}

uint64_t RowNorms::add(const double *sum_squares, const uint32_t *used, uint64_t count) {
  uint64_t without_value = 0;
  for (uint64_t row = 0; row < count; ++row) {
    if (used[row] == 0 || !(sum_squares[row] <= kLargest)) {
      ++without_value;
      continue;
    }
    add_whole(sum_squares + row, used[row], 1);
  }
  return without_value;
}

void RowNorms::add_whole(const double *sum_squares, uint64_t width, uint64_t count) {
  double norms[kBlockRowsMax];
  double sum = 0, least = kLargest, most = 0;
  for (uint64_t row = 0; row < count; ++row) {
    const double norm = std::sqrt(sum_squares[row]);
    norms[row] = norm;
    sum += norm;
    least = norm < least ? norm : least;
    most = norm > most ? norm : most;
  }
  const double per_root = 1 / std::sqrt(static_cast<double>(width));
  norm_.merge({sum, least, most, count});
  rms_.merge({sum * per_root, least * per_root, most * per_root, count});
  if (folded_) samples_.add(norms, static_cast<uint32_t>(count));
}

void RowNorms::publish(ring2_slice *slice) {
  samples_.flush();
  if (norm_.count == 0) return;
  set_stat(slice, RING2_STAT_L2_MEAN, norm_.mean());
  set_stat(slice, RING2_STAT_L2_MAX, norm_.most);
  set_stat(slice, RING2_STAT_RMS_MEAN, rms_.mean());
  set_stat(slice, RING2_STAT_RMS_MAX, rms_.most);
}

void measure_bytes(const SliceContext &context) {
  const RowWalk walk = walk_of(*context.slice, context.element_bytes, true);
  const uint64_t row_bytes = walk.width * context.element_bytes;
  for (uint64_t outer = 0; outer < walk.outer_count(); ++outer) {
    const uint8_t *data = walk.outer(context.data, outer);
    if (walk.stride_bytes == row_bytes) {
      add_to_crc(context, data, walk.rows * row_bytes);
      continue;
    }
    for (uint64_t row = 0; row < walk.rows; ++row) {
      add_to_crc(context, data + row * walk.stride_bytes, row_bytes);
    }
  }
}

void measure_moments(const SliceContext &context) {
  if (has_outliers(context)) {
    OutlierRows outliers(context);
    measure_for(context, &outliers);
  } else if (has_key_value(context)) {
    KeyValueRows rows(context);
    measure_for(context, &rows);
  } else {
    NobodyElse nobody;
    measure_for(context, &nobody);
  }
}

void measure_counts(const SliceContext &context) {
  NobodyElse nobody;
  MomentsRun<NobodyElse> run(context, false, nobody);
  run.run(walk_of(*context.slice, context.element_bytes, true));
}

}  // namespace ring2
