/* The producers of this process that PyTorch captures into, and the step that each thread is in.
 *
 * What it is: the few calls that Python uses to say which producer and which step, and what the
 * operator asks before it copies. It knows nothing of torch.
 *
 * A slot is read by any thread inside the operator and emptied by `ring2_torch_remove`, which waits
 * until no operator is inside: a segment is never unmapped under a copy. The step is per thread, so
 * forwards in two threads do not mix.
 */
#include "torch_slots.h"

#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>

#define SLOTS_MAX 64 /* producers of one process that capture at the same time */

#define RING2_TORCH_WANTS_NOTHING 1
#define RING2_TORCH_CHOOSES_REQUESTS 2
#define RING2_TORCH_CHOOSES_TOKENS 4

static struct {
  _Atomic(ring2_producer *) producer;
  atomic_int users;
  atomic_uint_least64_t generation;
} slots[SLOTS_MAX];

/* The forward that this thread runs for each slot. */
typedef struct thread_state {
  int64_t step_after; /* step + 1; 0: not in a step */
  int64_t batch;      /* rows of that step's batch; 0: its rows are packed */
  int64_t keys;       /* columns of the key axis that are filled; below 0: not the requests' own */
  bool picked_logits; /* the caller chose the positions of the logits */
  bool refused;       /* a tensor of this step was not copied for one of these two reasons */
  ring2_slot_runs runs;
  ring2_control control; /* sequence 0: not taken, so that the segment is asked */
  struct thread_state *outer;
} thread_state;

static _Thread_local thread_state threads[SLOTS_MAX];
static _Atomic(const ring2_slot_gpu *) gpu_side;

static bool is_slot(int64_t slot) { return slot >= 0 && slot < SLOTS_MAX; }

ring2_producer *ring2_slot_enter(int64_t slot) {
  if (!is_slot(slot)) return NULL;
  atomic_fetch_add(&slots[slot].users, 1);
  ring2_producer *producer = atomic_load(&slots[slot].producer);
  if (producer == NULL) atomic_fetch_sub(&slots[slot].users, 1);
  return producer;
}

void ring2_slot_leave(int64_t slot) { atomic_fetch_sub(&slots[slot].users, 1); }

void ring2_slot_set_gpu(const ring2_slot_gpu *gpu) { atomic_store(&gpu_side, gpu); }

ring2_producer *ring2_slot_enter_step(int64_t slot, uint64_t generation, int64_t *step) {
  *step = ring2_slot_step(slot);
  return *step < 0 || ring2_slot_generation(slot) != generation ? NULL : ring2_slot_enter(slot);
}

uint64_t ring2_slot_generation(int64_t slot) {
  return is_slot(slot) ? atomic_load(&slots[slot].generation) : 0;
}

int64_t ring2_slot_step(int64_t slot) {
  return is_slot(slot) ? threads[slot].step_after - 1 : -1;
}

int64_t ring2_slot_batch(int64_t slot) {
  return is_slot(slot) ? threads[slot].batch : 0;
}

const ring2_slot_runs *ring2_slot_step_runs(int64_t slot) {
  return is_slot(slot) && threads[slot].runs.count > 0 ? &threads[slot].runs : NULL;
}

int64_t ring2_slot_keys(int64_t slot) { return is_slot(slot) ? threads[slot].keys : -1; }

bool ring2_slot_picked_logits(int64_t slot) {
  return is_slot(slot) && threads[slot].picked_logits;
}

void ring2_slot_refused(int64_t slot) {
  if (is_slot(slot)) threads[slot].refused = true;
}

int ring2_slot_wants(int64_t slot, const ring2_producer *producer, uint32_t hook, int32_t layer) {
  if (!is_slot(slot)) return 0;
  const ring2_control *control = &threads[slot].control;
  if (control->sequence == 0) return ring2_wants(producer, hook, layer);
  return ring2_control_wants(control, hook, layer);
}

