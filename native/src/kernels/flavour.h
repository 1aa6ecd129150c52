// One flavour of the kernels. Included once by each kernels_*.cc, which defines RING2_VECTOR_BYTES,
// RING2_FLAVOUR (the table's variable) and RING2_FLAVOUR_NAME.
#ifndef RING2_KERNELS_FLAVOUR_H
#define RING2_KERNELS_FLAVOUR_H

#include "attention_block.h"
#include "logits_block.h"
#include "moments_block.h"

namespace ring2 {

extern const Kernels RING2_FLAVOUR;
const Kernels RING2_FLAVOUR = {
    RING2_FLAVOUR_NAME,
    {moments_block<Float32>, moments_block<Float16>, moments_block<Bfloat16>, moments_float64},
    {logits_block<Float32>, logits_block<Float16>, logits_block<Bfloat16>, logits_float64},
    {attention_row<Float32>, attention_row<Float16>, attention_row<Bfloat16>, attention_float64},
};

}  // namespace ring2
#endif
