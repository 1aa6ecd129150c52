/* Taps: Python callables, made here, that a module of an eager model calls as its forward hook.
 *
 * Why: a decode step reads all weights of a model, so whatever runs between two modules finds its
 * code and data out of the caches, and a hook written in Python costs several times what it costs in
 * a loop. A tap picks the tensor, asks whether it is wanted and copies it without running Python.
 *
 * A tap knows one case well: an ordinary CPU tensor. With anything else (a subclass, another device, a
 * tensor without bytes, an output of another shape) it calls the hook written in Python that it was
 * made with, which knows all cases. Nothing is captured twice and nothing is left out.
 *
 * It needs no Python or torch headers. Of Python it uses functions of the stable ABI, looked up in the
 * process that has loaded this library (docs.python.org/3/c-api/stable.html); of torch the C exchange
 * interface of DLPack 1.3, by which a tensor describes itself without being referenced
 * (dmlc.github.io/dlpack/latest/c_api.html). Where either is missing there are no taps.
 */
#include "torch_tap.h"

#include <dlfcn.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "torch_copy.h"
#include "torch_slots.h"

#define UNLOCKED_BYTES (1 << 20) /* copies from here on let other Python threads run */
#define TAP_NAME "ring2.tap"

/* ------------------------------------------------------------------ Python's stable ABI */

typedef struct {
  const char *name;
  PyObject *(*function)(PyObject *self, PyObject *const *arguments, intptr_t count);
  int flags;
  const char *text;
} method_definition;

#define METH_FASTCALL 0x0080

static struct {
  PyObject *(*new_function)(method_definition *, PyObject *self, PyObject *module);
  PyObject *(*new_capsule)(void *, const char *name, void (*destroy)(PyObject *));
  void *(*capsule_pointer)(PyObject *, const char *name);
  PyObject *(*type_of)(PyObject *);
  int (*is_instance)(PyObject *, PyObject *type);
  intptr_t (*tuple_size)(PyObject *);
  PyObject *(*tuple_item)(PyObject *, intptr_t); /* borrowed */
  PyObject *(*dict_item)(PyObject *, PyObject *key); /* borrowed, raises nothing */
  PyObject *(*call)(PyObject *function, ...);
  void (*increase)(PyObject *);
  void (*decrease)(PyObject *);
  void (*clear_error)(void);
  void *(*save_thread)(void);
  void (*restore_thread)(void *);
  PyObject *tuple_type, *none;
} python;

/* ------------------------------------------------------------------ DLPack's exchange interface */

#define DLPACK_MAJOR 1
#define DLPACK_CPU 1

typedef struct {
  void *data;
  int32_t device_type, device_index;
  int32_t ndim;
  uint8_t code, bits; /* of an element */
  uint16_t lanes;
  int64_t *shape, *strides;
  uint64_t byte_offset;
} dlpack_tensor;

typedef struct {
  uint32_t major, minor;
  void *previous;
  void *managed_allocator, *managed_from, *managed_to;
  int (*describe)(void *object, dlpack_tensor *out); /* borrows; not 0: a Python error is set */
} dlpack_exchange;

enum { DLPACK_INT, DLPACK_UINT, DLPACK_FLOAT, DLPACK_BFLOAT = 4, DLPACK_BOOL = 6 };

static uint32_t dtype_of(const dlpack_tensor *tensor) {
  if (tensor->lanes != 1) return 0;
  switch (tensor->code << 8 | tensor->bits) {
    case DLPACK_FLOAT << 8 | 32: return RING2_DTYPE_FLOAT32;
    case DLPACK_FLOAT << 8 | 16: return RING2_DTYPE_FLOAT16;
    case DLPACK_FLOAT << 8 | 64: return RING2_DTYPE_FLOAT64;
    case DLPACK_BFLOAT << 8 | 16: return RING2_DTYPE_BFLOAT16;
    case DLPACK_INT << 8 | 8: return RING2_DTYPE_INT8;
    case DLPACK_INT << 8 | 16: return RING2_DTYPE_INT16;
    case DLPACK_INT << 8 | 32: return RING2_DTYPE_INT32;
    case DLPACK_INT << 8 | 64: return RING2_DTYPE_INT64;
    case DLPACK_UINT << 8 | 8: return RING2_DTYPE_UINT8;
    case DLPACK_BOOL << 8 | 8: return RING2_DTYPE_BOOL;
    default: return 0;
  }
}

