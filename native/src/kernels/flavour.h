// One flavour of the kernels. Included once by each kernels_*.cc, which defines RING2_VECTOR_BYTES,
// RING2_FLAVOUR (the table's variable) and RING2_FLAVOUR_NAME.
#ifndef RING2_KERNELS_FLAVOUR_H
#define RING2_KERNELS_FLAVOUR_H

#include "attention_block.h"
#include "attention_shape_block.h"
#include "logits_block.h"
#include "moments_block.h"
#include "outliers_block.h"
#include "pair_block.h"
#include "pair_gram_block.h"

namespace ring2 {

extern const Kernels RING2_FLAVOUR;
const Kernels RING2_FLAVOUR = {
    RING2_FLAVOUR_NAME,
    {moments_block<Float32>, moments_block<Float16>, moments_block<Bfloat16>, moments_float64},
    {logits_block<Float32>, logits_block<Float16>, logits_block<Bfloat16>, logits_float64},
    {attention_row<Float32>, attention_row<Float16>, attention_row<Bfloat16>, attention_float64},
    {attention_places<Float32>, attention_places<Float16>, attention_places<Bfloat16>,
     attention_places_float64},
    {sum_elements<Float32>, sum_elements<Float16>, sum_elements<Bfloat16>, sum_float64},
    {add_columns<Float32>, add_columns<Float16>, add_columns<Bfloat16>, add_columns_float64},
    {central_moments<Float32>, central_moments<Float16>, central_moments<Bfloat16>,
     central_float64},
    {count_above<Float32>, count_above<Float16>, count_above<Bfloat16>, count_above_float64},
    {add_squares<Float32>, add_squares<Float16>, add_squares<Bfloat16>, add_squares_float64},
    {pair_rows<Float32>, pair_rows<Float16>, pair_rows<Bfloat16>, pair_float64},
    {add_rows<Float32>, add_rows<Float16>, add_rows<Bfloat16>, add_rows_float64},
    {centred_row<Float32>, centred_row<Float16>, centred_row<Bfloat16>, centred_float64},
    {gram_rows<Float32>, gram_rows<Float16>, gram_rows<Bfloat16>, gram_float64},
};

}  // namespace ring2
#endif
