/* What the operator asks of torch_cuda.c. */
#ifndef RING2_TORCH_CUDA_H
#define RING2_TORCH_CUDA_H

#include <stdbool.h>

#include "ring2.h"

/* Whether the slot has a way for tensors of a GPU. */
bool ring2_torch_cuda_has(int64_t slot);
/* Whether this thread's work on the GPU is being captured into a CUDA graph. */
bool ring2_torch_cuda_capturing(int64_t slot, int32_t device);
/* Begins the copy of a tensor of a GPU. False when it cannot be copied. */
bool ring2_torch_cuda_copy(int64_t slot, int32_t device, const ring2_tensor *tensor,
                           const void *data, int64_t step);

#endif
