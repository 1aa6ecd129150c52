"""Makes taps that run no Python (torch_tap.c), where the process can have them.

They know ordinary CPU tensors; with all else they call the hook written in Python that they were made
with. A compiler cannot look into them: what it traces is that hook, by itself.
"""

import ctypes
import sys
import threading
from collections.abc import Callable
from typing import Any

from . import _native

# Where a tensor is, seen from a module's hook; as in torch_tap.h.
OUTPUT, INPUT, NAMED_INPUT, STREAM = range(4)

_INTERFACE = "__dlpack_c_exchange_api__"

_lock = threading.Lock()
_maker: Callable[..., Any] | None = None
_begun = False


def _begin() -> Callable[..., Any] | None:
    import torch

    interface = getattr(torch.Tensor, _INTERFACE, None)  # from PyTorch 2.10 on
    locked = getattr(sys, "_is_gil_enabled", lambda: True)
    if interface is None or not locked():
        return None
    pointer = ctypes.pythonapi.PyCapsule_GetPointer
    pointer.restype, pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    # These two are called with Python's lock held, unlike all others of the library.
    library = ctypes.PyDLL(_native.library()._name)
    begin, make = library.ring2_torch_taps_begin, library.ring2_torch_tap
    begin.restype = ctypes.c_int
    begin.argtypes = [ctypes.c_void_p, ctypes.py_object, ctypes.py_object]
    make.restype = ctypes.py_object
    make.argtypes = [
        ctypes.c_int64, ctypes.c_int64, ctypes.c_int32, ctypes.c_int32, ctypes.c_int32,
        ctypes.c_int32, ctypes.py_object, ctypes.py_object,
    ]
    exchange = pointer(interface, b"dlpack_exchange_api")
    return make if begin(exchange, torch.Tensor, torch.nn.Parameter) else None


def maker() -> Callable[..., Any] | None:
    """Makes a tap: (slot, coded hook, layer, where, part, waits, argument, hook in Python).

    ``where`` is one of the four above; ``argument`` the name of an input that may be passed by name,
    or None. None where there are no such taps.
    """
    global _maker, _begun
    with _lock:
        if not _begun:
            _begun, _maker = True, _begin()
        return _maker
