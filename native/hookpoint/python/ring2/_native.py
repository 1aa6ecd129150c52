"""Loads libring2_python.so and declares its functions for ctypes; nothing else loads it.

The shared object carries the producer half of libring2 and the PyTorch operator. It has no torch
symbols of its own, so that ``import ring2`` works without torch; the operator is registered when a
model is attached. ``RING2_PYTHON_LIBRARY`` names another build of it, for development.
"""

import ctypes
import os
import threading
from ctypes import POINTER, c_char_p, c_int, c_int32, c_int64, c_uint32, c_uint64, c_void_p

from ._errors import NATIVE_CODES, Ring2Error

OK = 0
FULL = 1

KIND_MODEL = 1
KIND_REQUEST = 2
KIND_REQUEST_END = 5
KIND_VOCABULARY = 8

LAYOUT_BATCHED = 0
LAYOUT_PACKED = 1

PHASE_PREFILL = 0
PHASE_DECODE = 1

STEP_EXTRA = 1

STEP_ROWS_MAX = 1024
BODY_BYTES_MAX = 65536
LAYERS_MAX = 256
LOSS_REASONS_MAX = 16

_FUNCTIONS = {
    "ring2_last_error": (c_char_p, []),
    "ring2_python_open": (
        c_int,
        [c_char_p, c_char_p, c_uint64, c_uint32, c_uint32, POINTER(c_void_p)],
    ),
    "ring2_python_room": (c_int, [c_void_p, c_uint64]),
    "ring2_python_step": (
        c_int,
        [c_void_p, c_int64, c_uint32, c_uint32, c_uint32, c_uint32, c_uint32, POINTER(c_int64)],
    ),
    "ring2_python_losses": (c_int, [c_void_p, POINTER(c_uint64), POINTER(c_uint64)]),
    "ring2_producer_close": (c_int, [c_void_p]),
    "ring2_producer_heartbeat": (c_int, [c_void_p]),
    "ring2_write_json": (c_int, [c_void_p, c_uint32, c_char_p, c_uint64]),
    "ring2_count_loss": (c_int, [c_void_p, c_uint32, c_uint64, c_uint64]),
    "ring2_torch_register": (c_int, [c_char_p]),
    "ring2_torch_error": (c_char_p, []),
    "ring2_torch_add": (c_int32, [c_void_p]),
    "ring2_torch_remove": (None, [c_int32]),
    "ring2_torch_cuda_add": (c_int, [c_int32, c_int32, c_uint64, c_char_p]),
    "ring2_torch_cuda_error": (c_char_p, []),
    "ring2_torch_cuda_counts": (c_int, [c_int32, c_int32, POINTER(c_uint64)]),
    "ring2_torch_write_behind": (c_int, [c_int32, c_uint32, c_char_p, c_uint64]),
    "ring2_torch_forget_all": (None, []),
    "ring2_torch_set_step": (None, [c_int32, c_int64]),
    "ring2_torch_set_batch": (None, [c_int32, c_int64]),
    "ring2_torch_set_limits": (None, [c_int32, c_int64, c_int]),
    "ring2_torch_end_step": (c_int, [c_int32]),
    "ring2_torch_push": (None, [c_int32]),
    "ring2_torch_pop": (None, [c_int32]),
    "ring2_torch_drop": (None, [c_int32]),
    "ring2_torch_set_runs": (c_int, [c_int32, c_int64, c_uint32, POINTER(c_uint32)]),
    "ring2_torch_set_ranks": (c_int, [c_int32, c_uint32, c_uint32, c_uint32, c_uint32]),
    "ring2_torch_wants": (c_int, [c_int32, c_uint32, c_int32]),
    "ring2_torch_take_control": (c_int64, [c_int32]),
    "ring2_torch_control_wants": (c_int, [c_int32, c_uint32, c_int32]),
    "ring2_torch_wants_request": (c_int, [c_int32, c_char_p, c_uint64, c_int]),
    "ring2_torch_wants_tokens": (c_int, [c_int32, c_uint32, c_int32, c_int32]),
}

_lock = threading.Lock()
_library: ctypes.CDLL | None = None


def _path() -> str:
    chosen = os.environ.get("RING2_PYTHON_LIBRARY")
    return chosen or os.path.join(os.path.dirname(__file__), "libring2_python.so")


def library() -> ctypes.CDLL:
    """The loaded library. Raises RING2_E_NATIVE_LIBRARY when it cannot be loaded."""
    global _library
    with _lock:
        if _library is None:
            path = _path()
            try:
                loaded = ctypes.CDLL(path)
                for name, (result, arguments) in _FUNCTIONS.items():
                    function = getattr(loaded, name)
                    function.restype = result
                    function.argtypes = arguments
            except (OSError, AttributeError) as error:
                raise Ring2Error(
                    "RING2_E_NATIVE_LIBRARY",
                    f"expected the native library at {path}, got: {error}. Reinstall the package "
                    "(pip install ./native/hookpoint/python), or set RING2_PYTHON_LIBRARY.",
                ) from error
            _library = loaded
        return _library


def check(result: int) -> int:
    """Raises the native library's own error for a negative result; returns the others."""
    if result >= 0:
        return result
    code = NATIVE_CODES.get(-result, "RING2_E_INTERNAL")
    text = library().ring2_last_error()
    raise Ring2Error(code, (text or b"").decode("utf-8", "replace"))


def register_operator() -> object:
    """Registers ``torch.ops.ring2.capture`` once and returns its overload to call."""
    import torch

    folder = os.path.join(os.path.dirname(torch.__file__), "lib")
    path = os.path.join(folder, "libtorch_cpu.so")
    native = library()
    if native.ring2_torch_register(os.fsencode(path)) != 0:
        reason = native.ring2_torch_error().decode("utf-8", "replace")
        raise Ring2Error(
            "RING2_E_NATIVE_LIBRARY",
            f"expected torch 2.9 or newer with its C shim, got torch {torch.__version__}: {reason}",
        )
    return torch.ops.ring2.capture.default
