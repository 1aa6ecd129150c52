/* Attention of one new token, computed beside a kernel that returns no probabilities.
 *
 * In a decode step a layer's scores are a few hundred products: the call of each tensor operation that
 * computes them costs more than they do. So the common case is computed here in one pass: one request,
 * one query, float32 in CPU memory, no mask. Everything else goes to the Python it was made with.
 * The figures are those of ring2/_attention.py: query · key · scaling, each head with its group's keys,
 * then softmax in float32.
 */
#include "torch_attention.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "ring2_hooks.h"
#include "torch_ranks.h"
#include "torch_slots.h"

#define ARGUMENTS 5            /* query, key, mask, scaling, causal */
#define PRODUCTS_MAX (1 << 20) /* more are computed by torch, which is quicker then */
#define LANES 8

typedef struct {
  int64_t slot;
  uint64_t generation; /* a copy of a module keeps its taps when the slot is another producer's */
  int32_t layer;
  bool waits;
  bool scores, pattern; /* what the selection has of this layer */
  PyObject *otherwise;
} attention;

typedef struct {
  const float *values;
  ring2_tensor tensor; /* [1, heads, tokens, width] */
} operand;

static bool read_operand(PyObject *object, operand *out) {
  const void *data = NULL;
  uint32_t bytes = 0;
  if (!ring2_python_tensor(object, &out->tensor, &data, &bytes)) return false;
  out->values = data;
  const ring2_tensor *tensor = &out->tensor;
  return tensor->dtype == RING2_DTYPE_FLOAT32 && tensor->ndim == 4 && tensor->dims[0] == 1 &&
         tensor->strides[3] == 1 && tensor->dims[3] % LANES == 0;
}

static float product(const float *one, const float *other, int64_t width) {
  float sums[LANES] = {0};
  for (int64_t i = 0; i < width; i += LANES) {
    for (int64_t lane = 0; lane < LANES; lane++) sums[lane] += one[i + lane] * other[i + lane];
  }
  return ((sums[0] + sums[4]) + (sums[1] + sums[5])) + ((sums[2] + sums[6]) + (sums[3] + sums[7]));
}

/* scores [heads, keys]. */
static void compute_scores(const operand *query, const operand *key, int64_t keys, float scaling,
                           float *scores) {
  const int64_t heads = query->tensor.dims[1], width = query->tensor.dims[3];
  const int64_t group = heads / key->tensor.dims[1];
  for (int64_t head = 0; head < heads; head++) {
    const float *row = query->values + head * query->tensor.strides[1];
    const float *column = key->values + head / group * key->tensor.strides[1];
    for (int64_t at = 0; at < keys; at++, column += key->tensor.strides[2]) {
      *scores++ = product(row, column, width) * scaling;
    }
  }
}

static void softmax(float *row, int64_t count) {
  float highest = row[0], sum = 0;
  for (int64_t i = 1; i < count; i++) highest = row[i] > highest ? row[i] : highest;
  for (int64_t i = 0; i < count; i++) sum += row[i] = expf(row[i] - highest);
  for (int64_t i = 0; i < count; i++) row[i] /= sum;
}

static void write_matrix(const attention *attention, ring2_producer *producer, uint32_t hook,
                         int64_t heads, int64_t keys, const float *values, int64_t step) {
  ring2_tensor tensor;
  memset(&tensor, 0, sizeof tensor);
  tensor.hook = hook;
  tensor.layer = attention->layer;
  tensor.step = step;
  tensor.dtype = RING2_DTYPE_FLOAT32;
  ring2_slot_place(attention->slot, &tensor);
  const int64_t dims[] = {1, heads, 1, keys};
  tensor.ndim = sizeof dims / sizeof dims[0];
  int64_t stride = 1;
  for (uint32_t axis = tensor.ndim; axis-- > 0; stride *= dims[axis]) {
    tensor.dims[axis] = dims[axis];
    tensor.strides[axis] = stride;
  }
  if (ring2_write_tensor(producer, &tensor, values) >= 0) return;
  ring2_count_loss(producer, RING2_LOSS_UNSUPPORTED, 1, (uint64_t)(heads * keys) * sizeof *values);
}

