// The handle that the files of the draining side share.
#ifndef RING2_CONSUMER_H
#define RING2_CONSUMER_H

#include <cstdint>
#include <vector>

#include "segment.h"
#include "step_table.h"

struct ring2_consumer {
  ring2::Segment segment;
  ring2::StepTable steps;
  uint64_t cursor = 0;        // next meta position to drain
  uint64_t released = 0;      // what meta_tail says
  uint64_t payload_seen = 0;  // end of the payload of the last valid record
  bool resync = false;        // the last record was corrupt: the next one may start further on
  uint64_t alive_checked_ns = 0;
  bool producer_gone = false;
  std::vector<uint64_t> payload_ends;  // by slot: where the payload of a drained record ends
};

#endif
