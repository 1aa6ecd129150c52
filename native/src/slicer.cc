#include "slicer.h"

#include <algorithm>

#include "ring2_hooks.h"
#include "tensor_shape.h"

namespace ring2 {

namespace {

constexpr uint32_t kSliceDimsMax = 4;

// Dense strides of a record, in elements.
void dense_strides(const ring2_descriptor &record, uint64_t *strides) {
  uint64_t stride = 1;
  for (uint32_t axis = record.ndim; axis-- > 0;) {
    strides[axis] = stride;
    stride *= record.dims[axis];
  }
}

// Completes a slice whose dims and strides are set and which starts `first` elements into the record.
void finish(const ring2_descriptor &record, uint64_t first, ring2_slice *slice) {
  const uint64_t element_bytes = dtype_bytes(record.dtype);
  slice->payload_offset += first * element_bytes;
  slice->elements = 1;
  for (uint32_t axis = 0; axis < slice->ndim; ++axis) slice->elements *= slice->dims[axis];
  slice->payload_bytes = slice->elements * element_bytes;
  if (is_dense(slice->dims, slice->strides, slice->ndim)) slice->flags |= RING2_SLICE_CONTIGUOUS;
}

void identify(const ring2_step_row &row, const ring2_slice &base, ring2_slice *slice) {
  *slice = base;
  slice->request_key = row.request_key;
  slice->phase = row.phase;
  slice->token_start = row.token_start;
  slice->token_end = row.token_end;
  slice->kv_offset = row.kv_offset;
}

struct Cutter {
  const ring2_descriptor &record;
  const Step &step;
  const ring2_slice &base;
  uint64_t strides[RING2_DIMS_MAX];
  uint32_t batch_axes;  // 1 when the record has a batch axis

  // Drops the batch axis and copies the rest of the shape.
  bool shape(ring2_slice *slice) const {
    slice->ndim = record.ndim - batch_axes;
    if (slice->ndim == 0 || slice->ndim > kSliceDimsMax) return false;
    for (uint32_t axis = 0; axis < slice->ndim; ++axis) {
      slice->dims[axis] = record.dims[axis + batch_axes];
      slice->strides[axis] = strides[axis + batch_axes];
    }
    return true;
  }

  uint64_t batch_start(const ring2_step_row &row) const {
    return batch_axes == 0 ? 0 : static_cast<uint64_t>(row.index) * strides[0];
  }

  bool fits_batch(const ring2_step_row &row) const {
    return batch_axes == 0 || static_cast<uint32_t>(row.index) < record.dims[0];
  }

  // [batch?, tokens, width…]
  int token(const ring2_step_row &row, ring2_slice *slice) const {
    if (record.dims[batch_axes] != step.columns || !shape(slice)) return -1;
    slice->dims[0] = static_cast<uint32_t>(row.token_end - row.token_start);
    finish(record, batch_start(row) + static_cast<uint64_t>(row.row_offset) * slice->strides[0],
           slice);
    return 1;
  }

  // [batch, heads, queries, keys]: a request's keys start at its left padding and end at its last
  // token, whatever the physical size of the cache.
  int attention(const ring2_step_row &row, ring2_slice *slice) const {
    if (batch_axes == 0 || record.ndim != 4 || record.dims[2] != step.columns) return -1;
    if (!shape(slice)) return -1;
    const uint32_t keys = record.dims[3];
    if (static_cast<uint32_t>(row.kv_offset) > keys) return -1;
    slice->dims[1] = static_cast<uint32_t>(row.token_end - row.token_start);
    slice->dims[2] = std::min(keys - static_cast<uint32_t>(row.kv_offset),
                              static_cast<uint32_t>(row.token_end));
    const uint64_t first = static_cast<uint64_t>(row.row_offset) * slice->strides[1] +
                           static_cast<uint64_t>(row.kv_offset);
    finish(record, batch_start(row) + first, slice);
    return 1;
  }

  // [batch, rows, vocabulary]: the rows are the last columns of the step, of which a request owns
  // those that fall into its own columns. Packed: one row per request, in order.
  int request(const ring2_step_row &row, ring2_slice *slice) const {
    if (record.ndim != 2 + batch_axes || !shape(slice)) return -1;
    const int64_t rows = record.dims[batch_axes];
    if (batch_axes == 0) {
      if (row.index >= rows) return -1;
      slice->dims[0] = 1;
      slice->token_start = std::max(row.token_end - 1, 0);
      finish(record, static_cast<uint64_t>(row.index) * slice->strides[0], slice);
      return 1;
    }
    if (rows > step.columns) return -1;
    const int64_t skipped = int64_t{step.columns} - rows;
    const int64_t owned_end = int64_t{row.row_offset} + row.token_end - row.token_start;
    const int64_t first = std::max<int64_t>(row.row_offset, skipped);
    if (first >= owned_end) return 0;
    slice->dims[0] = static_cast<uint32_t>(owned_end - first);
    slice->token_start = row.token_start + static_cast<int32_t>(first - row.row_offset);
    finish(record, batch_start(row) + static_cast<uint64_t>(first - skipped) * slice->strides[0],
           slice);
    return 1;
  }

  int one(const ring2_step_row &row, ring2_slice *slice) const {
    identify(row, base, slice);
    if (step.extra) slice->flags |= RING2_SLICE_EXTRA;
    if (!fits_batch(row)) return -1;
    switch (ring2_hook_facts[record.hook].shape) {
      case RING2_SHAPE_ATTENTION:
        return attention(row, slice);
      case RING2_SHAPE_REQUEST:
        return request(row, slice);
      default:
        return token(row, slice);
    }
  }
};

}  // namespace

int cut(const ring2_descriptor &record, const Step &step, const ring2_slice &base,
        ring2_slice *slices) {
  Cutter cutter{record, step, base, {}, step.layout == RING2_STEP_BATCHED ? 1u : 0u};
  dense_strides(record, cutter.strides);
  if (record.ndim <= cutter.batch_axes) return -1;
  int count = 0;
  for (const ring2_step_row &row : step.rows) {
    if (row.token_end == row.token_start) continue;
    const int cut_rows = cutter.one(row, &slices[count]);
    if (cut_rows < 0) return -1;
    count += cut_rows;
  }
  for (int i = 0; i < count; ++i) {
    slices[i].record_slices = static_cast<uint32_t>(count);
    slices[i].slice_index = static_cast<uint32_t>(i);
  }
  return count;
}

bool whole(const ring2_descriptor &record, ring2_slice *slice) {
  uint64_t strides[RING2_DIMS_MAX];
  dense_strides(record, strides);
  // Leading axes beyond what a slice holds are merged into one: nothing is known of their meaning.
  const uint32_t merged = record.ndim > kSliceDimsMax ? record.ndim - kSliceDimsMax : 0;
  slice->ndim = record.ndim - merged;
  uint64_t leading = 1;
  for (uint32_t axis = 0; axis <= merged; ++axis) leading *= record.dims[axis];
  if (leading > UINT32_MAX) return false;
  slice->dims[0] = static_cast<uint32_t>(leading);
  for (uint32_t axis = 0; axis < slice->ndim; ++axis) {
    if (axis > 0) slice->dims[axis] = record.dims[axis + merged];
    slice->strides[axis] = strides[axis + merged];
  }
  slice->flags |= RING2_SLICE_UNATTRIBUTED;
  slice->record_slices = 1;
  finish(record, 0, slice);
  return true;
}

}  // namespace ring2
