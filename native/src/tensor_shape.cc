#include "tensor_shape.h"

#include <cstring>

namespace ring2 {

namespace {

template <typename Word>
void copy_run(const uint8_t *source, uint64_t stride, uint64_t count, uint8_t *target) {
  for (uint64_t i = 0; i < count; ++i) {
    Word word;
    std::memcpy(&word, source + i * stride * sizeof(Word), sizeof word);
    std::memcpy(target + i * sizeof(Word), &word, sizeof word);
  }
}

void copy_axis(const uint8_t *source, uint64_t stride, uint64_t count, uint32_t element_bytes,
               uint8_t *target) {
  if (stride == 1 || count == 1) {
    std::memcpy(target, source, count * element_bytes);
    return;
  }
  switch (element_bytes) {
    case 8:
      return copy_run<uint64_t>(source, stride, count, target);
    case 4:
      return copy_run<uint32_t>(source, stride, count, target);
    case 2:
      return copy_run<uint16_t>(source, stride, count, target);
    default:
      return copy_run<uint8_t>(source, stride, count, target);
  }
}

}  // namespace

void gather(const uint8_t *source, const uint64_t *dims, const uint64_t *strides, uint32_t ndim,
            uint32_t element_bytes, uint8_t *target) {
  uint64_t run[RING2_DIMS_MAX];
  uint64_t step[RING2_DIMS_MAX];
  uint32_t axes = 0;
  // Merges neighbouring axes that one stride walks through, so that runs are as long as they can be.
  for (uint32_t axis = 0; axis < ndim; ++axis) {
    if (dims[axis] == 0) return;
    if (dims[axis] == 1) continue;
    if (axes > 0 && step[axes - 1] == strides[axis] * dims[axis]) {
      run[axes - 1] *= dims[axis];
      step[axes - 1] = strides[axis];
    } else {
      run[axes] = dims[axis];
      step[axes] = strides[axis];
      ++axes;
    }
  }
  if (axes == 0) {
    std::memcpy(target, source, element_bytes);
    return;
  }
  const uint32_t inner = axes - 1;
  uint64_t index[RING2_DIMS_MAX] = {};
  while (true) {
    uint64_t offset = 0;
    for (uint32_t axis = 0; axis < inner; ++axis) offset += index[axis] * step[axis];
    copy_axis(source + offset * element_bytes, step[inner], run[inner], element_bytes, target);
    target += run[inner] * element_bytes;
    uint32_t axis = inner;
    while (axis > 0 && ++index[axis - 1] == run[axis - 1]) index[--axis] = 0;
    if (axis == 0) return;
  }
}

}  // namespace ring2
