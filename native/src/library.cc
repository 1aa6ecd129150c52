// Facts about the library itself, for producers and exporters alike.

#include <ctime>

#include "ring2.h"
#include "segment.h"
#include "tensor_shape.h"

extern "C" {

const char *ring2_version(void) { return RING2_VERSION; }

uint32_t ring2_dtype_bytes(uint32_t dtype) { return ring2::dtype_bytes(dtype); }

uint64_t ring2_monotonic_ns(void) { return ring2::clock_ns(CLOCK_MONOTONIC); }

}  // extern "C"
