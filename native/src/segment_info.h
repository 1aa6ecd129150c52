// A segment's counters at one moment, as users see them.
#ifndef RING2_SEGMENT_INFO_H
#define RING2_SEGMENT_INFO_H

#include "ring2.h"

namespace ring2 {

void fill_info(const ring2_header &header, ring2_segment_info *out);

}  // namespace ring2
#endif
