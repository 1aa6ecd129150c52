/* The ways of GPU tensors for the producers that PyTorch captures into.
 *
 * It holds one ring2_cuda per slot and GPU, and asks torch for the stream that the calling thread
 * works on. Without a GPU, a driver or a torch built for CUDA nothing here does anything.
 *
 * Invariant: a way is used only between ring2_slot_enter and ring2_slot_leave, so that closing one,
 * behind ring2_torch_remove's wait, finds nobody in it.
 */
#include "torch_cuda.h"

#include <dlfcn.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>

#include "ring2_cuda.h"
#include "torch_slots.h"

#define SLOTS 64
#define DEVICES_MAX 16 /* GPUs of one process */

typedef int32_t (*stream_getter)(int32_t device, void **stream);

static _Atomic(ring2_cuda *) ways[SLOTS][DEVICES_MAX];
static atomic_int way_counts[SLOTS];
static _Atomic(stream_getter) current_stream;
static _Thread_local void *step_streams[SLOTS][DEVICES_MAX];
static _Thread_local uint32_t step_open[SLOTS]; /* bit per device */
static _Thread_local char reason[256];

RING2_API int ring2_torch_cuda_add(int32_t slot, int32_t device, uint64_t ring_bytes,
                                   const char *libtorch_cuda);
RING2_API const char *ring2_torch_cuda_error(void);
RING2_API int ring2_torch_cuda_counts(int32_t slot, int32_t device, uint64_t *out);
RING2_API int ring2_torch_write_behind(int32_t slot, uint32_t kind, const char *json,
                                       uint64_t bytes);

bool ring2_torch_cuda_has(int64_t slot) {
  return slot >= 0 && slot < SLOTS && atomic_load_explicit(&way_counts[slot], memory_order_acquire);
}

static ring2_cuda *way(int64_t slot, int32_t device) {
  if (slot < 0 || slot >= SLOTS || device < 0 || device >= DEVICES_MAX) return NULL;
  return atomic_load_explicit(&ways[slot][device], memory_order_acquire);
}

/* The stream of this thread; false when torch cannot tell. */
static bool stream_of(int32_t device, void **stream) {
  stream_getter getter = atomic_load(&current_stream);
  return getter != NULL && getter(device, stream) == 0;
}

bool ring2_torch_cuda_capturing(int64_t slot, int32_t device) {
  ring2_cuda *cuda = way(slot, device);
  void *stream = NULL;
  return cuda != NULL && stream_of(device, &stream) && ring2_cuda_capturing(cuda, stream);
}

bool ring2_torch_cuda_copy(int64_t slot, int32_t device, const ring2_tensor *tensor,
                           const void *data, int64_t step) {
  ring2_cuda *cuda = way(slot, device);
  void *stream = NULL;
  if (cuda == NULL || !stream_of(device, &stream)) return false;
  const ring2_slot_runs *runs = ring2_slot_step_runs(slot);
  if (runs == NULL) return ring2_cuda_capture(cuda, stream, tensor, data, step) == 0;
  return ring2_cuda_capture_runs(cuda, stream, tensor, data, step, runs->runs, runs->count,
                                 runs->length) == 0;
}

static void end_steps(int64_t slot) {
  for (int32_t device = 0; step_open[slot] != 0 && device < DEVICES_MAX; device++) {
    if ((step_open[slot] >> device & 1) == 0) continue;
    ring2_cuda *cuda = way(slot, device);
    if (cuda != NULL) ring2_cuda_end_step(cuda, step_streams[slot][device]);
    step_open[slot] &= ~(UINT32_C(1) << device);
  }
}

static void begin_step(int64_t slot, int64_t step, const uint64_t *wanted) {
  if (!ring2_torch_cuda_has(slot) || ring2_slot_enter(slot) == NULL) return;
  end_steps(slot);
  const ring2_slot_runs *runs = ring2_slot_step_runs(slot);
  const ring2_run *parts = runs == NULL ? NULL : runs->runs;
  const uint32_t count = runs == NULL ? 0 : runs->count;
  const int64_t length = runs == NULL ? 0 : runs->length;
  for (int32_t device = 0; step >= 0 && device < DEVICES_MAX; device++) {
    ring2_cuda *cuda = way(slot, device);
    void *stream = NULL;
    if (cuda == NULL || !stream_of(device, &stream)) continue;
    if (ring2_cuda_begin_step(cuda, stream, step, wanted, parts, count, length) == 0) continue;
    step_streams[slot][device] = stream;
    step_open[slot] |= UINT32_C(1) << device;
  }
  ring2_slot_leave(slot);
}

