// Baseline of the architecture: SSE2 on x86-64, NEON on aarch64.
#define RING2_VECTOR_BYTES 16
#define RING2_FLAVOUR kPortableKernels
#define RING2_FLAVOUR_NAME "portable"
#include "flavour.h"
