// What the files of the producing side share: the handle, and claiming and publishing a record.
#ifndef RING2_PRODUCER_H
#define RING2_PRODUCER_H

#include <atomic>
#include <cstdint>
#include <mutex>

#include "ring2.h"
#include "segment.h"

struct ring2_producer {
  ring2::Segment segment;
  uint32_t when_full = RING2_WHEN_FULL_DROP;
  uint32_t block_timeout_us = 0;
  // One page that the kernel clears in a forked child: a child must never write to its parent's
  // rings, and asking getpid() for every record would cost more than the rest of a claim.
  uint8_t *fork_guard = nullptr;

  std::mutex lock;  // guards everything below
  uint64_t head = 0;
  uint64_t payload_head = 0;
  uint64_t tail_seen = 0;
  uint64_t payload_tail_seen = 0;
  ring2_gap gap = {};  // losses that no GAP record has announced yet
  bool gap_pending = false;
  int64_t lost_step = INT64_MIN;  // no step

  std::mutex control_lock;  // guards the last good copy of the control words
  ring2_control control = {};
  std::atomic<uint32_t> control_kept{0};  // its sequence, to be looked at without the lock
};

namespace ring2 {

// In a forked child: it must never write to its parent's rings.
inline bool forked(const ring2_producer *producer) { return producer->fork_guard[0] == 0; }
int forked_error();

// Takes a descriptor and room for its bytes; RING2_FULL is counted and announced.
int claim_record(ring2_producer *producer, const ring2_descriptor &facts, ring2_claim *out);
void publish(ring2_producer *producer, const ring2_claim &claim);

}  // namespace ring2
#endif
