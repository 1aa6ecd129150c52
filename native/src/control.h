// The control words of a segment: written by the consumer, read by the producer, both whole.
#ifndef RING2_CONTROL_H
#define RING2_CONTROL_H

#include "ring2.h"

namespace ring2 {

// How often a reader looks again while the words are being written. A writer needs less than a
// microsecond, so that a reader which still fails has met a writer that died or was stopped.
inline constexpr int kControlAttempts = 64;

// Everything is wanted, as a producer creates it.
void create_control(ring2_header *header);
// False when no consistent copy could be had.
bool read_control(const ring2_header &header, ring2_control *out);
// Writes the words under a new sequence if they differ; returns the sequence they stand under.
uint32_t write_control(ring2_header *header, const ring2_control &control);

}  // namespace ring2
#endif
