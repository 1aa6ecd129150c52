/* The PyTorch operator `ring2::capture`, in plain C over libtorch's C shim.
 *
 * What it is: one operator that copies a tensor into a Ring² segment. It needs no torch headers and
 * no torch symbols at link or load time: the shim's functions are looked up in the libtorch_cpu that
 * the process has already loaded, so one shared object serves every torch version and also loads
 * without torch.
 *
 * What it is not: it opens no segment, writes no STEP and decides nothing about requests; that is
 * Python's work over ring2.h. Which producer and which step a capture belongs to: torch_slots.c.
 *
 * Invariants: the operator never reports an error to torch and never blocks unless the producer
 * chose to; every tensor handle it is given is deleted; a tensor it cannot copy is counted in the
 * segment (RING2_LOSS_UNSUPPORTED).
 */
#include <dlfcn.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "ring2.h"
#include "torch_copy.h"
#include "torch_cuda.h"
#include "torch_slots.h"

#define DISPATCH_KEYS_MAX 8   /* libraries registered below */
#define ERROR_BYTES 256

/* ------------------------------------------------------------------ libtorch's C shim
 * Declared here from the shim's stable ABI: handles are opaque pointers, a result of 0 is success,
 * and an operator's arguments arrive as 64-bit words (a tensor as an owned handle, an int as it
 * is). */

typedef void *tensor_handle;
typedef void *library_handle;
typedef uint64_t stack_word;
typedef void (*boxed_kernel)(stack_word *stack, uint64_t arguments, uint64_t outputs);

static struct {
  int32_t (*delete_tensor)(tensor_handle);
  int32_t (*get_data_ptr)(tensor_handle, void **);
  int32_t (*get_dim)(tensor_handle, int64_t *);
  int32_t (*get_numel)(tensor_handle, int64_t *);
  int32_t (*get_sizes)(tensor_handle, int64_t **);
  int32_t (*get_strides)(tensor_handle, int64_t **);
  int32_t (*get_dtype)(tensor_handle, int32_t *);
  int32_t (*get_device_type)(tensor_handle, int32_t *);
  int32_t (*get_device_index)(tensor_handle, int32_t *);
  int32_t (*get_layout)(tensor_handle, int32_t *);
  int32_t (*library_init_def)(const char *, const char *, uint32_t, library_handle *);
  int32_t (*library_init_impl)(const char *, const char *, const char *, uint32_t,
                               library_handle *);
  int32_t (*library_def)(library_handle, const char *);
  int32_t (*library_impl)(library_handle, const char *, boxed_kernel);
} shim;

static int32_t cpu_device, cuda_device;
static int32_t strided_layout;
static struct {
  int32_t torch;
  uint32_t ring2;
  uint32_t bytes;
} dtypes[10];

static pthread_mutex_t registration = PTHREAD_MUTEX_INITIALIZER;
static char registration_error[ERROR_BYTES];
static bool registered;

RING2_API const char *ring2_torch_error(void);
RING2_API int ring2_torch_register(const char *libtorch_cpu);

/* ------------------------------------------------------------------ the operator */

static uint32_t ring2_dtype_of(int32_t torch_dtype) {
  for (size_t i = 0; i < sizeof dtypes / sizeof dtypes[0]; i++) {
    if (dtypes[i].torch == torch_dtype) return dtypes[i].ring2;
  }
  return 0;
}

static uint32_t bytes_of(uint32_t dtype) {
  for (size_t i = 0; i < sizeof dtypes / sizeof dtypes[0]; i++) {
    if (dtypes[i].ring2 == dtype) return dtypes[i].bytes;
  }
  return 0;
}

/* Bytes of a tensor that is not copied; 0 for a dtype that ring2 does not know. */
static uint64_t lost_bytes(tensor_handle handle) {
  int32_t dtype = -1;
  int64_t elements = 0;
  if (shim.get_dtype(handle, &dtype) != 0 || shim.get_numel(handle, &elements) != 0) return 0;
  for (size_t i = 0; i < sizeof dtypes / sizeof dtypes[0]; i++) {
    if (dtypes[i].torch == dtype && elements > 0) return (uint64_t)elements * dtypes[i].bytes;
  }
  return 0;
}

/* The index of the GPU that a tensor lies on; -1 when it lies on none. */
static int32_t gpu_of(tensor_handle handle) {
  int32_t device = -1, index = -1;
  if (shim.get_device_type(handle, &device) != 0 || device != cuda_device) return -1;
  return shim.get_device_index(handle, &index) == 0 ? index : -1;
}

