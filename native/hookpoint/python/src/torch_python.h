/* What taps need of the Python process they are in, and of PyTorch's tensors there; torch_python.c. */
#ifndef RING2_TORCH_PYTHON_H
#define RING2_TORCH_PYTHON_H

#include <stdbool.h>
#include <stdint.h>

#include "ring2.h"

typedef struct _object PyObject;
typedef PyObject *(*ring2_python_call)(PyObject *self, PyObject *const *arguments, intptr_t count);

/* Functions of Python's stable ABI (docs.python.org/3/c-api/stable.html). */
typedef struct {
  PyObject *(*new_function)(void *definition, PyObject *self, PyObject *module);
  PyObject *(*new_capsule)(void *, const char *name, void (*destroy)(PyObject *));
  void *(*capsule_pointer)(PyObject *, const char *name);
  PyObject *(*type_of)(PyObject *);
  int (*is_instance)(PyObject *, PyObject *type);
  intptr_t (*tuple_size)(PyObject *);
  PyObject *(*tuple_item)(PyObject *, intptr_t);     /* borrowed */
  PyObject *(*dict_item)(PyObject *, PyObject *key); /* borrowed, raises nothing */
  double (*float_value)(PyObject *);
  PyObject *(*call)(PyObject *function, ...);
  void (*increase)(PyObject *);
  void (*decrease)(PyObject *);
  void (*clear_error)(void);
  void *(*save_thread)(void);
  void (*restore_thread)(void *);
  PyObject *tuple_type, *float_type, *none;
} ring2_python_functions;

extern ring2_python_functions ring2_python;

/* None, as a callable returns it. */
PyObject *ring2_python_none(void);

/* A callable that has `state`, which `destroy` frees; NULL with a Python error. */
PyObject *ring2_python_function(const char *name, ring2_python_call function, void *state,
                                void (*destroy)(void *state));
void *ring2_python_state(PyObject *self);

/* Describes an ordinary tensor in CPU memory: dtype, axes, strides. `bytes`: of an element. False for
 * whatever else an object is. Nothing is referenced: it lives as long as the caller holds it. */
bool ring2_python_tensor(PyObject *object, ring2_tensor *tensor, const void **data, uint32_t *bytes);

/* `interface`: DLPack's C exchange interface of torch.Tensor. 1 when there can be taps from now on. */
RING2_API int ring2_torch_taps_begin(const void *interface, PyObject *tensor, PyObject *parameter);

#endif
