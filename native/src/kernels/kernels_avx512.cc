// Compiled with the flags of AVX-512 F, BW, VL, DQ, FMA and F16C. Run only where isa.cc chose it.
#if defined(__x86_64__)
#define RING2_VECTOR_BYTES 64
#define RING2_FLAVOUR kAvx512Kernels
#define RING2_FLAVOUR_NAME "avx512"
#include "flavour.h"
#endif