static bool wants(const attention *attention, const ring2_producer *producer, uint32_t hook) {
  return ring2_slot_wants(attention->slot, producer, hook, attention->layer) == 1;
}

/* False for what the Python has to see to. */
static bool compute(const attention *attention, ring2_producer *producer, int64_t step,
                    PyObject *const *arguments) {
  const bool scores = attention->scores && wants(attention, producer, RING2_HOOK_ATTN_SCORES);
  const bool pattern = attention->pattern && wants(attention, producer, RING2_HOOK_PATTERN);
  if (!scores && !pattern) return true;
  operand query, key;
  if (arguments[2] != ring2_python.none || ring2_slot_batch(attention->slot) != 1 ||
      ring2_slot_step_runs(attention->slot) != NULL || attention->waits) {
    return false;
  }
  if (!read_operand(arguments[0], &query) || !read_operand(arguments[1], &key)) return false;
  const int64_t keys = ring2_slot_keys(attention->slot);
  const int64_t heads = query.tensor.dims[1], width = query.tensor.dims[3];
  const int64_t kv_heads = key.tensor.dims[1];
  if (query.tensor.dims[2] != 1 || key.tensor.dims[3] != width || kv_heads == 0 ||
      heads % kv_heads != 0 || keys <= 0 || key.tensor.dims[2] < keys ||
      heads * keys * width > PRODUCTS_MAX) {
    return false;
  }
  double scaling = 1 / sqrt((double)width);
  if (arguments[3] != ring2_python.none) {
    if (!ring2_python.is_instance(arguments[3], ring2_python.float_type)) return false;
    scaling = ring2_python.float_value(arguments[3]);
  }
  float *values = malloc((size_t)(heads * keys) * sizeof *values);
  if (values == NULL) return false;
  compute_scores(&query, &key, keys, (float)scaling, values);
  if (scores) {
    write_matrix(attention, producer, RING2_HOOK_ATTN_SCORES, heads, keys, values, step);
  }
  if (pattern) {
    for (int64_t head = 0; head < heads; head++) softmax(values + head * keys, keys);
    write_matrix(attention, producer, RING2_HOOK_PATTERN, heads, keys, values, step);
  }
  free(values);
  return true;
}

static PyObject *call_attention(PyObject *self, PyObject *const *arguments, intptr_t count) {
  const attention *attention = ring2_python_state(self);
  if (count != ARGUMENTS) return ring2_python_none();
  int64_t step = -1;
  ring2_producer *producer = ring2_slot_enter_step(attention->slot, attention->generation, &step);
  if (producer == NULL) return ring2_python_none();
  const bool seen_to = compute(attention, producer, step, arguments);
  ring2_slot_leave(attention->slot);
  if (seen_to) return ring2_python_none();
  return ring2_python.call(attention->otherwise, arguments[0], arguments[1], arguments[2],
                           arguments[3], arguments[4], NULL);
}

static void destroy_attention(void *state) {
  attention *attention = state;
  ring2_python.decrease(attention->otherwise);
  free(attention);
}

PyObject *ring2_torch_attention(int64_t slot, int32_t layer, int32_t waits, int32_t scores,
                                int32_t pattern, PyObject *otherwise) {
  attention *made = malloc(sizeof *made);
  if (made == NULL) abort();
  *made = (attention){.slot = slot, .generation = ring2_slot_generation(slot), .layer = layer,
                      .waits = waits != 0, .scores = scores != 0, .pattern = pattern != 0,
                      .otherwise = otherwise};
  ring2_python.increase(otherwise);
  return ring2_python_function("attention", call_attention, made, destroy_attention);
}
