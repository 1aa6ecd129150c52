#include "track.h"

#include <sys/random.h>

#include <new>

#include "error.h"
#include "ring2_hooks.h"
#include "track_state.h"

namespace ring2 {
namespace {

// Groups whose statistics a hook takes part in here.
uint32_t groups_of(uint32_t hook) {
  switch (hook) {
    case RING2_HOOK_TOKEN_IDS:
    case RING2_HOOK_FINAL_LOGITS:
      return RING2_GROUP_SEQUENCE;
    case RING2_HOOK_RESID_PRE:
    case RING2_HOOK_RESID_FINAL:
      return RING2_GROUP_LAYERS | RING2_GROUP_REPRESENTATION;
    case RING2_HOOK_RESID_MID:
    case RING2_HOOK_ATTN_OUT:
    case RING2_HOOK_MLP_OUT:
      return RING2_GROUP_LAYERS;
    case RING2_HOOK_ROUTER_LOGITS:
    case RING2_HOOK_TOPK_IDS:
      return RING2_GROUP_ROUTER;
    default:
      return 0;
  }
}

void measure(const SliceContext &context, uint32_t groups, ring2_track *track) {
  ++track->slices;
  if ((groups & RING2_GROUP_ROUTER) != 0) return track_experts(context, &track->experts);
  TrackedRequest &request = tracked_request(track, context.slice->request_key);
  if ((groups & RING2_GROUP_SEQUENCE) != 0) return track_sequence(context, track, &request);
  track_stream(context, track, &request);
}

}  // namespace

void track_set_ring(ring2_track *track, const uint8_t *payload, uint64_t payload_bytes,
                    uint64_t released) {
  track->ring = {payload, payload_bytes, released};
}

double *track_row_lse(ring2_track *track, const ring2_slice &slice) {
  if (slice.hook != RING2_HOOK_FINAL_LOGITS || (slice.groups & RING2_GROUP_SEQUENCE) == 0) {
    return nullptr;
  }
  if (slice.ndim != 2 || slice.dims[0] > kTrackLogitsRowsMax) return nullptr;
  try {
    track->row_lse.resize(slice.dims[0]);
  } catch (const std::bad_alloc &) {
    return nullptr;
  }
  return track->row_lse.data();
}

void measure_track(const SliceContext &context, ring2_track *track) {
  const uint32_t groups = groups_of(context.slice->hook) & context.slice->groups;
  if (groups == 0) return;
  try {
    measure(context, groups, track);
  } catch (const std::bad_alloc &) {
    // What is remembered is the only memory to give back; the statistics begin anew.
    forget_everything(track);
  }
}

}  // namespace ring2

extern "C" {

RING2_API int ring2_track_create(ring2_track **out) {
  if (out == nullptr) return ring2_set_error(RING2_E_ARGUMENT, "a null place for the track");
  *out = new (std::nothrow) ring2_track;
  if (*out == nullptr) return ring2_set_error(RING2_E_MEMORY, "an empty track");
  // Tokens are chosen by strangers: with a hash they know they could make a set slow.
  if (getrandom(&(*out)->hash_seed, sizeof (*out)->hash_seed, GRND_NONBLOCK) < 0) {
    (*out)->hash_seed = reinterpret_cast<uintptr_t>(*out);
  }
  return RING2_OK;
}

RING2_API int ring2_track_destroy(ring2_track *track) {
  delete track;
  return RING2_OK;
}

RING2_API int ring2_track_end(ring2_track *track, uint64_t request_key) {
  if (track == nullptr) return ring2_set_error(RING2_E_ARGUMENT, "a null track");
  ring2::forget_request(track, request_key);
  return RING2_OK;
}

}  // extern "C"
