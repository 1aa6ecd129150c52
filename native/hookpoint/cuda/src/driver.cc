// Finds the driver. Kept apart so that tests bring a driver of their own (test/simulated_driver.cc).
#include "driver.h"

#include <dlfcn.h>
#include <stdio.h>

#include <mutex>

namespace ring2_cuda_driver {

const Driver *load_driver(const char **reason) {
  static std::mutex lock;
  static Driver driver;
  static char text[160] = "";
  static bool tried = false;
  static bool usable = false;
  const std::lock_guard<std::mutex> guard(lock);
  if (!tried) {
    tried = true;
    // Never closed: the driver lives as long as the process, as in every CUDA program.
    void *library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
    if (library == nullptr) {
      snprintf(text, sizeof text, "no NVIDIA driver (libcuda.so.1) can be loaded");
    }
#define RING2_FIND(field, name)                                              \
  if (text[0] == '\0') {                                                     \
    *reinterpret_cast<void **>(&driver.field) = dlsym(library, #name);       \
    if (driver.field == nullptr) snprintf(text, sizeof text, "the NVIDIA driver has no " #name); \
  }
    RING2_CUDA_DRIVER_FUNCTIONS(RING2_FIND)
#undef RING2_FIND
    if (text[0] == '\0') {
      const int result = static_cast<int>(driver.init(0));
      if (result != kSuccess) snprintf(text, sizeof text, "cuInit failed with error %d", result);
    }
    usable = text[0] == '\0';
  }
  *reason = text;
  return usable ? &driver : nullptr;
}

}  // namespace ring2_cuda_driver