/* ------------------------------------------------------------------ a tap */

typedef struct {
  int64_t slot, coded_hook;
  int32_t layer;
  int32_t source, part;
  bool waits;          /* the producer waits for room: never with other threads locked out */
  PyObject *argument;  /* name of an input that may be passed by name; None */
  PyObject *otherwise; /* the hook written in Python */
} tap;

static const dlpack_exchange *exchange;
static PyObject *plain_types[2]; /* torch.Tensor and torch.nn.Parameter; a subclass may be no memory */

static bool is_plain(PyObject *object) {
  PyObject *type = python.type_of(object);
  python.decrease(type);
  return type == plain_types[0] || type == plain_types[1];
}

static PyObject *part_of(PyObject *tuple, intptr_t part) {
  if (!python.is_instance(tuple, python.tuple_type)) return NULL;
  return part < python.tuple_size(tuple) ? python.tuple_item(tuple, part) : NULL;
}

/* The tensor that is meant, borrowed; NULL for what a tap does not know. */
static PyObject *pick(const tap *tap, PyObject *inputs, PyObject *last) {
  switch (tap->source) {
    case RING2_TAP_OUTPUT: {
      PyObject *part = part_of(last, tap->part);
      return part != NULL ? part : last;
    }
    case RING2_TAP_STREAM: {
      PyObject *sum = part_of(last, 1);
      return sum != NULL ? sum : part_of(inputs, 0);
    }
    case RING2_TAP_NAMED_INPUT: {
      PyObject *part = part_of(inputs, tap->part);
      return part != NULL ? part : python.dict_item(last, tap->argument);
    }
    default: return part_of(inputs, tap->part);
  }
}

/* False for what the hook in Python has to see to. */
static bool copy(const tap *tap, ring2_producer *producer, PyObject *object, int64_t step) {
  if (object == NULL || !is_plain(object)) return false;
  dlpack_tensor source;
  if (exchange->describe(object, &source) != 0) {
    python.clear_error();
    return false;
  }
  ring2_tensor tensor;
  memset(&tensor, 0, sizeof tensor);
  tensor.dtype = dtype_of(&source);
  if (source.device_type != DLPACK_CPU || tensor.dtype == 0 || source.ndim < 0 ||
      source.ndim > (int32_t)RING2_DIMS_MAX || source.data == NULL) {
    return false;
  }
  uint64_t bytes = source.bits / 8;
  const uint32_t element_bytes = (uint32_t)bytes;
  tensor.ndim = (uint32_t)source.ndim;
  for (int32_t axis = 0; axis < source.ndim; axis++) {
    tensor.dims[axis] = source.shape[axis];
    tensor.strides[axis] = source.strides[axis];
    bytes *= (uint64_t)source.shape[axis];
  }
  const void *data = (const uint8_t *)source.data + source.byte_offset;
  bool copied = ring2_fit_tensor(&tensor, &data, element_bytes, tap->slot, tap->coded_hook,
                                 tap->layer, step);
  if (copied) {
    void *thread = tap->waits || bytes >= UNLOCKED_BYTES ? python.save_thread() : NULL;
    copied = ring2_copy_tensor(producer, tap->slot, &tensor, data);
    if (thread != NULL) python.restore_thread(thread);
  }
  if (!copied) ring2_count_loss(producer, RING2_LOSS_UNSUPPORTED, 1, bytes);
  return true;
}

