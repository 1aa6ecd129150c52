// The state of a track and its bounds, for the track_*.cc files: the table of requests and what
// each of them holds. No statistic is computed here.
#ifndef RING2_TRACK_STATE_H
#define RING2_TRACK_STATE_H

#include <cstdint>
#include <list>
#include <unordered_map>
#include <vector>

#include "ring2.h"
#include "track_experts.h"
#include "track_place.h"
#include "track_representation.h"
#include "track_sequence.h"

namespace ring2 {

// Requests that are remembered; of more, the least recently used is forgotten.
constexpr uint32_t kTrackRequestsMax = 16384;
// Of all requests' token histories; beyond it the least recently used request is forgotten.
constexpr uint64_t kTrackHistoryBytesMax = uint64_t{64} << 20;
// Of all requests' decode windows. A request that goes on keeps its windows: were they taken for
// others, then with more requests than fit every window would be lost before it is complete. They
// are taken only from the least recently used request, when it had no slice for kTrackIdleSlices.
constexpr uint64_t kTrackWindowBytesMax = uint64_t{64} << 20;
constexpr uint64_t kTrackIdleSlices = 65536;
// Rows of one slice of logits that get a label.
constexpr uint32_t kTrackLogitsRowsMax = 65536;

struct TrackedRequest {
  uint64_t key = 0;
  uint64_t last_slice = 0;  // ring2_track::slices when it was last used
  Place residual;           // the last resid_pre
  bool chained = false;     // and it was compared with the layer before
  Place residual_mid;
  Place token_ids;
  PendingLogits pending;
  TokenHistory history;
  RequestWindows windows;
};

}  // namespace ring2

struct ring2_track {
  ring2::RingView ring;
  uint64_t slices = 0;         // measured with this track
  int32_t highest_layer = -1;  // of resid_pre
  uint64_t hash_seed = 0;
  uint64_t history_bytes = 0, window_bytes = 0;
  std::list<ring2::TrackedRequest> requests;  // the most recently used first
  std::unordered_map<uint64_t, std::list<ring2::TrackedRequest>::iterator> by_key;
  ring2::ExpertLoads experts;
  ring2::StreamScratch stream;
  std::vector<double> row_lse;
};

namespace ring2 {

// The state of this request, made when there is none; it becomes the most recently used.
TrackedRequest &tracked_request(ring2_track *track, uint64_t key);
void forget_request(ring2_track *track, uint64_t key);
void forget_everything(ring2_track *track);
// Accounts for `bytes` more of the most recently used request's history, forgetting others when it
// must; false: there is no room.
bool take_history_bytes(ring2_track *track, uint64_t bytes);
// The same for its decode windows.
bool take_window_bytes(ring2_track *track, TrackedRequest *request, uint64_t bytes);
void drop_windows(ring2_track *track, TrackedRequest *request);
void drop_grams(ring2_track *track, TrackedRequest *request);

// Each does nothing for a slice that is not of its hooks.
void track_sequence(const SliceContext &context, ring2_track *track, TrackedRequest *request);
void track_stream(const SliceContext &context, ring2_track *track, TrackedRequest *request);

}  // namespace ring2
#endif
