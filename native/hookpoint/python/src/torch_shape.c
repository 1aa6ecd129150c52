/* Fits the axes of a captured tensor to the step it belongs to.
 *
 * This is done here and not in Python because a compiled model runs no Python between its modules,
 * and the batch is a fact of the call, not of the graph.
 */
#include "torch_shape.h"

#include <stdbool.h>

#include "ring2_hooks.h"

#define HEADS_APART_AXES 4 /* [batch, tokens, heads, head_dim] */

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

bool ring2_split_heads(ring2_tensor *tensor, const void **data, int64_t coded_hook,
                       uint32_t element_bytes) {
  const int64_t width = coded_hook >> RING2_HEAD_DIM_SHIFT & RING2_HEADS_MASK;
  const int64_t first = coded_hook >> RING2_HEAD_FIRST_SHIFT & RING2_HEADS_MASK;
  const int64_t count = coded_hook >> RING2_HEAD_COUNT_SHIFT & RING2_HEADS_MASK;
  if (width == 0 || (count == 0 && tensor->ndim == HEADS_APART_AXES)) return true;
  if (tensor->ndim == 0 || tensor->ndim >= RING2_DIMS_MAX) return false;
  const uint32_t last = tensor->ndim - 1;
  const int64_t heads = tensor->dims[last] / width;
  if (tensor->dims[last] % width != 0 || first + count > heads) return false;
  const int64_t stride = tensor->strides[last];
  tensor->dims[last] = count == 0 ? heads : count;
  tensor->strides[last] = stride * width;
  tensor->dims[last + 1] = width;
  tensor->strides[last + 1] = stride;
  tensor->ndim++;
  *data = (const uint8_t *)*data + first * width * stride * (int64_t)element_bytes;
  return true;
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
