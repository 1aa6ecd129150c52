#include "segment_info.h"

#include <cstring>

#include "error.h"
#include "segment.h"

namespace ring2 {

void fill_info(const ring2_header &header, ring2_segment_info *out) {
  std::memset(out, 0, sizeof *out);
  std::memcpy(out->name, header.name, sizeof out->name);
  out->name[sizeof out->name - 1] = '\0';
  out->boot = header.boot;
  out->meta_slots = header.meta_slots;
  out->payload_bytes = header.payload_bytes;
  out->meta_tail = load_acquire(header.meta_tail);
  out->payload_tail = load_acquire(header.payload_tail);
  out->meta_head = load_acquire(header.meta_head);
  out->payload_head = load_acquire(header.payload_head);
  out->committed_records = load_relaxed(header.committed_records);
  out->committed_bytes = load_relaxed(header.committed_bytes);
  out->anchor_monotonic_ns = header.anchor_monotonic_ns;
  out->anchor_realtime_ns = header.anchor_realtime_ns;
  out->producer_heartbeat_ns = load_relaxed(header.producer_heartbeat_ns);
  out->consumer_heartbeat_ns = load_relaxed(header.consumer_heartbeat_ns);
  out->producer_pid = header.producer_pid;
  out->producer_closed = load_relaxed(header.producer_closed);
  out->producer_alive = out->producer_closed == 0 && producer_alive(header) ? 1 : 0;
  out->consumer_pid = load_relaxed(header.consumer_pid);
  for (uint32_t reason = 0; reason < RING2_LOSS_REASONS_MAX; ++reason) {
    out->losses[reason].records = load_relaxed(header.producer_losses[reason].records) +
                                  load_relaxed(header.consumer_losses[reason].records);
    out->losses[reason].bytes = load_relaxed(header.producer_losses[reason].bytes) +
                                load_relaxed(header.consumer_losses[reason].bytes);
  }
}

}  // namespace ring2

using namespace ring2;

extern "C" int ring2_segment_peek(const char *path, ring2_segment_info *out) {
  if (path == nullptr || out == nullptr) {
    return ring2_set_error(RING2_E_ARGUMENT, "a null path or result");
  }
  Segment segment;
  const int opened = segment_open(path, false, &segment);
  if (opened != RING2_OK) return opened;
  fill_info(*segment.header, out);
  segment_unmap(&segment);
  return RING2_OK;
}
