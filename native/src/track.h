// What the statistics over several tensors of a request remember: the layer before, token
// histories, windows of decode steps, expert loads. ring2_track in ring2.h.
//
// A track has one owner and no locks, and its memory is bounded (track_state.h). It remembers where
// an earlier tensor lies and never copies one: what has been released since is not read again, and
// the statistic that needed it has no value.
#ifndef RING2_TRACK_H
#define RING2_TRACK_H

#include <cstdint>

#include "kernels/slice.h"
#include "ring2.h"

namespace ring2 {

// Where earlier tensors may be read: in this payload ring, at `released` (a meta position) and
// above. Without a call of it, in the memory that ring2_measure_memory was given.
void track_set_ring(ring2_track *track, const uint8_t *payload, uint64_t payload_bytes,
                    uint64_t released);

// Where measure_logits leaves the log-sum-exp of each row of this slice: measure_track needs them.
// nullptr: of this slice none are needed.
double *track_row_lse(ring2_track *track, const ring2_slice &slice);

// Adds a measured slice, and sets and folds the statistics that it completes.
void measure_track(const SliceContext &context, ring2_track *track);

}  // namespace ring2
#endif
