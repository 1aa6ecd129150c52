/* The Python process that this library is in, without its headers.
 *
 * Functions of Python's stable ABI are looked up in the process; a tensor describes itself through the C
 * exchange interface of DLPack 1.3 (dmlc.github.io/dlpack/latest/c_api.html), without being referenced
 * and without torch's headers. Where either is missing there are no taps, and hooks are Python.
 *
 * Everything here is called with Python's lock held.
 */
#include "torch_python.h"

#include <dlfcn.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#define METH_FASTCALL 0x0080
#define STATE "ring2.state"

#define DLPACK_MAJOR 1
#define DLPACK_CPU 1

ring2_python_functions ring2_python;

/* ------------------------------------------------------------------ callables */

typedef struct { /* PyMethodDef */
  const char *name;
  ring2_python_call function;
  int flags;
  const char *text;
} method_definition;

typedef struct {
  method_definition definition;
  void *state;
  void (*destroy)(void *);
} callable;

static void destroy_callable(PyObject *capsule) {
  callable *made = ring2_python.capsule_pointer(capsule, STATE);
  made->destroy(made->state);
  free(made);
}

PyObject *ring2_python_function(const char *name, ring2_python_call function, void *state,
                                void (*destroy)(void *state)) {
  callable *made = malloc(sizeof *made);
  if (made == NULL) abort();
  *made = (callable){{name, function, METH_FASTCALL, NULL}, state, destroy};
  PyObject *capsule = ring2_python.new_capsule(made, STATE, destroy_callable);
  if (capsule == NULL) return NULL;
  PyObject *result = ring2_python.new_function(&made->definition, capsule, NULL);
  ring2_python.decrease(capsule);
  return result;
}

void *ring2_python_state(PyObject *self) {
  return ((callable *)ring2_python.capsule_pointer(self, STATE))->state;
}

PyObject *ring2_python_none(void) {
  ring2_python.increase(ring2_python.none);
  return ring2_python.none;
}

/* ------------------------------------------------------------------ tensors */

enum { DLPACK_INT, DLPACK_UINT, DLPACK_FLOAT, DLPACK_BFLOAT = 4, DLPACK_BOOL = 6 };

typedef struct { /* DLTensor */
  void *data;
  int32_t device_type, device_index;
  int32_t ndim;
  uint8_t code, bits; /* of an element */
  uint16_t lanes;
  int64_t *shape, *strides;
  uint64_t byte_offset;
} dlpack_tensor;

typedef struct { /* DLPackExchangeAPI */
  uint32_t major, minor;
  void *previous;
  void *managed_allocator, *managed_from, *managed_to;
  int (*describe)(void *object, dlpack_tensor *out); /* borrows; not 0: a Python error is set */
} dlpack_exchange;

static const dlpack_exchange *exchange;
static PyObject *plain_types[2]; /* torch.Tensor and torch.nn.Parameter; a subclass may be no memory */

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

static bool is_plain(PyObject *object) {
  PyObject *type = ring2_python.type_of(object);
  ring2_python.decrease(type);
  return type == plain_types[0] || type == plain_types[1];
}

bool ring2_python_tensor(PyObject *object, ring2_tensor *tensor, const void **data, uint32_t *bytes) {
  if (object == NULL || !is_plain(object)) return false;
  dlpack_tensor source;
  if (exchange->describe(object, &source) != 0) {
    ring2_python.clear_error();
    return false;
  }
  memset(tensor, 0, sizeof *tensor);
  tensor->dtype = dtype_of(&source);
  if (source.device_type != DLPACK_CPU || tensor->dtype == 0 || source.data == NULL ||
      source.ndim < 0 || source.ndim > (int32_t)RING2_DIMS_MAX) {
    return false;
  }
  tensor->ndim = (uint32_t)source.ndim;
  for (int32_t axis = 0; axis < source.ndim; axis++) {
    tensor->dims[axis] = source.shape[axis];
    tensor->strides[axis] = source.strides[axis];
  }
  *data = (const uint8_t *)source.data + source.byte_offset;
  *bytes = source.bits / 8;
  return true;
}

/* ------------------------------------------------------------------ at the start */

static bool load_functions(void) {
  bool found = true;
#define LOAD(field, name)                                      \
  do {                                                         \
    *(void **)&ring2_python.field = dlsym(RTLD_DEFAULT, name); \
    found = found && *(void **)&ring2_python.field != NULL;    \
  } while (0)
  LOAD(new_function, "PyCFunction_NewEx");
  LOAD(new_capsule, "PyCapsule_New");
  LOAD(capsule_pointer, "PyCapsule_GetPointer");
  LOAD(type_of, "PyObject_Type");
  LOAD(is_instance, "PyObject_IsInstance");
  LOAD(tuple_size, "PyTuple_Size");
  LOAD(tuple_item, "PyTuple_GetItem");
  LOAD(dict_item, "PyDict_GetItem");
  LOAD(float_value, "PyFloat_AsDouble");
  LOAD(call, "PyObject_CallFunctionObjArgs");
  LOAD(increase, "Py_IncRef");
  LOAD(decrease, "Py_DecRef");
  LOAD(clear_error, "PyErr_Clear");
  LOAD(save_thread, "PyEval_SaveThread");
  LOAD(restore_thread, "PyEval_RestoreThread");
  LOAD(tuple_type, "PyTuple_Type");
  LOAD(float_type, "PyFloat_Type");
  LOAD(none, "_Py_NoneStruct");
#undef LOAD
  return found;
}

int ring2_torch_taps_begin(const void *interface, PyObject *tensor, PyObject *parameter) {
  const dlpack_exchange *found = interface;
  if (found == NULL || found->major != DLPACK_MAJOR || found->describe == NULL) return 0;
  if (!load_functions()) return 0;
  exchange = found;
  plain_types[0] = tensor;
  plain_types[1] = parameter;
  ring2_python.increase(tensor);
  ring2_python.increase(parameter);
  return 1;
}
