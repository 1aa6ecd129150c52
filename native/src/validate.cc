#include "validate.h"

#include "ring2_hooks.h"
#include "tensor_shape.h"

namespace ring2 {

bool body_is_valid(const ring2_descriptor &record) {
  switch (record.kind) {
    case RING2_KIND_MODEL:
    case RING2_KIND_REQUEST:
    case RING2_KIND_REQUEST_END:
    case RING2_KIND_PROFILE:
    case RING2_KIND_VOCABULARY:
      return record.payload_bytes > 0 && record.payload_bytes <= RING2_BODY_BYTES_MAX;
    case RING2_KIND_GAP:
      return record.payload_bytes == sizeof(ring2_gap);
    default:
      return true;
  }
}

bool tensor_is_valid(const ring2_descriptor &record) {
  if (record.hook >= RING2_HOOKS_MAX || ring2_hook_facts[record.hook].name == nullptr) return false;
  if (record.layer < -1 || record.layer >= static_cast<int32_t>(RING2_LAYERS_MAX)) return false;
  if (record.ndim == 0 || record.ndim > RING2_DIMS_MAX) return false;
  uint64_t bytes = 0;
  return dense_bytes(record.dims, record.ndim, record.dtype, &bytes) &&
         bytes == record.payload_bytes;
}

bool slice_is_inside(const ring2_slice &slice, uint64_t capacity) {
  const uint64_t element_bytes = dtype_bytes(slice.dtype);
  if (slice.kind != RING2_KIND_TENSOR || element_bytes == 0) return false;
  if (slice.ndim == 0 || slice.ndim > 4) return false;
  uint64_t last = 0;
  uint64_t count = 1;
  for (uint32_t axis = 0; axis < slice.ndim; ++axis) {
    if (slice.dims[axis] == 0) return slice.elements == 0;
    uint64_t reach;
    if (__builtin_mul_overflow(uint64_t{slice.dims[axis]} - 1, slice.strides[axis], &reach)) return false;
    if (__builtin_add_overflow(last, reach, &last)) return false;
    if (__builtin_mul_overflow(count, uint64_t{slice.dims[axis]}, &count)) return false;
  }
  if (slice.elements != count || slice.payload_offset > capacity) return false;
  if (slice.strides[slice.ndim - 1] != 1 && slice.dims[slice.ndim - 1] != 1) return false;
  return last < (capacity - slice.payload_offset) / element_bytes;
}

}  // namespace ring2
