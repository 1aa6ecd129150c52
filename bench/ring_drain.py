"""Empties a segment in benchmarks, as fast as a consumer can and without looking at the bytes."""

import ctypes
import os
from ctypes import c_char_p, c_uint32, c_uint64, c_void_p

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
SLICES_MAX = 4096
SLICE_BYTES_MAX = 1024  # a slice is smaller; its fields are not read here
HOOKS_MAX = 32
ALL_LAYERS = -2


class _Result(ctypes.Structure):
    _fields_ = [
        ("slices", c_uint64), ("next_position", c_uint64), ("head_position", c_uint64),
        ("payload_bytes", c_uint64), ("finished", c_uint32), ("waiting", c_uint32),
    ]


def library_path() -> str:
    """libring2.so of RING2_LIBRARY, or of the build folder."""
    default = os.path.join(ROOT, "build", "native", "libring2.so")
    return os.environ.get("RING2_LIBRARY") or default


class Drain:
    """The consumer of one segment."""

    def __init__(self, path: str) -> None:
        self._library = ctypes.CDLL(library_path())
        self._library.ring2_consumer_open.argtypes = [c_char_p, ctypes.POINTER(c_void_p)]
        self._library.ring2_drain.argtypes = [
            c_void_p, c_void_p, c_uint64, c_uint64, ctypes.POINTER(_Result)
        ]
        self._library.ring2_release.argtypes = [c_void_p, c_uint64]
        self._library.ring2_consumer_want.argtypes = [
            c_void_p, c_uint32, ctypes.c_int32, ctypes.c_int
        ]
        self._library.ring2_consumer_close.argtypes = [c_void_p, ctypes.c_int]
        self._handle = c_void_p()
        opened = self._library.ring2_consumer_open(path.encode(), ctypes.byref(self._handle))
        if opened != 0:
            raise SystemExit(f"expected to open {path}, got error {opened}")
        self._slices = ctypes.create_string_buffer(SLICES_MAX * SLICE_BYTES_MAX)

    def __call__(self) -> int:
        """Drains and releases all there is; returns the number of slices."""
        total, result = 0, _Result()
        while True:
            drained = self._library.ring2_drain(
                self._handle, self._slices, SLICES_MAX, 1 << 62, ctypes.byref(result)
            )
            if drained != 0:
                raise SystemExit(f"expected to drain, got error {drained}")
            self._library.ring2_release(self._handle, result.next_position)
            if result.slices == 0:
                return total
            total += result.slices

    def want(self, hook: int, wanted: bool) -> None:
        """Tells the producer whether anybody wants this hook, of all layers."""
        if self._library.ring2_consumer_want(self._handle, hook, ALL_LAYERS, int(wanted)) != 0:
            raise SystemExit(f"expected to say what is wanted of hook {hook}")

    def want_nothing(self) -> None:
        """Tells the producer that nobody wants any tensor."""
        for hook in range(HOOKS_MAX):
            self.want(hook, False)

    def close(self) -> None:
        """After the producer has gone: takes what is left and removes the segment."""
        self()
        self._library.ring2_consumer_close(self._handle, 1)
