// Where a measured tensor lies, so that a later one can be compared with it. Nothing is copied out
// of the ring: a place is an address with the facts needed to tell whether it may still be read.
#ifndef RING2_TRACK_PLACE_H
#define RING2_TRACK_PLACE_H

#include <cstdint>

#include "kernels/slice.h"

namespace ring2 {

// Where places may be read. Bytes may have been released since they were noted, and a hostile
// producer may overwrite them at any time: what is read is data, and never an index without a
// check.
struct RingView {
  const uint8_t *payload = nullptr;  // nullptr: places are in the memory that the caller measures
  uint64_t payload_bytes = 0;
  uint64_t released = 0;  // a meta position: what is below may have been overwritten
};

// Rows of one or more elements. Dims and strides are private copies, checked when they were noted.
struct Place {
  const uint8_t *data = nullptr;  // nullptr: nothing is noted
  uint64_t position = 0;
  uint64_t stride_bytes = 0;  // from one row to the next
  uint64_t extent_bytes = 0;  // from data to the end of the last element
  int64_t step = 0;
  uint32_t dtype = 0, rows = 0, width = 0;
  int32_t layer = 0, token_start = 0, token_end = 0;
  uint16_t ranks[4] = {};

  const uint8_t *row(uint64_t index) const { return data + index * stride_bytes; }
};

// The slice being measured: [rows, width], or [rows] of width 1. Other shapes, and such whose rows
// are not the tokens of the slice's range, have no place.
Place place_of(const SliceContext &context);

// Whether its bytes are still those that were noted, and inside the ring.
bool readable(const RingView &ring, const Place &place);

// One step, and the same tokens, shape and ranks.
bool same_tokens(const Place &a, const Place &b);

// The last of its rows alone.
Place last_row(const Place &place);

// An integer element; false when the dtype is none.
bool integer_at(const uint8_t *at, uint32_t dtype, int64_t *value);

}  // namespace ring2
#endif
