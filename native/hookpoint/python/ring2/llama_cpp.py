"""llama-cpp-python: its calls of llama.cpp go through libring2_llama.so.

    import ring2.llama_cpp            # before llama_cpp
    from llama_cpp import Llama

    llama = Llama("model.gguf")
    with ring2.llama_cpp.request("chat-1", traceparent=headers.get("traceparent")):
        llama("The capital of France is")

Importing this module loads the library (RING2_LLAMA_LIBRARY, unless it is preloaded) and then
llama_cpp, whose functions it exchanges for the library's of the same names. Neither does anything
but what llama.cpp's own one does, and the capture beside it.
"""

import contextlib
import ctypes
import os
import sys
from collections.abc import Iterator
from types import ModuleType

from ._errors import Ring2Error

LIBRARY = "libring2_llama.so"

# What the library looks at beside llama_decode: whatever frees a context or moves cells of its cache.
_FUNCTIONS = (
    "llama_decode",
    "llama_free",
    "llama_memory_clear",
    "llama_memory_seq_rm",
    "llama_memory_seq_cp",
    "llama_memory_seq_add",
    "llama_memory_seq_div",
    "llama_state_set_data",
    "llama_state_load_file",
    "llama_state_seq_set_data",
    "llama_state_seq_set_data_ext",
    "llama_state_seq_load_file",
)


def _load() -> ctypes.CDLL:
    """The library, so that llama.cpp's own calls of ggml find it: it has to be there before them."""
    whole = ctypes.CDLL(None)
    if hasattr(whole, "ring2_llama_request"):
        return whole
    if "llama_cpp" in sys.modules:
        raise Ring2Error.of(
            "RING2_E_NATIVE_LIBRARY",
            "ring2.llama_cpp to be imported before llama_cpp",
            "llama_cpp already there",
            f"Import it first, or start Python with LD_PRELOAD={LIBRARY}.",
        )
    path = os.environ.get("RING2_LLAMA_LIBRARY") or LIBRARY
    try:
        return ctypes.CDLL(path, mode=ctypes.RTLD_GLOBAL)
    except OSError as error:
        raise Ring2Error.of(
            "RING2_E_NATIVE_LIBRARY",
            f"{LIBRARY} in RING2_LLAMA_LIBRARY",
            str(error),
            "Build it: cmake -S native/hookpoint/llama_cpp -B build/llama_cpp, "
            "then cmake --build build/llama_cpp.",
        ) from error


def _exchange(library: ctypes.CDLL, modules: tuple[ModuleType, ...]) -> None:
    for name in _FUNCTIONS:
        for module in modules:
            own = getattr(module, name, None)
            if own is None:
                continue
            other = getattr(library, name)
            other.argtypes, other.restype = own.argtypes, own.restype
            other.__doc__ = own.__doc__
            setattr(module, name, other)


def _attach() -> ctypes.CDLL:
    library = _load()
    library.ring2_llama_library.argtypes = [ctypes.c_void_p]
    library.ring2_llama_request.argtypes = [ctypes.c_int32, ctypes.c_char_p, ctypes.c_char_p]
    library.ring2_llama_request_end.argtypes = [ctypes.c_int32]
    library.ring2_llama_request_end.restype = None
    import llama_cpp
    from llama_cpp import llama_cpp as functions

    own = ctypes.cast(functions.llama_decode, ctypes.c_void_p)
    if library.ring2_llama_library(own) != 0:
        raise Ring2Error.of(
            "RING2_E_NATIVE_LIBRARY",
            "llama_decode of llama.cpp's own library",
            "a function that no library holds",
            "Import ring2.llama_cpp once, before anything else exchanges llama_cpp's functions.",
        )
    _exchange(library, (functions, llama_cpp))
    return library


_library = _attach()


@contextlib.contextmanager
def request(
    request_id: str, *, traceparent: str | None = None, sequence: int = 0
) -> Iterator[None]:
    """What a `Llama` of this process computes inside is of this request.

    `request_id`: 1 to 512 visible ASCII characters. `traceparent`: W3C, or None. `sequence`: the
    sequence id of the batch, 0 in a `Llama`; two contexts that run at the same time in one process
    have the same one, so name requests of one at a time. RING2_E_REQUEST when a word is not such.
    """
    name = request_id.encode("utf-8")
    context = None if traceparent is None else traceparent.encode("utf-8")
    if b"\0" in name or _library.ring2_llama_request(sequence, name, context) != 0:
        raise Ring2Error.of(
            "RING2_E_REQUEST",
            "a request id of 1 to 512 visible ASCII characters, a W3C traceparent like "
            "00-<32 hex>-<16 hex>-01 or None, and a sequence from 0 to 255",
            f"{request_id!r}, {traceparent!r}, {sequence!r}",
        )
    try:
        yield
    finally:
        _library.ring2_llama_request_end(sequence)
