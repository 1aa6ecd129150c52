// The exact lower median of |x| over a slice, by counting how many elements lie above guesses: no
// copy, no table, a bounded number of looks at the bytes.
#ifndef RING2_KERNELS_MEDIAN_H
#define RING2_KERNELS_MEDIAN_H

#include "slice.h"

namespace ring2 {

// Elements of a slice with a code above `pivot`, NaN and infinities included.
uint64_t count_above(const SliceContext &context, const RowWalk &walk, uint64_t pivot);

// The code of the lower median of |x| over the slice's finite elements, of which there are
// `used` > 0, the largest with the code `largest`. `rms`, of the same elements, says where to look
// first.
uint64_t median_code(const SliceContext &context, const RowWalk &walk, uint64_t used,
                     uint64_t largest, double rms);

}  // namespace ring2
#endif
