/* What the operator asks of torch_ranks.c. */
#ifndef RING2_TORCH_RANKS_H
#define RING2_TORCH_RANKS_H

#include "ring2.h"

/* Writes the ranks of the slot's producer into the description of a tensor. */
void ring2_slot_place(int64_t slot, ring2_tensor *tensor);

#endif
