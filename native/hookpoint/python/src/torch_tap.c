/* Taps: Python callables, made here, that a module of an eager model calls as its forward hook.
 *
 * Why: a decode step reads all weights of a model, so whatever runs between two modules finds its
 * code and data out of the caches, and a hook written in Python costs several times what it costs in
 * a loop. A tap picks the tensor, asks whether it is wanted and copies it without running Python.
 *
 * A tap knows one case well: an ordinary CPU tensor. With anything else (a subclass, another device, a
 * tensor without bytes, an output of another shape) it calls the hook written in Python that it was
 * made with, which knows all cases. Nothing is captured twice and nothing is left out.
 */
#include "torch_tap.h"

#include <stdlib.h>

#include "torch_copy.h"
#include "torch_slots.h"

#define HOOK_ARGUMENTS 3         /* module, inputs, output; before the call: module, inputs, named inputs */
#define UNLOCKED_BYTES (1 << 20) /* copies from here on let other Python threads run */

typedef struct {
  int64_t slot, coded_hook;
  uint64_t generation; /* a copy of a module keeps its taps when the slot is another producer's */
  int32_t layer;
  int32_t source, part;
  bool waits;          /* the producer waits for room: never with other threads locked out */
  PyObject *argument;  /* name of an input that may be passed by name; None */
  PyObject *otherwise; /* the hook written in Python */
} tap;

static PyObject *part_of(PyObject *tuple, intptr_t part) {
  if (!ring2_python.is_instance(tuple, ring2_python.tuple_type)) return NULL;
  return part < ring2_python.tuple_size(tuple) ? ring2_python.tuple_item(tuple, part) : NULL;
}

/* The tensor that is meant, borrowed; NULL for what a tap does not know. */
static PyObject *pick(const tap *tap, PyObject *inputs, PyObject *last) {
  PyObject *part = NULL;
  switch (tap->source) {
    case RING2_TAP_OUTPUT:
      part = part_of(last, tap->part);
      return part != NULL ? part : last;
    case RING2_TAP_STREAM:
      part = part_of(last, 1);
      return part != NULL ? part : part_of(inputs, 0);
    case RING2_TAP_NAMED_INPUT:
      part = part_of(inputs, tap->part);
      return part != NULL ? part : ring2_python.dict_item(last, tap->argument);
    default: return part_of(inputs, tap->part);
  }
}

static uint64_t bytes_of(const ring2_tensor *tensor, uint32_t element_bytes) {
  uint64_t bytes = element_bytes;
  for (uint32_t axis = 0; axis < tensor->ndim; axis++) bytes *= (uint64_t)tensor->dims[axis];
  return bytes;
}

/* False for what the hook in Python has to see to. */
static bool copy(const tap *tap, ring2_producer *producer, PyObject *object, int64_t step) {
  ring2_tensor tensor;
  const void *data = NULL;
  uint32_t element_bytes = 0;
  if (!ring2_python_tensor(object, &tensor, &data, &element_bytes)) return false;
  const uint64_t bytes = bytes_of(&tensor, element_bytes);
  bool copied = ring2_fit_tensor(&tensor, &data, element_bytes, tap->slot, tap->coded_hook,
                                 tap->layer, step);
  if (copied) {
    const bool unlock = tap->waits || bytes >= UNLOCKED_BYTES;
    void *thread = unlock ? ring2_python.save_thread() : NULL;
    copied = ring2_copy_tensor(producer, tap->slot, &tensor, data);
    if (unlock) ring2_python.restore_thread(thread);
  }
  if (!copied) ring2_count_loss(producer, RING2_LOSS_UNSUPPORTED, 1, bytes);
  return true;
}

static PyObject *call_tap(PyObject *self, PyObject *const *arguments, intptr_t count) {
  const tap *tap = ring2_python_state(self);
  if (count != HOOK_ARGUMENTS) return ring2_python_none();
  int64_t step = -1;
  ring2_producer *producer = ring2_slot_enter_step(tap->slot, tap->generation, &step);
  if (producer == NULL) return ring2_python_none();
  bool seen_to = true;
  if (ring2_slot_wants(tap->slot, producer, RING2_PLAIN_HOOK(tap->coded_hook), tap->layer) == 1) {
    seen_to = copy(tap, producer, pick(tap, arguments[1], arguments[2]), step);
  }
  ring2_slot_leave(tap->slot);
  if (seen_to) return ring2_python_none();
  return ring2_python.call(tap->otherwise, arguments[0], arguments[1], arguments[2], NULL);
}

static void destroy_tap(void *state) {
  tap *tap = state;
  ring2_python.decrease(tap->argument);
  ring2_python.decrease(tap->otherwise);
  free(tap);
}

PyObject *ring2_torch_tap(int64_t slot, int64_t coded_hook, int32_t layer, int32_t source,
                          int32_t part, int32_t waits, PyObject *argument, PyObject *otherwise) {
  tap *made = malloc(sizeof *made);
  if (made == NULL) abort();
  *made = (tap){.slot = slot, .coded_hook = coded_hook, .generation = ring2_slot_generation(slot),
                .layer = layer, .source = source, .part = part, .waits = waits != 0,
                .argument = argument, .otherwise = otherwise};
  ring2_python.increase(argument);
  ring2_python.increase(otherwise);
  return ring2_python_function("tap", call_tap, made, destroy_tap);
}
