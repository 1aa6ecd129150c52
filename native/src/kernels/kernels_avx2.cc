// Compiled with the flags of AVX2, FMA and F16C. Run only where isa.cc found all three.
#if defined(__x86_64__)
#define RING2_VECTOR_BYTES 32
#define RING2_FLAVOUR kAvx2Kernels
#define RING2_FLAVOUR_NAME "avx2"
#include "flavour.h"
#endif
