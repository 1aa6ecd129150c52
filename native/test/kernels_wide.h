// The kernels at AVX-512's vector width but with AVX2's instructions, so that the wide flavour's
// logic (steps, tails, masks) is tested on machines without AVX-512. For tests only.
#ifndef RING2_TEST_KERNELS_WIDE_H
#define RING2_TEST_KERNELS_WIDE_H

#include "kernels/kernels.h"

namespace ring2 {

#if defined(__x86_64__)
extern const Kernels kWideKernels;

// The flavour's e^t and ln p, element by element. count is a multiple of 16.
void wide_exp(const float *t, float *result, size_t count);
void wide_log(const float *p, float *result, size_t count);
#endif

}  // namespace ring2
#endif
