// Takes the place of libtorch_cuda.so: the one function of it that the Python producer looks up.
#include "simulated_torch.h"

namespace {
thread_local void *streams[16];
}

extern "C" int32_t aoti_torch_get_current_cuda_stream(int32_t device, void **stream) {
  *stream = streams[device];
  return *stream == nullptr ? 1 : 0;
}

void simulated_torch_use(int32_t device, void *stream) { streams[device] = stream; }
