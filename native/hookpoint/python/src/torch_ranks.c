/* The place that each producer of this process has in a parallel model: every tensor it captures
 * carries its ranks. Written once, before the first capture. It knows nothing of torch.
 */
#include "torch_ranks.h"

#include <stdatomic.h>
#include <stddef.h>

#define SLOTS_MAX 64 /* as many as torch_slots.c has */
#define RANK_BITS 16

/* tp, pp, dp and ep, from the lowest bits up; 0 for a model in one process. */
static _Atomic uint64_t places[SLOTS_MAX];

RING2_API int ring2_torch_set_ranks(int32_t slot, uint32_t tp, uint32_t pp, uint32_t dp,
                                    uint32_t ep);

/* Returns 0 for a slot or a rank that is out of range. */
int ring2_torch_set_ranks(int32_t slot, uint32_t tp, uint32_t pp, uint32_t dp, uint32_t ep) {
  if (slot < 0 || slot >= SLOTS_MAX || (tp | pp | dp | ep) > UINT16_MAX) return 0;
  const uint64_t place = (uint64_t)tp | (uint64_t)pp << RANK_BITS |
                         (uint64_t)dp << (2 * RANK_BITS) | (uint64_t)ep << (3 * RANK_BITS);
  atomic_store(&places[slot], place);
  return 1;
}

void ring2_slot_place(int64_t slot, ring2_tensor *tensor) {
  if (slot < 0 || slot >= SLOTS_MAX) return;
  const uint64_t place = atomic_load_explicit(&places[slot], memory_order_relaxed);
  tensor->tp_rank = (uint16_t)place;
  tensor->pp_rank = (uint16_t)(place >> RANK_BITS);
  tensor->dp_rank = (uint16_t)(place >> (2 * RANK_BITS));
  tensor->ep_rank = (uint16_t)(place >> (3 * RANK_BITS));
}
