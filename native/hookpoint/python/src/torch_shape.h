/* What the operator asks of torch_shape.c. */
#ifndef RING2_TORCH_SHAPE_H
#define RING2_TORCH_SHAPE_H

#include <stdbool.h>

#include "ring2.h"

/* Beside a hook's number, in the operator's word: how its last axis is split into heads. 0 for the
 * width: it is not. 0 for the count: all heads there are. As in ring2/_sites.py. */
#define RING2_HEAD_DIM_SHIFT 16
#define RING2_HEAD_FIRST_SHIFT 32
#define RING2_HEAD_COUNT_SHIFT 48
#define RING2_HEADS_MASK 0x7fff

/* Gives a tensor with one row per token the batch axis of its step. `batch`: rows of the step's
 * batch; 0: the step is packed and has no such axis. Only the description changes, never the bytes:
 *   [batch · tokens, width…]   becomes [batch, tokens, width…] (routers flatten their input)
 *   [1, tokens, width…]        becomes [batch, tokens, width…], each row the same bytes (positions)
 * What fits neither is left as it is. */
void ring2_fit_batch(ring2_tensor *tensor, int64_t batch);

/* [..., heads * width] becomes [..., heads, width] as the word says; without a count a tensor of
 * four axes has its heads apart already. `data` is moved to the first head. False when the last axis
 * does not hold those heads. */
bool ring2_split_heads(ring2_tensor *tensor, const void **data, int64_t coded_hook,
                       uint32_t element_bytes);

#endif
