/* What the operator and the taps share: from a description of a tensor to its record. */
#ifndef RING2_TORCH_COPY_H
#define RING2_TORCH_COPY_H

#include <stdbool.h>

#include "ring2.h"

#define RING2_CUT_KEYS 256                      /* beside a hook: the last axis is of a cache's keys */
#define RING2_PLAIN_HOOK(coded) ((uint32_t)(coded) & (RING2_CUT_KEYS - 1))

/* Names the hook, layer and step of a tensor whose axes are described, and gives it the catalogue's
 * axes; false for what cannot be said to be of the step's positions. */
bool ring2_fit_tensor(ring2_tensor *tensor, const void **data, uint32_t element_bytes, int64_t slot,
                      int64_t coded_hook, int32_t layer, int64_t step);

/* Copies a tensor in CPU memory, or the rows of it that the step holds; false when it is to be counted
 * as unsupported. Losses for want of room are counted by the producer itself. */
bool ring2_copy_tensor(ring2_producer *producer, int64_t slot, const ring2_tensor *tensor,
                       const void *data);

#endif
