/* What the operator asks of torch_slots.c. */
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

/* The slot's producer, kept from being removed until ring2_slot_leave; NULL when the slot is empty. */
ring2_producer *ring2_slot_enter(int64_t slot);
void ring2_slot_leave(int64_t slot);

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
