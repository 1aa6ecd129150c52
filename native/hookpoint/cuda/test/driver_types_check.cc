// Compiled and not run: the functions and constants of src/driver.h are those of the real cuda.h.
#include <cuda.h>
#define RING2_CUDA_WITH_REAL_TYPES
#include "../src/driver.h"

using namespace ring2_cuda_driver;

Driver real_driver() {
  Driver driver = {};
#define RING2_TAKE(field, name) driver.field = &name;
  RING2_CUDA_DRIVER_FUNCTIONS(RING2_TAKE)
#undef RING2_TAKE
  return driver;
}

static_assert(kSuccess == CUDA_SUCCESS);
static_assert(kNotReady == CUDA_ERROR_NOT_READY);
static_assert(kAlreadyRegistered == CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED);
static_assert(kCaptureNone == CU_STREAM_CAPTURE_STATUS_NONE);
static_assert(kCaptureActive == CU_STREAM_CAPTURE_STATUS_ACTIVE);
static_assert(kCaptureModeRelaxed == CU_STREAM_CAPTURE_MODE_RELAXED);
static_assert(kHostAllocPortable == CU_MEMHOSTALLOC_PORTABLE);
static_assert(kHostAllocDeviceMap == CU_MEMHOSTALLOC_DEVICEMAP);
static_assert(kHostRegisterPortable == CU_MEMHOSTREGISTER_PORTABLE);
static_assert(kEventDisableTiming == CU_EVENT_DISABLE_TIMING);
static_assert(kStreamNonBlocking == CU_STREAM_NON_BLOCKING);
static_assert(kAttributeMultiprocessors == CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT);
static_assert(sizeof(CUstreamCaptureMode) == sizeof(int) && sizeof(CUresult) == sizeof(int));
