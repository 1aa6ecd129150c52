/* Fits the axes of a captured tensor to the step it belongs to.
 *
 * This is done here and not in Python because a compiled model runs no Python between its modules,
 * and the batch is a fact of the call, not of the graph.
 */
#include "torch_shape.h"

#include <stdbool.h>

#include "ring2_hooks.h"

static void split_rows(ring2_tensor *tensor, int64_t batch) {
  for (uint32_t axis = tensor->ndim; axis > 0; axis--) {
    tensor->dims[axis] = tensor->dims[axis - 1];
    tensor->strides[axis] = tensor->strides[axis - 1];
  }
  tensor->dims[1] = tensor->dims[0] / batch;
  tensor->dims[0] = batch;
  tensor->strides[0] = tensor->strides[1] * tensor->dims[1];
  tensor->ndim++;
}

void ring2_fit_batch(ring2_tensor *tensor, int64_t batch) {
  if (batch <= 0 || tensor->hook >= sizeof ring2_hook_facts / sizeof ring2_hook_facts[0]) return;
  const ring2_hook_fact *fact = &ring2_hook_facts[tensor->hook];
  if (fact->name == NULL || fact->shape != RING2_SHAPE_TOKEN || tensor->ndim == 0) return;
  const bool flat = tensor->ndim == fact->axes && tensor->ndim < RING2_DIMS_MAX;
  if (flat && tensor->dims[0] % batch == 0) {
    split_rows(tensor, batch);
  } else if (tensor->ndim == fact->axes + 1u && tensor->dims[0] == 1) {
    tensor->dims[0] = batch;
    tensor->strides[0] = 0;
  }
}
