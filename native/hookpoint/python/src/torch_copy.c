/* Fits a described tensor to its step and writes it: the end of every way on which a tensor in CPU
 * memory comes (the operator of torch_op.c, the taps of torch_tap.c). It knows nothing of torch. */
#include "torch_copy.h"

#include <stddef.h>

#include "ring2_hooks.h"
#include "torch_shape.h"
#include "torch_ranks.h"
#include "torch_slots.h"

/* Cuts a key axis to what the step's requests have filled; a static cache has more. */
static bool fits_step(ring2_tensor *tensor, int64_t slot, bool cut) {
  bool fits = tensor->hook != RING2_HOOK_FINAL_LOGITS || !ring2_slot_picked_logits(slot);
  if (cut) {
    const int64_t keys = ring2_slot_keys(slot);
    const uint32_t last = tensor->ndim - 1;
    fits = fits && keys >= 0 && tensor->ndim > 0 && tensor->dims[last] >= keys;
    if (fits) tensor->dims[last] = keys;
  }
  if (!fits) ring2_slot_refused(slot);
  return fits;
}

bool ring2_fit_tensor(ring2_tensor *tensor, const void **data, uint32_t element_bytes, int64_t slot,
                      int64_t coded_hook, int32_t layer, int64_t step) {
  tensor->hook = RING2_PLAIN_HOOK(coded_hook);
  tensor->layer = layer;
  tensor->step = step;
  ring2_slot_place(slot, tensor);
  if (!ring2_split_heads(tensor, data, coded_hook, element_bytes)) return false;
  ring2_fit_batch(tensor, ring2_slot_batch(slot));
  return fits_step(tensor, slot, step >= 0 && (coded_hook & RING2_CUT_KEYS) != 0);
}

bool ring2_copy_tensor(ring2_producer *producer, int64_t slot, const ring2_tensor *tensor,
                       const void *data) {
  const ring2_slot_runs *runs = ring2_slot_step_runs(slot);
  if (runs == NULL) return ring2_write_tensor(producer, tensor, data) >= 0;
  /* The rows of the step speak of the runs: a tensor of another length would be cut wrongly. */
  if (tensor->ndim == 0 || tensor->dims[0] != runs->length) return false;
  return ring2_write_tensor_runs(producer, tensor, data, runs->runs, runs->count) >= 0;
}