static void close_ways(int64_t slot) {
  if (!ring2_torch_cuda_has(slot)) return;
  atomic_store(&way_counts[slot], 0);
  for (int32_t device = 0; device < DEVICES_MAX; device++) {
    ring2_cuda_close(atomic_exchange(&ways[slot][device], NULL));
  }
}

/* In a forked child: CUDA does not work there, and the rings are the parent's. */
static void forget_all(void) {
  for (int32_t slot = 0; slot < SLOTS; slot++) {
    atomic_store(&way_counts[slot], 0);
    for (int32_t device = 0; device < DEVICES_MAX; device++) atomic_store(&ways[slot][device], NULL);
  }
}

static const ring2_slot_gpu gpu_side = {begin_step, close_ways, forget_all};

/* Opens the way from one GPU. `libtorch_cuda` is the path of the library that torch has loaded.
 * Returns 0, or -1 with the reason in ring2_torch_cuda_error() of this thread. */
int ring2_torch_cuda_add(int32_t slot, int32_t device, uint64_t ring_bytes,
                         const char *libtorch_cuda) {
  if (slot < 0 || slot >= SLOTS || device < 0 || device >= DEVICES_MAX) {
    snprintf(reason, sizeof reason, "GPU %d is beyond the %d of one process", device, DEVICES_MAX);
    return -1;
  }
  void *libtorch = dlopen(libtorch_cuda, RTLD_LAZY | RTLD_NOLOAD);
  stream_getter getter = NULL;
  if (libtorch != NULL) {
    *(void **)&getter = dlsym(libtorch, "aoti_torch_get_current_cuda_stream");
  }
  if (getter == NULL) {
    snprintf(reason, sizeof reason, "torch cannot tell its stream: %s %s", libtorch_cuda,
             libtorch == NULL ? "is not loaded" : "has no aoti_torch_get_current_cuda_stream");
    return -1;
  }
  atomic_store(&current_stream, getter);
  ring2_slot_set_gpu(&gpu_side);
  ring2_producer *producer = ring2_slot_enter(slot);
  if (producer == NULL) {
    snprintf(reason, sizeof reason, "the producer is closed");
    return -1;
  }
  if (way(slot, device) != NULL) {
    ring2_slot_leave(slot);
    return 0;
  }
  ring2_cuda *cuda = ring2_cuda_open(producer, device, ring_bytes);
  if (cuda != NULL) {
    atomic_store_explicit(&ways[slot][device], cuda, memory_order_release);
    atomic_fetch_add_explicit(&way_counts[slot], 1, memory_order_release);
  }
  ring2_slot_leave(slot);
  if (cuda == NULL) snprintf(reason, sizeof reason, "%s", ring2_cuda_error());
  return cuda == NULL ? -1 : 0;
}

const char *ring2_torch_cuda_error(void) { return reason; }

/* Writes a JSON record behind all that this thread's streams have captured before, on every GPU. 1: it
 * will be written; 0: nothing is on its way, or it cannot be waited for; the caller writes it. */
int ring2_torch_write_behind(int32_t slot, uint32_t kind, const char *json, uint64_t bytes) {
  if (!ring2_torch_cuda_has(slot) || ring2_slot_enter(slot) == NULL) return 0;
  ring2_cuda *on[DEVICES_MAX];
  void *streams[DEVICES_MAX];
  uint32_t count = 0;
  for (int32_t device = 0; device < DEVICES_MAX; device++) {
    on[count] = way(slot, device);
    if (on[count] != NULL && stream_of(device, &streams[count])) count++;
  }
  const int taken = ring2_cuda_write_behind(on, streams, count, kind, json, bytes);
  ring2_slot_leave(slot);
  return taken;
}

/* Copied records and bytes, dropped records and bytes, nodes of graphs, pinned, broken: 7 values.
 * Returns 1, or 0 when the GPU has no way. */
int ring2_torch_cuda_counts(int32_t slot, int32_t device, uint64_t *out) {
  if (ring2_slot_enter(slot) == NULL) return 0;
  ring2_cuda *cuda = way(slot, device);
  if (cuda != NULL) {
    ring2_cuda_counts counts;
    ring2_cuda_count(cuda, &counts);
    const uint64_t values[7] = {counts.copied_records,  counts.copied_bytes, counts.dropped_records,
                                counts.dropped_bytes,   counts.graph_nodes,  counts.pinned,
                                counts.broken};
    for (int i = 0; i < 7; i++) out[i] = values[i];
  }
  ring2_slot_leave(slot);
  return cuda != NULL;
}