static PyObject *call_tap(PyObject *self, PyObject *const *arguments, intptr_t count) {
  const tap *tap = python.capsule_pointer(self, TAP_NAME);
  const int64_t step = ring2_slot_step(tap->slot);
  ring2_producer *producer = step < 0 ? NULL : ring2_slot_enter(tap->slot);
  bool seen_to = true;
  if (producer != NULL) {
    const uint32_t hook = RING2_PLAIN_HOOK(tap->coded_hook);
    if (ring2_slot_wants(tap->slot, producer, hook, tap->layer) == 1) {
      seen_to = count == RING2_TAP_ARGUMENTS &&
                copy(tap, producer, pick(tap, arguments[1], arguments[2]), step);
    }
    ring2_slot_leave(tap->slot);
  }
  if (!seen_to) {
    return python.call(tap->otherwise, arguments[0], arguments[1], arguments[2], NULL);
  }
  python.increase(python.none);
  return python.none;
}

static void destroy_tap(PyObject *capsule) {
  tap *tap = python.capsule_pointer(capsule, TAP_NAME);
  python.decrease(tap->argument);
  python.decrease(tap->otherwise);
  free(tap);
}

PyObject *ring2_torch_tap(int64_t slot, int64_t coded_hook, int32_t layer, int32_t source,
                          int32_t part, int32_t waits, PyObject *argument, PyObject *otherwise) {
  static method_definition definition = {"tap", call_tap, METH_FASTCALL,
                                         "Copies a tensor of the module that it is a hook of."};
  tap *tap = malloc(sizeof *tap);
  if (tap == NULL) abort();
  tap->slot = slot;
  tap->coded_hook = coded_hook;
  tap->layer = layer;
  tap->source = source;
  tap->part = part;
  tap->waits = waits != 0;
  tap->argument = argument;
  tap->otherwise = otherwise;
  python.increase(argument);
  python.increase(otherwise);
  PyObject *capsule = python.new_capsule(tap, TAP_NAME, destroy_tap);
  if (capsule == NULL) return NULL;
  PyObject *function = python.new_function(&definition, capsule, NULL);
  python.decrease(capsule);
  return function;
}

/* ------------------------------------------------------------------ at the start */

static bool load_python(void) {
  bool found = true;
#define LOAD(field, name)                                       \
  do {                                                          \
    *(void **)&python.field = dlsym(RTLD_DEFAULT, name);        \
    found = found && *(void **)&python.field != NULL;           \
  } while (0)
  LOAD(new_function, "PyCFunction_NewEx");
  LOAD(new_capsule, "PyCapsule_New");
  LOAD(capsule_pointer, "PyCapsule_GetPointer");
  LOAD(type_of, "PyObject_Type");
  LOAD(is_instance, "PyObject_IsInstance");
  LOAD(tuple_size, "PyTuple_Size");
  LOAD(tuple_item, "PyTuple_GetItem");
  LOAD(dict_item, "PyDict_GetItem");
  LOAD(call, "PyObject_CallFunctionObjArgs");
  LOAD(increase, "Py_IncRef");
  LOAD(decrease, "Py_DecRef");
  LOAD(clear_error, "PyErr_Clear");
  LOAD(save_thread, "PyEval_SaveThread");
  LOAD(restore_thread, "PyEval_RestoreThread");
  LOAD(tuple_type, "PyTuple_Type");
  LOAD(none, "_Py_NoneStruct");
#undef LOAD
  return found;
}

int ring2_torch_taps_begin(const void *interface, PyObject *tensor, PyObject *parameter) {
  const dlpack_exchange *found = interface;
  if (found == NULL || found->major != DLPACK_MAJOR || found->describe == NULL) return 0;
  if (!load_python()) return 0;
  exchange = found;
  plain_types[0] = tensor;
  plain_types[1] = parameter;
  python.increase(tensor);
  python.increase(parameter);
  return 1;
}
