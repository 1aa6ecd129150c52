// A torch for tests: the stream that a thread works on, by GPU.
#ifndef RING2_CUDA_SIMULATED_TORCH_H
#define RING2_CUDA_SIMULATED_TORCH_H

#include <stdint.h>

#define RING2_SIMULATED_TORCH __attribute__((visibility("default")))

extern "C" RING2_SIMULATED_TORCH int32_t aoti_torch_get_current_cuda_stream(int32_t device, void **stream);
RING2_SIMULATED_TORCH void simulated_torch_use(int32_t device, void *stream);

#endif
