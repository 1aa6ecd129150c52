/* What the operator asks of torch_shape.c. */
#ifndef RING2_TORCH_SHAPE_H
#define RING2_TORCH_SHAPE_H

#include "ring2.h"

/* Gives a tensor with one row per token the batch axis of its step. `batch`: rows of the step's
 * batch; 0: the step is packed and has no such axis. Only the description changes, never the bytes:
 *   [batch · tokens, width…]   becomes [batch, tokens, width…] (routers flatten their input)
 *   [1, tokens, width…]        becomes [batch, tokens, width…], each row the same bytes (positions)
 * What fits neither is left as it is. */
void ring2_fit_batch(ring2_tensor *tensor, int64_t batch);

#endif
