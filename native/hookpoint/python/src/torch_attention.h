/* How Python makes the tap of a layer's attention; see torch_attention.c. */
#ifndef RING2_TORCH_ATTENTION_H
#define RING2_TORCH_ATTENTION_H

#include "torch_python.h"

/* A new callable of query, key, mask, scaling, causal. `scores`, `pattern`: whether it may compute them. */
RING2_API PyObject *ring2_torch_attention(int64_t slot, int32_t layer, int32_t waits, int32_t scores,
                                          int32_t pattern, PyObject *otherwise);

#endif
