/* What the operator and the slots ask of torch_cuda.c. */
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
/* Says on the GPU's streams of this thread which step begins; below 0: none. */
void ring2_torch_cuda_step(int64_t slot, int64_t step, const uint64_t *wanted);
/* Closes the ways of a slot; waits for what is on them. */
void ring2_torch_cuda_remove(int64_t slot);
void ring2_torch_cuda_forget_all(void);

#endif
