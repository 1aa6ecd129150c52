// What a record and a slice must satisfy before they are used. Pure: facts in, verdict out.
#ifndef RING2_VALIDATE_H
#define RING2_VALIDATE_H

#include <cstdint>

#include "ring2.h"

namespace ring2 {

// Whether the body of a record that is no tensor and no step has a possible length.
bool body_is_valid(const ring2_descriptor &record);

// Whether hook, layer, dtype, shape and length of a tensor record agree with each other.
bool tensor_is_valid(const ring2_descriptor &record);

// Whether every element of a slice lies in a payload ring of this size. A slice goes through the
// caller's hands between drain and measure, so it is checked again.
bool slice_is_inside(const ring2_slice &slice, uint64_t capacity);

}  // namespace ring2
#endif
