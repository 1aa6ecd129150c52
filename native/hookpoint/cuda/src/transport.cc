// Opening and closing: the only places that allocate, register and wait.
#include "transport.h"

#include <cstdio>
#include <cstring>
#include <exception>
#include <memory>

using namespace ring2_cuda_driver;
using namespace ring2_cuda_internal;
using namespace ring2_cuda_limits;
using namespace ring2_cuda_shared;

// The kernels as PTX text, ended by a null byte.
extern "C" const char ring2_cuda_ptx[];
__asm__(
    ".section .rodata\n"
    ".global ring2_cuda_ptx\n"
    ".hidden ring2_cuda_ptx\n"
    ".balign 16\n"
    "ring2_cuda_ptx:\n"
    ".incbin \"" RING2_CUDA_PTX_FILE
    "\"\n"
    ".byte 0\n"
    ".previous\n");

namespace {

thread_local char error_text[256] = "";

bool fail(const char *what, const Driver *driver, CUresult result) {
  const char *name = nullptr;
  if (driver->error_name(result, &name) != kSuccess || name == nullptr) name = "an unknown error";
  snprintf(error_text, sizeof error_text, "%s failed: %s (%d)", what, name, static_cast<int>(result));
  return false;
}

#define RING2_TRY(what, call)                                   \
  do {                                                          \
    const CUresult result_ = (call);                            \
    if (result_ != kSuccess) return fail(what, driver, result_); \
  } while (false)

bool load_kernels(ring2_cuda *cuda) {
  const Driver *driver = cuda->driver;
  RING2_TRY("loading the kernels", driver->module_load(&cuda->module, ring2_cuda_ptx));
  const struct {
    CUfunction *function;
    const char *name;
  } kernels[] = {{&cuda->capture, "ring2_capture"},
                 {&cuda->capture_runs, "ring2_capture_runs"},
                 {&cuda->begin_step, "ring2_begin_step"},
                 {&cuda->end_step, "ring2_end_step"},
                 {&cuda->fence, "ring2_fence"}};
  for (const auto &kernel : kernels) {
    RING2_TRY("finding a kernel", driver->module_function(kernel.function, cuda->module, kernel.name));
  }
  return true;
}

bool allocate(ring2_cuda *cuda) {
  const Driver *driver = cuda->driver;
  RING2_TRY("creating a stream", driver->stream_create(&cuda->stream, kStreamNonBlocking));
  RING2_TRY("allocating the ring on the GPU", driver->allocate(&cuda->payload_memory, cuda->ring_bytes));
  RING2_TRY("allocating on the GPU", driver->allocate(&cuda->control_memory, sizeof(CudaControl)));
  RING2_TRY("allocating on the GPU",
            driver->allocate(&cuda->scratch_memory, uint64_t{kScratches} * sizeof(CudaScratch)));
  RING2_TRY("clearing memory of the GPU",
            driver->fill_async(cuda->scratch_memory, 0, uint64_t{kScratches} * sizeof(CudaScratch),
                               cuda->stream));
  const size_t page_bytes = sizeof(CudaPage) + size_t{kEntries} * sizeof(CudaEntry);
  void *page = nullptr;
  RING2_TRY("allocating pinned memory",
            driver->host_allocate(&page, page_bytes, kHostAllocPortable | kHostAllocDeviceMap));
  std::memset(page, 0, page_bytes);
  cuda->page = static_cast<CudaPage *>(page);
  cuda->entries = reinterpret_cast<CudaEntry *>(cuda->page + 1);
  RING2_TRY("mapping pinned memory", driver->host_device_pointer(&cuda->page_on_device, page, 0));
  for (uint32_t i = 0; i < kBatches; ++i) {
    CUevent event = nullptr;
    RING2_TRY("creating an event", driver->event_create(&event, kEventDisableTiming));
    cuda->free_events.push_back(event);
  }
  return true;
}

bool write_control(ring2_cuda *cuda) {
  const Driver *driver = cuda->driver;
  CudaControl control = {};
  control.page = reinterpret_cast<CudaPage *>(cuda->page_on_device);
  control.entries = reinterpret_cast<CudaEntry *>(cuda->page_on_device + sizeof(CudaPage));
  control.payload = reinterpret_cast<uint8_t *>(cuda->payload_memory);
  control.entry_count = kEntries;
  control.payload_bytes = cuda->ring_bytes;
  control.step = -1;
  RING2_TRY("writing to the GPU", driver->copy_to_device_async(cuda->control_memory, &control,
                                                               sizeof control, cuda->stream));
  RING2_TRY("writing to the GPU", driver->stream_synchronize(cuda->stream));
  return true;
}

// Runs each kernel once while the ring is still switched off: the driver loads code at the first launch,
// which it must not do while a graph is captured.
bool warm_up(ring2_cuda *cuda) {
  const Driver *driver = cuda->driver;
  CUdeviceptr control = cuda->control_memory;
  CudaCall call = {};
  call.control = reinterpret_cast<CudaControl *>(control);
  call.axes = 1;
  int64_t step = -1;
  CudaWanted wanted = {};
  CudaRuns runs = {};
  uint64_t token = 0;
  void *of_capture[] = {&call, &runs};
  void *of_begin[] = {&control, &step, &wanted, &runs};
  void *of_end[] = {&control};
  void *of_fence[] = {&control, &token};
  const struct {
    CUfunction function;
    unsigned threads;
    void **arguments;
  } launches[] = {{cuda->capture, kThreads, of_capture},
                  {cuda->capture_runs, kThreads, of_capture},
                  {cuda->begin_step, kHooks * kLayerWords, of_begin},
                  {cuda->end_step, 1, of_end},
                  {cuda->fence, 1, of_fence}};
  for (const auto &one : launches) {
    RING2_TRY("running a kernel", driver->launch(one.function, 1, 1, 1, one.threads, 1, 1, 0,
                                                 cuda->stream, one.arguments, nullptr));
  }
  RING2_TRY("running the kernels", driver->stream_synchronize(cuda->stream));
  return true;
}

bool set_enabled(ring2_cuda *cuda, uint32_t enabled) {
  const Driver *driver = cuda->driver;
  const CUdeviceptr word = cuda->control_memory + offsetof(CudaControl, enabled);
  RING2_TRY("writing to the GPU",
            driver->copy_to_device_async(word, &enabled, sizeof enabled, cuda->stream));
  RING2_TRY("writing to the GPU", driver->stream_synchronize(cuda->stream));
  return true;
}

bool open_device(ring2_cuda *cuda, int ordinal) {
  const Driver *driver = cuda->driver;
  RING2_TRY("finding the GPU", driver->device_get(&cuda->device, ordinal));
  int processors = 1;
  driver->device_attribute(&processors, static_cast<CUdevice_attribute>(kAttributeMultiprocessors),
                           cuda->device);
  CUcontext context = nullptr;
  RING2_TRY("taking the GPU's context", driver->primary_retain(&context, cuda->device));
  cuda->context = context;
  cuda->blocks_max = kBlocksPerProcessor * static_cast<uint32_t>(processors);
  return true;
}

// Gives back what was taken. `keep_graphs`: nodes of graphs may be replayed, so their kernels and what they
// point at stay.
void free_memory(ring2_cuda *cuda, bool keep_graphs) {
  const Driver *driver = cuda->driver;
  {
    const ContextScope scope(cuda);
    if (cuda->joined) cuda->shared->leave(driver);
    for (const CUevent event : cuda->free_events) driver->event_destroy(event);
    if (cuda->stream != nullptr) driver->stream_destroy(cuda->stream);
    if (cuda->payload_memory != 0) driver->release(cuda->payload_memory);
    if (cuda->page != nullptr) driver->host_release(cuda->page);
    if (!keep_graphs && cuda->scratch_memory != 0) driver->release(cuda->scratch_memory);
    if (!keep_graphs && cuda->control_memory != 0) driver->release(cuda->control_memory);
    if (!keep_graphs && cuda->module != nullptr) driver->module_unload(cuda->module);
  }
  if (!keep_graphs) driver->primary_release(cuda->device);
}

// Waits for all that runs on the GPU, and until the copier has taken it. False when that failed.
bool drain(ring2_cuda *cuda) {
  const Driver *driver = cuda->driver;
  if (cuda->broken.load()) return false;
  RING2_TRY("switching captures off", driver->context_synchronize());
  if (!set_enabled(cuda, 0)) return false;
  RING2_TRY("waiting for the GPU", driver->context_synchronize());
  uint64_t head = 0;
  RING2_TRY("reading from the GPU",
            driver->copy_to_host_async(&head, cuda->control_memory + offsetof(CudaControl, entry_head),
                                       sizeof head, cuda->stream));
  RING2_TRY("reading from the GPU", driver->stream_synchronize(cuda->stream));
  const auto deadline = std::chrono::steady_clock::now() + kCloseTimeout;
  while (cuda->committed_entries.load(std::memory_order_acquire) < head) {
    if (cuda->broken.load() || std::chrono::steady_clock::now() > deadline) return false;
    std::this_thread::sleep_for(kPollBusy);
  }
  return true;
}

}  // namespace

