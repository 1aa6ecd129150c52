// How a tensor's bytes are read: merged axes and the widest unit that its memory allows.
#ifndef RING2_CUDA_GATHER_H
#define RING2_CUDA_GATHER_H

#include "ring2.h"
#include "shared.h"

// Fills shape, bytes and gather of a call. False for a dtype, a number of axes, a length or a stride that
// cannot be copied. `rows`: axis 0 may be cut at run time, so no unit may reach over its end.
bool plan_gather(const ring2_tensor &tensor, const void *data, bool rows,
                 ring2_cuda_shared::CudaCall *call);

#endif
