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
#include <stddef.h>

#define SLOTS_MAX 64 /* producers of one process that capture at the same time */

static struct {
  _Atomic(ring2_producer *) producer;
  atomic_int users;
} slots[SLOTS_MAX];

/* Step + 1 of the forward that this thread runs for each slot; 0: not in a step. */
static _Thread_local int64_t thread_steps[SLOTS_MAX];

/* Rows of that step's batch; 0: its rows are packed. */
static _Thread_local int64_t thread_batches[SLOTS_MAX];

ring2_producer *ring2_slot_enter(int64_t slot) {
  if (slot < 0 || slot >= SLOTS_MAX) return NULL;
  atomic_fetch_add(&slots[slot].users, 1);
  ring2_producer *producer = atomic_load(&slots[slot].producer);
  if (producer == NULL) atomic_fetch_sub(&slots[slot].users, 1);
  return producer;
}

void ring2_slot_leave(int64_t slot) { atomic_fetch_sub(&slots[slot].users, 1); }

int64_t ring2_slot_step(int64_t slot) {
  return slot >= 0 && slot < SLOTS_MAX ? thread_steps[slot] - 1 : -1;
}

int64_t ring2_slot_batch(int64_t slot) {
  return slot >= 0 && slot < SLOTS_MAX ? thread_batches[slot] : 0;
}

RING2_API int32_t ring2_torch_add(ring2_producer *producer);
RING2_API void ring2_torch_remove(int32_t slot);
RING2_API void ring2_torch_forget_all(void);
RING2_API void ring2_torch_set_step(int32_t slot, int64_t step);
RING2_API void ring2_torch_set_batch(int32_t slot, int64_t batch);
RING2_API int ring2_torch_wants(int32_t slot, uint32_t hook, int32_t layer);

/* Takes a producer into a slot. Returns the slot, or -1 when all are taken. */
int32_t ring2_torch_add(ring2_producer *producer) {
  for (int32_t slot = 0; slot < SLOTS_MAX; slot++) {
    ring2_producer *expected = NULL;
    if (atomic_compare_exchange_strong(&slots[slot].producer, &expected, producer)) return slot;
  }
  return -1;
}

/* Empties a slot; returns when no operator uses its producer any more. */
void ring2_torch_remove(int32_t slot) {
  if (slot < 0 || slot >= SLOTS_MAX) return;
  atomic_store(&slots[slot].producer, NULL);
  while (atomic_load(&slots[slot].users) > 0) sched_yield();
}

/* In a forked child: the segments belong to the parent, so every slot is emptied without waiting
 * (the threads that were inside do not exist here). */
void ring2_torch_forget_all(void) {
  for (int32_t slot = 0; slot < SLOTS_MAX; slot++) {
    atomic_store(&slots[slot].producer, NULL);
    atomic_store(&slots[slot].users, 0);
  }
}

/* The step that this thread's next captures belong to; -1: none, captures are ignored. */
void ring2_torch_set_step(int32_t slot, int64_t step) {
  if (slot >= 0 && slot < SLOTS_MAX) thread_steps[slot] = step + 1;
}

/* Rows of the batch of this thread's steps from now on; 0: packed, tensors have no batch axis. */
void ring2_torch_set_batch(int32_t slot, int64_t batch) {
  if (slot >= 0 && slot < SLOTS_MAX) thread_batches[slot] = batch;
}

/* 1 when this thread is in a step and the exporter wants the tensor: ask before computing one. */
int ring2_torch_wants(int32_t slot, uint32_t hook, int32_t layer) {
  if (slot < 0 || slot >= SLOTS_MAX || thread_steps[slot] == 0) return 0;
  ring2_producer *producer = ring2_slot_enter(slot);
  if (producer == NULL) return 0;
  int wanted = ring2_wants(producer, hook, layer);
  ring2_slot_leave(slot);
  return wanted == 1;
}
