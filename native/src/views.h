// Shared by the kernels of views: the check of what they are given.
#ifndef RING2_VIEWS_H
#define RING2_VIEWS_H

#include "kernels/kernels.h"
#include "ring2.h"

namespace ring2 {

// RING2_OK when data_bytes is what the dense axes of a floating-point dtype take.
int view_type(const void *data, uint64_t data_bytes, uint32_t dtype, const uint64_t *dims,
              uint32_t axes, ElementType *type);

}  // namespace ring2
#endif
