"""Makes taps that run no Python (torch_tap.c, torch_attention.c), where the process can have them.

They know ordinary CPU tensors; with all else they call the hook written in Python that they were made
with. A compiler cannot look into them: what it traces is that hook, by itself.
"""

import ctypes
import sys
import threading
from collections.abc import Callable
from typing import Any, NamedTuple

from . import _native

# Where a tensor is, seen from a module's hook; as in torch_tap.h.
OUTPUT, INPUT, NAMED_INPUT, STREAM = range(4)

_INTERFACE = "__dlpack_c_exchange_api__"

class Makers(NamedTuple):
    """Functions that make taps."""

    tap: Callable[..., Any]
    """(slot, coded hook, layer, where, part, waits, argument, hook in Python): ``where`` is one of
    the four above; ``argument`` the name of an input that may be passed by name, or None."""
    attention: Callable[..., Any]
    """(slot, layer, waits, scores, pattern, tap in Python), called beside an attention kernel."""


_lock = threading.Lock()
_makers: Makers | None = None
_begun = False


def _begin() -> Makers | None:
    import torch

    interface = getattr(torch.Tensor, _INTERFACE, None)  # from PyTorch 2.10 on
    locked = getattr(sys, "_is_gil_enabled", lambda: True)
    if interface is None or not locked():
        return None
    pointer = ctypes.pythonapi.PyCapsule_GetPointer
    pointer.restype, pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    # These are called with Python's lock held, unlike all others of the library.
    library = ctypes.PyDLL(_native.library()._name)
    begin, tap, attention = (
        library.ring2_torch_taps_begin, library.ring2_torch_tap, library.ring2_torch_attention
    )
    number, short, thing = ctypes.c_int64, ctypes.c_int32, ctypes.py_object
    begin.restype, begin.argtypes = ctypes.c_int, [ctypes.c_void_p, thing, thing]
    tap.restype = attention.restype = thing
    tap.argtypes = [number, number, short, short, short, short, thing, thing]
    attention.argtypes = [number, short, short, short, short, thing]
    exchange = pointer(interface, b"dlpack_exchange_api")
    if not begin(exchange, torch.Tensor, torch.nn.Parameter):
        return None
    return Makers(tap, attention)


def makers() -> Makers | None:
    """What makes taps; None where there are none."""
    global _makers, _begun
    with _lock:
        if not _begun:
            _begun, _makers = True, _begin()
        return _makers