RING2_API int32_t ring2_torch_add(ring2_producer *producer);
RING2_API void ring2_torch_remove(int32_t slot);
RING2_API void ring2_torch_forget_all(void);
RING2_API void ring2_torch_set_step(int32_t slot, int64_t step);
RING2_API int ring2_torch_end_step(int32_t slot);
RING2_API void ring2_torch_set_batch(int32_t slot, int64_t batch);
RING2_API void ring2_torch_set_limits(int32_t slot, int64_t keys, int picked_logits);
RING2_API void ring2_torch_push(int32_t slot);
RING2_API void ring2_torch_pop(int32_t slot);
RING2_API void ring2_torch_drop(int32_t slot);
RING2_API int ring2_torch_set_runs(int32_t slot, int64_t length, uint32_t count,
                                   const uint32_t *pairs);
RING2_API int ring2_torch_wants(int32_t slot, uint32_t hook, int32_t layer);
RING2_API int64_t ring2_torch_take_control(int32_t slot);
RING2_API int ring2_torch_control_wants(int32_t slot, uint32_t hook, int32_t layer);
RING2_API int ring2_torch_wants_request(int32_t slot, const char *request_id, uint64_t bytes,
                                        int sampled);
RING2_API int ring2_torch_wants_tokens(int32_t slot, uint32_t phase, int32_t token_start,
                                       int32_t token_end);

/* Takes a producer into a slot. Returns the slot, or -1 when all are taken. */
int32_t ring2_torch_add(ring2_producer *producer) {
  for (int32_t slot = 0; slot < SLOTS_MAX; slot++) {
    ring2_producer *expected = NULL;
    if (!atomic_compare_exchange_strong(&slots[slot].producer, &expected, producer)) continue;
    atomic_fetch_add(&slots[slot].generation, 1);
    return slot;
  }
  return -1;
}

/* Empties a slot; returns when no operator uses its producer any more. */
void ring2_torch_remove(int32_t slot) {
  if (!is_slot(slot)) return;
  atomic_store(&slots[slot].producer, NULL);
  while (atomic_load(&slots[slot].users) > 0) sched_yield();
  const ring2_slot_gpu *gpu = atomic_load(&gpu_side);
  if (gpu != NULL) gpu->remove(slot);
}

/* In a forked child: the segments belong to the parent, so every slot is emptied without waiting
 * (the threads that were inside do not exist here). */
void ring2_torch_forget_all(void) {
  for (int32_t slot = 0; slot < SLOTS_MAX; slot++) {
    atomic_store(&slots[slot].producer, NULL);
    atomic_store(&slots[slot].users, 0);
  }
  const ring2_slot_gpu *gpu = atomic_load(&gpu_side);
  if (gpu != NULL) gpu->forget_all();
}

/* Says on the GPU which step this thread is in. */
static void tell_gpu(int32_t slot) {
  const thread_state *state = &threads[slot];
  const ring2_slot_gpu *gpu = atomic_load(&gpu_side);
  if (gpu == NULL) return;
  const uint64_t *wanted = NULL;
  ring2_producer *producer = ring2_slot_enter(slot);
  if (producer != NULL) {
    wanted = state->control.sequence != 0 ? &state->control.wanted[0][0]
                                          : &ring2_producer_header(producer)->wanted[0][0];
  }
  gpu->step(slot, state->step_after - 1, wanted);
  if (producer != NULL) ring2_slot_leave(slot);
}

/* The step that this thread's next captures belong to; -1: none, captures are ignored. */
void ring2_torch_set_step(int32_t slot, int64_t step) {
  if (!is_slot(slot)) return;
  threads[slot].step_after = step + 1;
  tell_gpu(slot);
  if (step >= 0) return;
  threads[slot].runs.count = 0;
  threads[slot].control.sequence = 0;
}

/* Ends the step. Returns 1 when tensors of it were refused for its keys or its logits. */
int ring2_torch_end_step(int32_t slot) {
  if (!is_slot(slot)) return 0;
  const bool refused = threads[slot].refused;
  threads[slot].refused = false;
  ring2_torch_set_step(slot, -1);
  return refused ? 1 : 0;
}

/* What is known of the step's keys and logits, until its end. */
void ring2_torch_set_limits(int32_t slot, int64_t keys, int picked_logits) {
  if (!is_slot(slot)) return;
  threads[slot].keys = keys;
  threads[slot].picked_logits = picked_logits != 0;
}

