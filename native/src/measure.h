// Measures one slice: which statistics its hook gets, and how the bytes are described.
#ifndef RING2_MEASURE_H
#define RING2_MEASURE_H

#include <cstdint>

#include "kernels/kernels.h"
#include "ring2.h"

namespace ring2 {

// Fills the slice's results from `data`, which its dims and strides describe, and folds them when
// fold is not null; statistics over several tensors need a track; with RING2_ACTION_TENSOR also
// crc32c. One pass over the bytes; nothing outside
// the slice's elements is read. The caller has checked that they lie in its memory.
// Returns RING2_OK, RING2_E_ARGUMENT for a slice that is no tensor of 1 to 4 axes with a dense last
// axis, or RING2_E_HOOK for an attention pattern without exactly 3.
int measure_slice(const uint8_t *data, ring2_fold *fold, ring2_track *track, ring2_slice *slice);

// False for a dtype that no kernel reads: integers and booleans.
bool element_type_of(uint32_t dtype, ElementType *type);

}  // namespace ring2
#endif
