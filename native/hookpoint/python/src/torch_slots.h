/* What the operator and the GPU's side ask of torch_slots.c. It calls neither of them by name. */
#ifndef RING2_TORCH_SLOTS_H
#define RING2_TORCH_SLOTS_H

#include <stdbool.h>

#include "ring2.h"

#define RING2_SLOT_RUNS_MAX 64 /* parts of a step's first axis; with more the step is copied whole */

typedef struct ring2_slot_runs {
  int64_t length; /* of the axis that the runs are of */
  uint32_t count;
  ring2_run runs[RING2_SLOT_RUNS_MAX];
} ring2_slot_runs;

/* What slots tell the side that copies from GPUs, when there is one. */
typedef struct ring2_slot_gpu {
  /* Which step this thread begins (ring2_slot_step_runs of it); below 0: none. `wanted` NULL: nothing
   * of it. */
  void (*step)(int64_t slot, int64_t step, const uint64_t *wanted);
  void (*remove)(int64_t slot); /* waits for what is on its way */
  void (*forget_all)(void);     /* in a forked child */
} ring2_slot_gpu;
void ring2_slot_set_gpu(const ring2_slot_gpu *gpu);

/* The slot's producer, kept from being removed until ring2_slot_leave; NULL when the slot is empty. */
ring2_producer *ring2_slot_enter(int64_t slot);
void ring2_slot_leave(int64_t slot);

/* The same inside a step of this thread, for what was made for that generation of the slot; NULL else. */
ring2_producer *ring2_slot_enter_step(int64_t slot, uint64_t generation, int64_t *step);

/* Which of the producers that the slot has had it is for now: what was made for another must not act. */
uint64_t ring2_slot_generation(int64_t slot);

/* The step that this thread runs for the slot; -1 when it is in none. */
int64_t ring2_slot_step(int64_t slot);

/* Rows of that step's batch; 0 when its rows are packed. */
int64_t ring2_slot_batch(int64_t slot);

/* Which parts of its first axis the step holds; NULL when it holds all. */
const ring2_slot_runs *ring2_slot_step_runs(int64_t slot);

/* Columns of the key axis that hold the requests' keys; below 0 when they cannot be told apart. */
int64_t ring2_slot_keys(int64_t slot);
/* Whether the step's logits are of positions that the caller chose. */
bool ring2_slot_picked_logits(int64_t slot);
/* Notes that a tensor was not copied for either. */
void ring2_slot_refused(int64_t slot);

/* Asks what this thread took at the beginning of its step, or the segment when it took nothing. */
int ring2_slot_wants(int64_t slot, const ring2_producer *producer, uint32_t hook, int32_t layer);

#endif
