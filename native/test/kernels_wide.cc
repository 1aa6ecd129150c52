// Compiled with the flags of AVX2, FMA and F16C.
#if defined(__x86_64__)
#define RING2_VECTOR_BYTES 64
#define RING2_FLAVOUR kWideKernels
#define RING2_FLAVOUR_NAME "wide"
#include "kernels/flavour.h"
#include "kernels_wide.h"

namespace ring2 {

void wide_exp(const float *t, float *result, size_t count) {
  for (size_t i = 0; i < count; i += kLanes) {
    const Floats e = exp_clamped(load<Floats>(t + i));
    __builtin_memcpy(result + i, &e, sizeof e);
  }
}

void wide_log(const float *p, float *result, size_t count) {
  for (size_t i = 0; i < count; i += kLanes) {
    const Floats log = log_clamped(load<Floats>(p + i));
    __builtin_memcpy(result + i, &log, sizeof log);
  }
}

}  // namespace ring2
#endif