extern "C" {

const char *ring2_cuda_error(void) { return error_text; }

ring2_cuda *ring2_cuda_open(ring2_producer *producer, int device, uint64_t ring_bytes) try {
  error_text[0] = '\0';
  const char *reason = "";
  const Driver *driver = load_driver(&reason);
  if (driver == nullptr) {
    snprintf(error_text, sizeof error_text, "%s", reason);
    return nullptr;
  }
  if (ring_bytes == 0) ring_bytes = RING2_CUDA_RING_BYTES_DEFAULT;
  if (ring_bytes < RING2_CUDA_RING_BYTES_MIN) ring_bytes = RING2_CUDA_RING_BYTES_MIN;
  auto cuda = std::make_unique<ring2_cuda>();
  cuda->driver = driver;
  cuda->producer = producer;
  cuda->shared = share_segment(producer);
  cuda->ring_bytes = (ring_bytes + kPayloadAlign - 1) / kPayloadAlign * kPayloadAlign;
  const RelaxedScope relaxed(driver);
  if (!open_device(cuda.get(), device)) return nullptr;
  bool ready = false;
  {
    const ContextScope scope(cuda.get());
    ready = scope.entered() && load_kernels(cuda.get()) && allocate(cuda.get()) &&
            write_control(cuda.get()) && warm_up(cuda.get()) && set_enabled(cuda.get(), 1);
    // Without it everything works, and each copy goes through the driver's own staging buffer.
    if (ready) cuda->pinned = cuda->shared->pin(driver);
    cuda->joined = ready;
  }
  if (!ready) {
    if (error_text[0] == '\0') snprintf(error_text, sizeof error_text, "the GPU's context cannot be used");
    free_memory(cuda.get(), false);
    return nullptr;
  }
  try {
    cuda->copier = std::thread(run_copier, cuda.get());
  } catch (...) {
    free_memory(cuda.get(), false);
    throw;
  }
  return cuda.release();
} catch (const std::exception &error) {
  snprintf(error_text, sizeof error_text, "%s", error.what());
  return nullptr;
}

void ring2_cuda_close(ring2_cuda *cuda) {
  if (cuda == nullptr) return;
  const RelaxedScope relaxed(cuda->driver);
  bool drained = false;
  {
    const ContextScope scope(cuda);
    drained = scope.entered() && drain(cuda);
  }
  // A GPU that does not answer: the copier must not wait for it either.
  if (!drained) cuda->broken.store(true);
  cuda->stopping.store(true, std::memory_order_release);
  cuda->copier.join();
  // What the GPU may still write to must stay; it is lost to this process, and that is all.
  if (drained) {
    free_memory(cuda, cuda->graph_nodes.load() > 0);
  } else {
    const ContextScope scope(cuda);
    cuda->shared->leave(cuda->driver);
  }
  delete cuda;
}

}  // extern "C"
