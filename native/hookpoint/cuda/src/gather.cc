// Plans the gather of a strided tensor: see gather.h.
#include "gather.h"

#include <cstdint>
#include <limits>

using namespace ring2_cuda_shared;

namespace {

struct Axis {
  uint64_t length;
  int64_t stride;  // in elements
};

// Neighbouring axes that lie in memory as one are one. Axes of length 1 are none.
uint32_t merge(const ring2_tensor &tensor, Axis *axes) {
  uint32_t count = 0;
  for (uint32_t axis = 0; axis < tensor.ndim; ++axis) {
    const Axis next = {static_cast<uint64_t>(tensor.dims[axis]), tensor.strides[axis]};
    if (next.length == 1) continue;
    Axis *last = count > 0 ? &axes[count - 1] : nullptr;
    if (last != nullptr && last->stride == static_cast<int64_t>(next.length) * next.stride) {
      *last = {last->length * next.length, next.stride};
    } else {
      axes[count++] = next;
    }
  }
  if (count == 0) axes[count++] = {1, 1};
  return count;
}

// Whether `width` bytes can be read at once wherever the gather reads.
bool fits(uint32_t width, uint32_t element, const Axis *axes, uint32_t count, const void *data,
          uint64_t row_bytes) {
  if (reinterpret_cast<uintptr_t>(data) % width != 0 || row_bytes % width != 0) return false;
  const Axis &inner = axes[count - 1];
  if (inner.stride != 1 || inner.length * element % width != 0) return false;
  for (uint32_t axis = 0; axis + 1 < count; ++axis) {
    if (static_cast<uint64_t>(axes[axis].stride) * element % width != 0) return false;
  }
  return true;
}

}  // namespace

bool plan_gather(const ring2_tensor &tensor, const void *data, bool rows, CudaCall *call) {
  const uint32_t element = ring2_dtype_bytes(tensor.dtype);
  if (element == 0 || tensor.ndim == 0 || tensor.ndim > kDims) return false;
  uint64_t bytes = element;
  for (uint32_t axis = 0; axis < tensor.ndim; ++axis) {
    const int64_t length = tensor.dims[axis];
    if (length < 0 || length > INT32_MAX || tensor.strides[axis] < 0) return false;
    if (length > 0 && bytes > std::numeric_limits<int64_t>::max() / static_cast<uint64_t>(length)) {
      return false;
    }
    bytes *= static_cast<uint64_t>(length);
    call->dims[axis] = static_cast<uint32_t>(length);
  }
  call->ndim = static_cast<uint8_t>(tensor.ndim);
  call->dtype = static_cast<uint8_t>(tensor.dtype);
  call->bytes = bytes;
  call->row_bytes = tensor.dims[0] > 0 ? bytes / static_cast<uint64_t>(tensor.dims[0]) : 0;
  call->row_stride = static_cast<uint64_t>(tensor.strides[0]) * element;

  Axis axes[kDims];
  const uint32_t count = merge(tensor, axes);
  uint32_t width = element;
  for (uint32_t wider = 16; wider > element; wider /= 2) {
    if (fits(wider, element, axes, count, data, rows ? call->row_bytes : 0)) {
      width = wider;
      break;
    }
  }
  const uint64_t ratio = width / element;
  call->width = width;
  call->axes = count;
  for (uint32_t axis = 0; axis < count; ++axis) {
    const bool inner = axis + 1 == count;
    call->axis_length[axis] = inner ? axes[axis].length / ratio : axes[axis].length;
    call->axis_stride[axis] =
        inner && axes[axis].stride == 1 ? 1 : axes[axis].stride / static_cast<int64_t>(ratio);
  }
  call->axis_lengths_fit32 = bytes / width <= UINT32_MAX ? 1 : 0;
  return true;
}
