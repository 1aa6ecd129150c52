// Element counts, sizes and strides of row-major tensors, with overflow checks. Pure functions.
#ifndef RING2_TENSOR_SHAPE_H
#define RING2_TENSOR_SHAPE_H

#include <cstdint>

#include "ring2.h"

namespace ring2 {

constexpr uint32_t dtype_bytes(uint32_t dtype) {
  switch (dtype) {
    case RING2_DTYPE_FLOAT64:
    case RING2_DTYPE_INT64:
      return 8;
    case RING2_DTYPE_FLOAT32:
    case RING2_DTYPE_INT32:
      return 4;
    case RING2_DTYPE_FLOAT16:
    case RING2_DTYPE_BFLOAT16:
    case RING2_DTYPE_INT16:
      return 2;
    case RING2_DTYPE_INT8:
    case RING2_DTYPE_UINT8:
    case RING2_DTYPE_BOOL:
      return 1;
    default:
      return 0;
  }
}

// Bytes of a dense tensor; false when the product does not fit in 63 bits.
template <typename Dim>
bool dense_bytes(const Dim *dims, uint32_t ndim, uint32_t dtype, uint64_t *bytes) {
  uint64_t product = dtype_bytes(dtype);
  if (product == 0) return false;
  for (uint32_t axis = 0; axis < ndim; ++axis) {
    if (__builtin_mul_overflow(product, static_cast<uint64_t>(dims[axis]), &product)) return false;
    if (product > INT64_MAX) return false;
  }
  *bytes = product;
  return true;
}

// Axes of length 1 may have any stride.
template <typename Dim, typename Stride>
bool is_dense(const Dim *dims, const Stride *strides, uint32_t ndim) {
  uint64_t expected = 1;
  for (uint32_t axis = ndim; axis-- > 0;) {
    if (dims[axis] == 0) return true;
    if (dims[axis] != 1 && static_cast<uint64_t>(strides[axis]) != expected) return false;
    expected *= static_cast<uint64_t>(dims[axis]);
  }
  return true;
}

// Gathers a strided tensor into dense row-major bytes. Strides are in elements and not negative.
void gather(const uint8_t *source, const uint64_t *dims, const uint64_t *strides, uint32_t ndim,
            uint32_t element_bytes, uint8_t *target);

}  // namespace ring2
#endif