/* Lays the step aside while a forward inside it has one of its own. */
void ring2_torch_push(int32_t slot) {
  if (!is_slot(slot)) return;
  thread_state *outer = malloc(sizeof *outer);
  if (outer == NULL) return;
  *outer = threads[slot];
  threads[slot].outer = outer;
}

/* Takes the step that was laid aside last; without one, this thread is in no step. */
void ring2_torch_pop(int32_t slot) {
  if (!is_slot(slot)) return;
  thread_state *outer = threads[slot].outer;
  if (outer == NULL) {
    ring2_torch_set_step(slot, -1);
    return;
  }
  threads[slot] = *outer;
  free(outer);
  tell_gpu(slot);
}

/* Forgets every step that was laid aside. */
void ring2_torch_drop(int32_t slot) {
  while (is_slot(slot) && threads[slot].outer != NULL) ring2_torch_pop(slot);
  ring2_torch_set_step(slot, -1);
}

/* Rows of the batch of this thread's steps from now on; 0: packed, tensors have no batch axis. */
void ring2_torch_set_batch(int32_t slot, int64_t batch) {
  if (is_slot(slot)) threads[slot].batch = batch;
}

/* The parts of the step's first axis (`length` long) that are copied, until the step's end: pairs of
 * start and count. 0 when there are too many: the step is then copied whole. */
int ring2_torch_set_runs(int32_t slot, int64_t length, uint32_t count, const uint32_t *pairs) {
  if (!is_slot(slot) || count > RING2_SLOT_RUNS_MAX || (count > 0 && pairs == NULL)) return 0;
  ring2_slot_runs *runs = &threads[slot].runs;
  for (uint32_t i = 0; i < count; i++) {
    runs->runs[i].start = pairs[2 * i];
    runs->runs[i].count = pairs[2 * i + 1];
  }
  runs->length = length;
  runs->count = count;
  return 1;
}

/* 1 when this thread is in a step and the exporter wants the tensor: ask before computing one. */
int ring2_torch_wants(int32_t slot, uint32_t hook, int32_t layer) {
  if (!is_slot(slot) || threads[slot].step_after == 0) return 0;
  ring2_producer *producer = ring2_slot_enter(slot);
  if (producer == NULL) return 0;
  int wanted = ring2_slot_wants(slot, producer, hook, layer);
  ring2_slot_leave(slot);
  return wanted == 1;
}

/* Takes what the exporter wants, for all that this thread asks until its step ends. Returns its
 * sequence, shifted by 8, and beside it RING2_TORCH_… flags. */
int64_t ring2_torch_take_control(int32_t slot) {
  ring2_producer *producer = ring2_slot_enter(slot);
  if (producer == NULL) return RING2_TORCH_WANTS_NOTHING;
  ring2_control *control = &threads[slot].control;
  int64_t flags = 0;
  if (ring2_take_control(producer, control) != RING2_OK || control->nothing != 0) {
    flags |= RING2_TORCH_WANTS_NOTHING;
  }
  ring2_slot_leave(slot);
  const bool sampled_only = (control->flags & RING2_CONTROL_SAMPLED_ONLY) != 0;
  if (sampled_only || control->request_share < RING2_CONTROL_ALL_REQUESTS) {
    flags |= RING2_TORCH_CHOOSES_REQUESTS;
  }
  const bool prefill = (control->flags & RING2_CONTROL_PREFILL) != 0;
  if (!prefill || control->decode_every != 1) flags |= RING2_TORCH_CHOOSES_TOKENS;
  return (int64_t)control->sequence << 8 | flags;
}

int ring2_torch_control_wants(int32_t slot, uint32_t hook, int32_t layer) {
  return is_slot(slot) ? ring2_control_wants(&threads[slot].control, hook, layer) : 0;
}

int ring2_torch_wants_request(int32_t slot, const char *request_id, uint64_t bytes, int sampled) {
  return is_slot(slot)
             ? ring2_control_wants_request(&threads[slot].control, request_id, bytes, sampled)
             : 0;
}

int ring2_torch_wants_tokens(int32_t slot, uint32_t phase, int32_t token_start, int32_t token_end) {
  return is_slot(slot)
             ? ring2_control_wants_tokens(&threads[slot].control, phase, token_start, token_end)
             : 0;
}
