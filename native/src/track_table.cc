// The table of requests: least recently used order, and the bounds of what all of them hold.
#include "track_state.h"

namespace ring2 {
namespace {

void erase(ring2_track *track, std::list<TrackedRequest>::iterator request) {
  drop_grams(track, &*request);
  drop_windows(track, &*request);
  track->by_key.erase(request->key);
  track->requests.erase(request);
}

}  // namespace

TrackedRequest &tracked_request(ring2_track *track, uint64_t key) {
  const auto known = track->by_key.find(key);
  if (known != track->by_key.end()) {
    track->requests.splice(track->requests.begin(), track->requests, known->second);
  } else {
    if (track->requests.size() >= kTrackRequestsMax) {
      erase(track, std::prev(track->requests.end()));
    }
    track->requests.emplace_front();
    track->requests.front().key = key;
    track->by_key.emplace(key, track->requests.begin());
  }
  TrackedRequest &request = track->requests.front();
  request.last_slice = track->slices;
  return request;
}

void forget_request(ring2_track *track, uint64_t key) {
  const auto known = track->by_key.find(key);
  if (known != track->by_key.end()) erase(track, known->second);
}

void forget_everything(ring2_track *track) {
  track->by_key.clear();
  track->requests.clear();
  track->history_bytes = track->window_bytes = 0;
  track->experts.layers.clear();
}

bool take_history_bytes(ring2_track *track, uint64_t bytes) {
  while (track->history_bytes + bytes > kTrackHistoryBytesMax) {
    if (track->requests.size() < 2) return false;
    erase(track, std::prev(track->requests.end()));
  }
  track->history_bytes += bytes;
  return true;
}

bool take_window_bytes(ring2_track *track, TrackedRequest *request, uint64_t bytes) {
  while (track->window_bytes + bytes > kTrackWindowBytesMax) {
    const TrackedRequest &oldest = track->requests.back();
    if (&oldest == request || track->slices - oldest.last_slice < kTrackIdleSlices) return false;
    erase(track, std::prev(track->requests.end()));
  }
  track->window_bytes += bytes;
  request->windows.bytes += bytes;
  return true;
}

void drop_windows(ring2_track *track, TrackedRequest *request) {
  track->window_bytes -= request->windows.bytes;
  request->windows = RequestWindows();
}

void drop_grams(ring2_track *track, TrackedRequest *request) {
  track->history_bytes -= request->history.grams.bytes();
  request->history.grams.clear();
}

}  // namespace ring2
