#include "measure.h"

#include "error.h"
#include "fold.h"
#include "kernels/slice.h"
#include "ring2_hooks.h"
#include "tensor_shape.h"
#include "track.h"

namespace ring2 {
namespace {

constexpr uint32_t kSliceAxesMax = sizeof(ring2_slice::dims) / sizeof(uint32_t);

int check_shape(const ring2_slice &slice) {
  if (dtype_bytes(slice.dtype) == 0) {
    return ring2_set_error(RING2_E_ARGUMENT, "dtype %u; expected one of ring2_dtype", slice.dtype);
  }
  if (slice.ndim < 1 || slice.ndim > kSliceAxesMax) {
    return ring2_set_error(RING2_E_ARGUMENT, "a slice of %u axes; expected 1 to %u", slice.ndim,
                           kSliceAxesMax);
  }
  const uint32_t last = slice.ndim - 1;
  bool empty = false;
  for (uint32_t axis = 0; axis < slice.ndim; ++axis) empty = empty || slice.dims[axis] == 0;
  if (!empty && slice.dims[last] > 1 && slice.strides[last] != 1) {
    return ring2_set_error(RING2_E_ARGUMENT, "a last axis of stride %llu; expected 1",
                           static_cast<unsigned long long>(slice.strides[last]));
  }
  if (slice.hook == RING2_HOOK_PATTERN && slice.ndim != 3 &&
      (slice.flags & RING2_SLICE_UNATTRIBUTED) == 0) {
    return ring2_set_error(RING2_E_HOOK, "a pattern of %u axes; expected heads, queries, keys",
                           slice.ndim);
  }
  if (slice.token_start < 0) {
    return ring2_set_error(RING2_E_ARGUMENT, "token_start %d; expected 0 or more",
                           slice.token_start);
  }
  return RING2_OK;
}

// Bytes from the first element to the end of the last; false when they do not fit in 64 bits.
bool extent_bytes(const ring2_slice &slice, uint64_t *extent) {
  uint64_t elements = 1;
  for (uint32_t axis = 0; axis < slice.ndim; ++axis) {
    if (slice.dims[axis] == 0) {
      *extent = 0;
      return true;
    }
    uint64_t reach;
    if (__builtin_mul_overflow(slice.dims[axis] - uint64_t{1}, slice.strides[axis], &reach) ||
        __builtin_add_overflow(elements, reach, &elements)) {
      return false;
    }
  }
  return !__builtin_mul_overflow(elements, uint64_t{dtype_bytes(slice.dtype)}, extent);
}

void clear_results(ring2_slice *slice) {
  slice->flags &= ~static_cast<uint32_t>(RING2_SLICE_HAS_CRC);
  slice->crc32c = 0;
  slice->elements = 0;
  slice->nan_count = slice->pos_inf_count = slice->neg_inf_count = 0;
  slice->invalid_rows = slice->skipped_rows = 0;
  slice->defined = 0;
  slice->top1_id = 0;
  for (double &stat : slice->stats) stat = 0;
}

void measure_values(const SliceContext &context) {
  const bool unattributed = (context.slice->flags & RING2_SLICE_UNATTRIBUTED) != 0;
  switch (context.slice->hook) {
    case RING2_HOOK_FINAL_LOGITS:
      measure_logits(context);
      return;
    case RING2_HOOK_PATTERN:
      // Without a STEP nobody knows how many keys a query sees.
      unattributed ? measure_counts(context) : measure_attention(context);
      return;
    case RING2_HOOK_ROUTER_LOGITS:
      measure_router_logits(context);
      return;
    case RING2_HOOK_TOPK_WEIGHTS:
      measure_expert_weights(context);
      return;
    default:
      measure_moments(context);
  }
}

void fold_slice_counts(ring2_fold *fold, const ring2_slice &slice) {
  ring2_counts counts{};
  counts.hook = slice.hook;
  counts.layer = slice.layer;
  counts.elements = slice.elements;
  counts.nan = slice.nan_count;
  counts.pos_inf = slice.pos_inf_count;
  counts.neg_inf = slice.neg_inf_count;
  counts.invalid_rows = slice.invalid_rows;
  counts.skipped_rows = slice.skipped_rows;
  counts.massive = static_cast<uint64_t>(slice.stats[RING2_STAT_MASSIVE_COUNT]);
  fold_counts(fold, counts);
}

}  // namespace

bool element_type_of(uint32_t dtype, ElementType *type) {
  switch (dtype) {
    case RING2_DTYPE_FLOAT32:
      *type = kFloat32;
      return true;
    case RING2_DTYPE_FLOAT16:
      *type = kFloat16;
      return true;
    case RING2_DTYPE_BFLOAT16:
      *type = kBfloat16;
      return true;
    case RING2_DTYPE_FLOAT64:
      *type = kFloat64;
      return true;
    default:
      return false;
  }
}

int measure_slice(const uint8_t *data, ring2_fold *fold, ring2_track *track, ring2_slice *slice) {
  const int checked = check_shape(*slice);
  if (checked != RING2_OK) return checked;
  clear_results(slice);
  slice->elements = 1;
  for (uint32_t axis = 0; axis < slice->ndim; ++axis) slice->elements *= slice->dims[axis];
  // Padding of a batch cannot be told from tokens without a STEP, so such values stay in the slice.
  const bool unattributed = (slice->flags & RING2_SLICE_UNATTRIBUTED) != 0;
  SliceContext context = {};
  context.data = data;
  context.slice = slice;
  context.fold = unattributed ? nullptr : fold;
  context.kernels = &selected_kernels();
  context.element_bytes = dtype_bytes(slice->dtype);
  context.wants_crc = slice->action == RING2_ACTION_TENSOR;
  const bool is_float = element_type_of(slice->dtype, &context.type);
  if (track != nullptr && !unattributed) context.row_lse = track_row_lse(track, *slice);
  if (slice->elements > 0 && is_float) {
    measure_values(context);
  } else if (slice->elements > 0 && context.wants_crc) {
    measure_bytes(context);
  }
  if (context.wants_crc) slice->flags |= RING2_SLICE_HAS_CRC;
  if (track != nullptr && !unattributed && slice->elements > 0) measure_track(context, track);
  if (fold != nullptr) fold_slice_counts(fold, *slice);
  return RING2_OK;
}

}  // namespace ring2

extern "C" RING2_API int ring2_measure_memory(const void *data, uint64_t data_bytes,
                                              ring2_fold *fold, ring2_track *track,
                                              ring2_slice *slice) {
  if (slice == nullptr || (data == nullptr && data_bytes > 0)) {
    return ring2_set_error(RING2_E_ARGUMENT, "a null slice, or null data of %llu bytes",
                           static_cast<unsigned long long>(data_bytes));
  }
  const int checked = ring2::check_shape(*slice);
  if (checked != RING2_OK) return checked;
  uint64_t extent;
  if (!ring2::extent_bytes(*slice, &extent) || extent > data_bytes) {
    return ring2_set_error(RING2_E_ARGUMENT, "dims and strides that reach past the %llu bytes",
                           static_cast<unsigned long long>(data_bytes));
  }
  return ring2::measure_slice(static_cast<const uint8_t *>(data), fold, track, slice);
}
