// The part of NVIDIA's driver API that is used, found in libcuda.so.1 at run time, so that nothing here
// needs CUDA to be built or loaded and one library serves every version of it.
//
// The types are declared as in cuda.h; test/driver_types_check.cc compares them with the real header.
#ifndef RING2_CUDA_DRIVER_H
#define RING2_CUDA_DRIVER_H

#include <stddef.h>
#include <stdint.h>

#ifndef RING2_CUDA_WITH_REAL_TYPES
typedef int CUresult;
typedef int CUdevice;
typedef unsigned long long CUdeviceptr;
typedef struct CUctx_st *CUcontext;
typedef struct CUmod_st *CUmodule;
typedef struct CUfunc_st *CUfunction;
typedef struct CUstream_st *CUstream;
typedef struct CUevent_st *CUevent;
typedef int CUstreamCaptureStatus;
typedef int CUstreamCaptureMode;
typedef int CUdevice_attribute;
#endif

namespace ring2_cuda_driver {

constexpr int kSuccess = 0;
constexpr int kNotReady = 600;
constexpr int kAlreadyRegistered = 712;
constexpr int kCaptureNone = 0;
constexpr int kCaptureActive = 1;
constexpr int kCaptureModeRelaxed = 2;
constexpr unsigned kHostAllocPortable = 1;
constexpr unsigned kHostAllocDeviceMap = 2;
constexpr unsigned kHostRegisterPortable = 1;
constexpr unsigned kEventDisableTiming = 2;
constexpr unsigned kStreamNonBlocking = 1;
constexpr int kAttributeMultiprocessors = 16;

struct Driver {
  CUresult (*init)(unsigned);
  CUresult (*error_name)(CUresult, const char **);
  CUresult (*device_get)(CUdevice *, int);
  CUresult (*device_attribute)(int *, CUdevice_attribute, CUdevice);
  CUresult (*primary_retain)(CUcontext *, CUdevice);
  CUresult (*primary_release)(CUdevice);
  CUresult (*context_current)(CUcontext *);
  CUresult (*context_push)(CUcontext);
  CUresult (*context_pop)(CUcontext *);
  CUresult (*context_synchronize)(void);
  CUresult (*module_load)(CUmodule *, const void *);
  CUresult (*module_unload)(CUmodule);
  CUresult (*module_function)(CUfunction *, CUmodule, const char *);
  CUresult (*launch)(CUfunction, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned,
                     CUstream, void **, void **);
  CUresult (*allocate)(CUdeviceptr *, size_t);
  CUresult (*release)(CUdeviceptr);
  CUresult (*fill_async)(CUdeviceptr, unsigned char, size_t, CUstream);
  CUresult (*host_allocate)(void **, size_t, unsigned);
  CUresult (*host_release)(void *);
  CUresult (*host_device_pointer)(CUdeviceptr *, void *, unsigned);
  CUresult (*host_register)(void *, size_t, unsigned);
  CUresult (*host_unregister)(void *);
  CUresult (*stream_create)(CUstream *, unsigned);
  CUresult (*stream_destroy)(CUstream);
  CUresult (*stream_synchronize)(CUstream);
  CUresult (*stream_is_capturing)(CUstream, CUstreamCaptureStatus *);
  CUresult (*exchange_capture_mode)(CUstreamCaptureMode *);
  CUresult (*event_create)(CUevent *, unsigned);
  CUresult (*event_record)(CUevent, CUstream);
  CUresult (*event_query)(CUevent);
  CUresult (*event_destroy)(CUevent);
  CUresult (*copy_to_host_async)(void *, CUdeviceptr, size_t, CUstream);
  CUresult (*copy_to_device_async)(CUdeviceptr, const void *, size_t, CUstream);
};

// The driver of this process, loaded once; null with a reason when there is none.
const Driver *load_driver(const char **reason);

// Every entry of the table with its name in libcuda.so.1 (the versions of CUDA 12 and 13).
#define RING2_CUDA_DRIVER_FUNCTIONS(X)             \
  X(init, cuInit)                                  \
  X(error_name, cuGetErrorName)                    \
  X(device_get, cuDeviceGet)                       \
  X(device_attribute, cuDeviceGetAttribute)        \
  X(primary_retain, cuDevicePrimaryCtxRetain)      \
  X(primary_release, cuDevicePrimaryCtxRelease_v2) \
  X(context_current, cuCtxGetCurrent)              \
  X(context_push, cuCtxPushCurrent_v2)             \
  X(context_pop, cuCtxPopCurrent_v2)               \
  X(context_synchronize, cuCtxSynchronize)         \
  X(module_load, cuModuleLoadData)                 \
  X(module_unload, cuModuleUnload)                 \
  X(module_function, cuModuleGetFunction)          \
  X(launch, cuLaunchKernel)                        \
  X(allocate, cuMemAlloc_v2)                       \
  X(release, cuMemFree_v2)                         \
  X(fill_async, cuMemsetD8Async)                   \
  X(host_allocate, cuMemHostAlloc)                 \
  X(host_release, cuMemFreeHost)                   \
  X(host_device_pointer, cuMemHostGetDevicePointer_v2) \
  X(host_register, cuMemHostRegister_v2)           \
  X(host_unregister, cuMemHostUnregister)          \
  X(stream_create, cuStreamCreate)                 \
  X(stream_destroy, cuStreamDestroy_v2)            \
  X(stream_synchronize, cuStreamSynchronize)       \
  X(stream_is_capturing, cuStreamIsCapturing)      \
  X(exchange_capture_mode, cuThreadExchangeStreamCaptureMode) \
  X(event_create, cuEventCreate)                   \
  X(event_record, cuEventRecord)                   \
  X(event_query, cuEventQuery)                     \
  X(event_destroy, cuEventDestroy_v2)              \
  X(copy_to_host_async, cuMemcpyDtoHAsync_v2)      \
  X(copy_to_device_async, cuMemcpyHtoDAsync_v2)

}  // namespace ring2_cuda_driver

#endif
