#include "track.h"

#include <new>

#include "error.h"

struct ring2_track {
  uint64_t released = 0;
};

namespace ring2 {

void track_set_released(ring2_track *track, uint64_t position) { track->released = position; }

void measure_track(const SliceContext &, ring2_track *) {}

}  // namespace ring2

extern "C" {

RING2_API int ring2_track_create(ring2_track **out) {
  if (out == nullptr) return ring2_set_error(RING2_E_ARGUMENT, "a null place for the track");
  *out = new (std::nothrow) ring2_track;
  return *out != nullptr ? RING2_OK : ring2_set_error(RING2_E_MEMORY, "an empty track");
}

RING2_API int ring2_track_destroy(ring2_track *track) {
  delete track;
  return RING2_OK;
}

RING2_API int ring2_track_end(ring2_track *track, uint64_t) {
  if (track == nullptr) return ring2_set_error(RING2_E_ARGUMENT, "a null track");
  return RING2_OK;
}

}  // extern "C"
