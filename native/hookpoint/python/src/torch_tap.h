/* How Python makes taps; see torch_tap.c. Called with Python's lock held. */
#ifndef RING2_TORCH_TAP_H
#define RING2_TORCH_TAP_H

#include "torch_python.h"

/* Where the tensor is. As in ring2/_native_taps.py. */
#define RING2_TAP_OUTPUT 0      /* the output, or `part` of one that is a tuple */
#define RING2_TAP_INPUT 1       /* `part` of the inputs */
#define RING2_TAP_NAMED_INPUT 2 /* the same before the call, or the input named `argument` */
#define RING2_TAP_STREAM 3      /* the second of an output that is a tuple, else the first input */

/* A new callable. `coded_hook` as the operator takes it; `waits`: the producer may wait for room. */
RING2_API PyObject *ring2_torch_tap(int64_t slot, int64_t coded_hook, int32_t layer, int32_t source,
                                    int32_t part, int32_t waits, PyObject *argument,
                                    PyObject *otherwise);

#endif