/* Fills the description and the data pointer; false for what ring2 cannot copy. */
static bool describe(tensor_handle handle, ring2_tensor *out, const void **data) {
  int32_t device = -1, layout = -1, dtype = -1;
  int64_t ndim = 0, *sizes = NULL, *strides = NULL;
  if (shim.get_device_type(handle, &device) != 0) return false;
  if (device != cpu_device && device != cuda_device) return false;
  if (shim.get_layout(handle, &layout) != 0 || layout != strided_layout) return false;
  if (shim.get_dtype(handle, &dtype) != 0 || shim.get_dim(handle, &ndim) != 0) return false;
  out->dtype = ring2_dtype_of(dtype);
  if (out->dtype == 0 || ndim < 0 || ndim > (int64_t)RING2_DIMS_MAX) return false;
  if (shim.get_sizes(handle, &sizes) != 0 || shim.get_strides(handle, &strides) != 0) return false;
  out->ndim = (uint32_t)ndim;
  for (int64_t i = 0; i < ndim; i++) {
    out->dims[i] = sizes[i];
    out->strides[i] = strides[i];
  }
  void *pointer = NULL;
  if (shim.get_data_ptr(handle, &pointer) != 0) return false;
  /* An empty tensor may have no storage; nothing is read through this pointer then. */
  static const uint8_t nothing[8];
  *data = pointer == NULL ? nothing : pointer;
  return true;
}

/* Begins the copy of a GPU's tensor. One of a graph is as long whatever the step is that replays it,
 * so a key axis that the step fills in part cannot be part of one. */
static bool copy_from_gpu(int64_t slot, int32_t gpu, const ring2_tensor *tensor, const void *data,
                          int64_t coded_hook, int64_t step) {
  const bool of_step = (coded_hook & RING2_CUT_KEYS) != 0;
  if (of_step && (step < 0 || ring2_torch_cuda_capturing(slot, gpu))) return false;
  return ring2_torch_cuda_copy(slot, gpu, tensor, data, step);
}

static void copy_tensor(ring2_producer *producer, tensor_handle handle, int64_t slot,
                        int64_t coded_hook, int32_t layer, int64_t step) {
  ring2_tensor tensor;
  memset(&tensor, 0, sizeof tensor);
  const void *data = NULL;
  const int32_t gpu = gpu_of(handle);
  const bool fits = describe(handle, &tensor, &data) &&
                    ring2_fit_tensor(&tensor, &data, bytes_of(tensor.dtype), slot, coded_hook, layer,
                                     step);
  const bool copied =
      fits && (gpu < 0 ? ring2_copy_tensor(producer, slot, &tensor, data)
                       : copy_from_gpu(slot, gpu, &tensor, data, coded_hook, step));
  if (!copied) ring2_count_loss(producer, RING2_LOSS_UNSUPPORTED, 1, lost_bytes(handle));
}

/* capture(Tensor(a!) token, Tensor x, int producer, int hook, int layer) -> () */
static void capture_kernel(stack_word *stack, uint64_t arguments, uint64_t outputs) {
  (void)arguments;
  (void)outputs;
  tensor_handle token = (tensor_handle)(uintptr_t)stack[0];
  tensor_handle x = (tensor_handle)(uintptr_t)stack[1];
  int64_t slot = (int64_t)stack[2];
  int64_t hook = (int64_t)stack[3];
  int32_t layer = (int32_t)(int64_t)stack[4];
  int64_t step = ring2_slot_step(slot);
  /* A CUDA graph is captured in no step, or in one that is not its own, and replayed in others. */
  const bool in_graph =
      ring2_torch_cuda_has(slot) && ring2_torch_cuda_capturing(slot, gpu_of(x));
  if (step >= 0 || in_graph) {
    ring2_producer *producer = ring2_slot_enter(slot);
    if (producer != NULL) {
      if (in_graph || ring2_slot_wants(slot, producer, RING2_PLAIN_HOOK(hook), layer) == 1) {
        copy_tensor(producer, x, slot, hook, layer, step);
      }
      ring2_slot_leave(slot);
    }
  }
  shim.delete_tensor(token);
  shim.delete_tensor(x);
}

/* On meta tensors (shape propagation, compilation) there are no bytes to copy. */
static void meta_kernel(stack_word *stack, uint64_t arguments, uint64_t outputs) {
  (void)arguments;
  (void)outputs;
  shim.delete_tensor((tensor_handle)(uintptr_t)stack[0]);
  shim.delete_tensor((tensor_handle)(uintptr_t)stack[1]);
}

/* ------------------------------------------------------------------ registration */

static void *find(void *libtorch, const char *name) {
  void *symbol = dlsym(libtorch, name);
  if (symbol == NULL && registration_error[0] == '\0') {
    snprintf(registration_error, sizeof registration_error, "libtorch has no %s", name);
  }
  return symbol;
}

static int32_t constant(void *libtorch, const char *name) {
  int32_t (*function)(void) = (int32_t(*)(void))find(libtorch, name);
  return function == NULL ? -1 : function();
}

