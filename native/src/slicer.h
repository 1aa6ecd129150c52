// Cuts one validated tensor record into the parts of its requests. Pure: descriptor and step in,
// slices out; reads no payload.
#ifndef RING2_SLICER_H
#define RING2_SLICER_H

#include "ring2.h"
#include "step_table.h"

namespace ring2 {

// Fills one slice per request that has rows in this tensor, at most step.rows.size(). Fields that do
// not depend on the request (position, dtype, ranks, time) are taken from `base`. Returns the number
// of slices, or -1 when the shape does not fit the hook or the step.
int cut(const ring2_descriptor &record, const Step &step, const ring2_slice &base,
        ring2_slice *slices);

// The whole tensor as one slice, for a record whose step is not known.
bool whole(const ring2_descriptor &record, ring2_slice *slice);

}  // namespace ring2
#endif
