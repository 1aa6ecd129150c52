/* What the operator asks of torch_slots.c. */
#ifndef RING2_TORCH_SLOTS_H
#define RING2_TORCH_SLOTS_H

#include "ring2.h"

/* The slot's producer, kept from being removed until ring2_slot_leave; NULL when the slot is empty. */
ring2_producer *ring2_slot_enter(int64_t slot);
void ring2_slot_leave(int64_t slot);

/* The step that this thread runs for the slot; -1 when it is in none. */
int64_t ring2_slot_step(int64_t slot);

/* Rows of that step's batch; 0 when its rows are packed. */
int64_t ring2_slot_batch(int64_t slot);

#endif