static bool load_shim(void *libtorch) {
#define LOAD(field, name) *(void **)&shim.field = find(libtorch, name)
  LOAD(delete_tensor, "aoti_torch_delete_tensor_object");
  LOAD(get_data_ptr, "aoti_torch_get_data_ptr");
  LOAD(get_dim, "aoti_torch_get_dim");
  LOAD(get_numel, "aoti_torch_get_numel");
  LOAD(get_sizes, "aoti_torch_get_sizes");
  LOAD(get_strides, "aoti_torch_get_strides");
  LOAD(get_dtype, "aoti_torch_get_dtype");
  LOAD(get_device_type, "aoti_torch_get_device_type");
  LOAD(get_device_index, "aoti_torch_get_device_index");
  LOAD(get_layout, "aoti_torch_get_layout");
  LOAD(library_init_def, "aoti_torch_library_init_def");
  LOAD(library_init_impl, "aoti_torch_library_init_impl");
  LOAD(library_def, "aoti_torch_library_def");
  LOAD(library_impl, "aoti_torch_library_impl");
#undef LOAD
  static const struct {
    const char *name;
    uint32_t ring2, bytes;
  } names[] = {
      {"aoti_torch_dtype_float32", RING2_DTYPE_FLOAT32, 4},
      {"aoti_torch_dtype_float16", RING2_DTYPE_FLOAT16, 2},
      {"aoti_torch_dtype_bfloat16", RING2_DTYPE_BFLOAT16, 2},
      {"aoti_torch_dtype_float64", RING2_DTYPE_FLOAT64, 8},
      {"aoti_torch_dtype_int8", RING2_DTYPE_INT8, 1},
      {"aoti_torch_dtype_uint8", RING2_DTYPE_UINT8, 1},
      {"aoti_torch_dtype_int16", RING2_DTYPE_INT16, 2},
      {"aoti_torch_dtype_int32", RING2_DTYPE_INT32, 4},
      {"aoti_torch_dtype_int64", RING2_DTYPE_INT64, 8},
      {"aoti_torch_dtype_bool", RING2_DTYPE_BOOL, 1},
  };
  for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
    dtypes[i].torch = constant(libtorch, names[i].name);
    dtypes[i].ring2 = names[i].ring2;
    dtypes[i].bytes = names[i].bytes;
  }
  cpu_device = constant(libtorch, "aoti_torch_device_type_cpu");
  cuda_device = constant(libtorch, "aoti_torch_device_type_cuda");
  strided_layout = constant(libtorch, "aoti_torch_layout_strided");
  return registration_error[0] == '\0';
}

static bool fail(const char *text) {
  snprintf(registration_error, sizeof registration_error, "%s", text);
  return false;
}

/* Devices other than the CPU get the same kernel: it counts what it cannot copy. */
static bool define_operator(void) {
  static const char *const keys[DISPATCH_KEYS_MAX] = {"CPU", "CUDA", "MPS",         "XPU",
                                                      "HPU", "MTIA", "PrivateUse1", "Meta"};
  library_handle library = NULL;
  if (shim.library_init_def("ring2", __FILE__, __LINE__, &library) != 0) {
    return fail("torch refused to open the operator namespace ring2");
  }
  if (shim.library_def(library, "capture(Tensor(a!) token, Tensor x, int producer, int hook, "
                                "int layer) -> ()") != 0) {
    return fail("torch refused the definition of ring2::capture");
  }
  for (int i = 0; i < DISPATCH_KEYS_MAX; i++) {
    library_handle kernels = NULL;
    boxed_kernel kernel = strcmp(keys[i], "Meta") == 0 ? meta_kernel : capture_kernel;
    if (shim.library_init_impl("ring2", keys[i], __FILE__, __LINE__, &kernels) != 0 ||
        shim.library_impl(kernels, "capture", kernel) != 0) {
      return fail("torch refused a kernel of ring2::capture");
    }
    /* The handles stay alive: deleting one would withdraw its registration. */
  }
  return true;
}

/* Text of why registration failed; empty when it has not. */
const char *ring2_torch_error(void) { return registration_error; }

/* Defines torch.ops.ring2.capture, once per process. `libtorch_cpu` is the path of the library that
 * torch has loaded. Returns 0, or -1 with the reason in ring2_torch_error(). */
int ring2_torch_register(const char *libtorch_cpu) {
  pthread_mutex_lock(&registration);
  if (!registered && registration_error[0] == '\0') {
    void *libtorch = dlopen(libtorch_cpu, RTLD_LAZY | RTLD_NOLOAD);
    if (libtorch == NULL) {
      snprintf(registration_error, sizeof registration_error, "%s is not loaded", libtorch_cpu);
    } else {
      registered = load_shim(libtorch) && define_operator();
    }
  }
  int result = registered ? 0 : -1;
  pthread_mutex_unlock(&registration);
  return result;
}
