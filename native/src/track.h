// What the statistics over several tensors of a request remember: the layer before, token histories,
// windows of decode steps, expert loads. ring2_track in ring2.h.
//
// A track has one owner and no locks, and its memory is bounded. It remembers where in the ring an
// earlier tensor lies and never copies one: what has been released since is not read again, and the
// statistic that needed it has no value.
#ifndef RING2_TRACK_H
#define RING2_TRACK_H

#include <cstdint>

#include "kernels/slice.h"
#include "ring2.h"

namespace ring2 {

// Meta position below which the ring's records may have been overwritten.
void track_set_released(ring2_track *track, uint64_t position);
// Adds a measured slice, and sets the statistics that it completes.
void measure_track(const SliceContext &context, ring2_track *track);

}  // namespace ring2
#endif
