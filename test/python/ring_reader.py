"""Reads a segment back in tests: a small consumer over libring2.so. Not part of the package."""

import ctypes
import json
import os
from ctypes import c_char, c_char_p, c_double, c_int32, c_int64, c_uint8, c_uint16, c_uint32
from ctypes import c_uint64, c_void_p
from typing import Any, NamedTuple

import numpy

from ring2._catalogue import DTYPES, HOOKS, LOSS_REASONS

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
SLICES_MAX = 4096
BYTES_MAX = 1 << 40
KINDS = {1: "MODEL", 2: "REQUEST", 3: "STEP", 4: "TENSOR", 5: "REQUEST_END", 7: "GAP", 8: "VOCABULARY"}
HOOK_NAMES = {hook.id: hook.name for hook in HOOKS}
DTYPE_NAMES = {number: name for name, number in DTYPES.items()}


class Slice(ctypes.Structure):
    """ring2_slice of ring2.h."""

    _fields_ = [
        ("position", c_uint64), ("request_key", c_uint64), ("step", c_int64),
        ("payload_offset", c_uint64), ("payload_bytes", c_uint64),
        ("captured_realtime_ns", c_uint64), ("kind", c_uint32), ("flags", c_uint32),
        ("dtype", c_uint32), ("hook", c_uint32), ("layer", c_int32), ("phase", c_uint32),
        ("token_start", c_int32), ("token_end", c_int32), ("kv_offset", c_int32),
        ("ndim", c_uint32), ("dims", c_uint32 * 4), ("strides", c_uint64 * 4),
        ("ranks", c_uint16 * 4), ("record_slices", c_uint32), ("slice_index", c_uint32),
        ("action", c_uint32), ("groups", c_uint32), ("prompt_tokens", c_int32),
        ("crc32c", c_uint32), ("elements", c_uint64),
        ("nonfinite", c_uint64 * 3), ("rows", c_uint64 * 2), ("defined", c_uint64),
        ("top1_id", c_uint32), ("stats", c_double * 56),
    ]


class DrainResult(ctypes.Structure):
    """ring2_drain_result of ring2.h."""

    _fields_ = [
        ("slices", c_uint64), ("next_position", c_uint64), ("head_position", c_uint64),
        ("payload_bytes", c_uint64), ("finished", c_uint32), ("waiting", c_uint32),
    ]


class StepHeader(ctypes.Structure):
    """ring2_step_header of ring2_layout.h."""

    _fields_ = [("step", c_int64), ("row_count", c_uint32), ("columns", c_uint32),
                ("layout", c_uint8), ("flags", c_uint8), ("reserved", c_uint8 * 2),
                ("control_sequence", c_uint32), ("reserved1", c_uint8 * 8)]


class StepRow(ctypes.Structure):
    """ring2_step_row of ring2_layout.h."""

    _fields_ = [("request_key", c_uint64), ("token_start", c_int32), ("token_end", c_int32),
                ("index", c_int32), ("row_offset", c_int32), ("kv_offset", c_int32),
                ("phase", c_uint8), ("reserved", c_uint8 * 3)]


class Control(ctypes.Structure):
    """ring2_control of ring2.h."""

    _fields_ = [("sequence", c_uint32), ("flags", c_uint32), ("request_share", c_uint64),
                ("decode_every", c_uint32), ("nothing", c_uint32),
                ("wanted", (c_uint64 * 4) * 32)]


class Gap(ctypes.Structure):
    """ring2_gap of ring2_layout.h."""

    _fields_ = [("losses", (c_uint64 * 2) * 16), ("steps", c_int64 * 2)]


class Tensor(NamedTuple):
    """One request's part of a captured tensor."""

    key: int
    hook: str
    layer: int
    step: int
    phase: str
    tokens: tuple[int, int]
    kv_offset: int
    dtype: str
    shape: tuple[int, ...]
    data: bytes

    def numpy(self) -> Any:
        dtype = {"bfloat16": "uint16", "bool": "bool"}.get(self.dtype, self.dtype)
        return numpy.frombuffer(self.data, dtype=dtype).reshape(self.shape)

    def torch(self) -> Any:
        import torch

        flat = torch.frombuffer(bytearray(self.data), dtype=getattr(torch, self.dtype))
        return flat.reshape(self.shape)


class Step(NamedTuple):
    """A STEP record: its rows as (key, token_start, token_end, index, row_offset, kv_offset)."""

    step: int
    columns: int
    rows: tuple[tuple[int, ...], ...]
    phases: tuple[str, ...]
    sequence: int = 0


class Records(NamedTuple):
    """Everything drained, in order, and by kind."""

    kinds: list[str]
    models: list[dict[str, Any]]
    requests: list[dict[str, Any]]
    ends: list[dict[str, Any]]
    steps: list[Step]
    tensors: list[Tensor]
    gaps: list[dict[str, int]]
    vocabularies: list[dict[str, Any]]

    def tensor(self, hook: str, layer: int = -1, key: int = 1, step: int | None = None) -> Tensor:
        found = [
            tensor for tensor in self.tensors
            if (tensor.hook, tensor.layer, tensor.key) == (hook, layer, key)
            and step in (None, tensor.step)
        ]
        assert found, f"no {hook} of layer {layer} for request {key} in step {step}"
        return found[0]

    def stitched(self, hook: str, layer: int, key: int) -> Any:
        """The request's rows of a token hook over all steps, in order."""
        parts = [
            tensor.torch() for tensor in self.tensors
            if (tensor.hook, tensor.layer, tensor.key) == (hook, layer, key)
        ]
        import torch

        return torch.cat(parts)


def load_library() -> ctypes.CDLL:
    """libring2.so of RING2_LIBRARY, or of the build folder."""
    path = os.environ.get("RING2_LIBRARY") or os.path.join(ROOT, "build", "native", "libring2.so")
    library = ctypes.CDLL(path)
    library.ring2_last_error.restype = c_char_p
    library.ring2_consumer_payload.restype = c_void_p
    library.ring2_consumer_payload.argtypes = [c_void_p]
    library.ring2_consumer_open.argtypes = [c_char_p, ctypes.POINTER(c_void_p)]
    library.ring2_consumer_close.argtypes = [c_void_p, ctypes.c_int]
    library.ring2_drain.argtypes = [
        c_void_p, ctypes.POINTER(Slice), c_uint64, c_uint64, ctypes.POINTER(DrainResult)
    ]
    library.ring2_release.argtypes = [c_void_p, c_uint64]
    library.ring2_gather.argtypes = [c_void_p, ctypes.POINTER(Slice), c_void_p]
    library.ring2_consumer_control.argtypes = [c_void_p, ctypes.POINTER(Control)]
    library.ring2_consumer_set_control.argtypes = [
        c_void_p, ctypes.POINTER(Control), ctypes.POINTER(c_uint32)
    ]
    library.ring2_consumer_want.argtypes = [c_void_p, c_uint32, c_int32, ctypes.c_int]
    return library


class Reader:
    """The consumer of one segment."""

    def __init__(self, path: str) -> None:
        self._library = load_library()
        self._handle = c_void_p()
        self._check(self._library.ring2_consumer_open(path.encode(), ctypes.byref(self._handle)))
        self._payload = self._library.ring2_consumer_payload(self._handle)
        self._slices = (Slice * SLICES_MAX)()

    def _check(self, result: int) -> None:
        assert result >= 0, (result, self._library.ring2_last_error())

    def want(self, hook: str, layer: int, wanted: bool) -> None:
        number = next(h.id for h in HOOKS if h.name == hook)
        self._check(self._library.ring2_consumer_want(self._handle, number, layer, int(wanted)))

    def control(
        self, share: float = 1.0, sampled_only: bool = False, prefill: bool = True, every: int = 1
    ) -> int:
        """Which requests and tokens are wanted; returns the sequence of that."""
        control = Control()
        self._check(self._library.ring2_consumer_control(self._handle, ctypes.byref(control)))
        control.flags = sampled_only | prefill << 1
        control.request_share = int(share * 2**32)
        control.decode_every = every
        sequence = c_uint32()
        self._check(self._library.ring2_consumer_set_control(
            self._handle, ctypes.byref(control), ctypes.byref(sequence)
        ))
        return sequence.value

    def drain(self) -> Records:
        """Takes and releases all there is."""
        records = Records(*([] for _ in Records._fields))
        result = DrainResult()
        while True:
            self._check(self._library.ring2_drain(
                self._handle, self._slices, SLICES_MAX, BYTES_MAX, ctypes.byref(result)
            ))
            for index in range(result.slices):
                self._add(self._slices[index], records)
            self._check(self._library.ring2_release(self._handle, result.next_position))
            if result.slices == 0:
                return records

    def close(self, remove: bool = False) -> None:
        self._check(self._library.ring2_consumer_close(self._handle, int(remove)))

    def _body(self, item: Slice) -> bytes:
        return ctypes.string_at(self._payload + item.payload_offset, item.payload_bytes)

    def _add(self, item: Slice, records: Records) -> None:
        kind = KINDS[item.kind]
        if kind != "TENSOR" or item.slice_index == 0:
            records.kinds.append(kind)
        if kind == "TENSOR":
            records.tensors.append(self._tensor(item))
        elif kind == "STEP":
            records.steps.append(_step(self._body(item)))
        elif kind == "GAP":
            gap = Gap.from_buffer_copy(self._body(item))
            records.gaps.append(
                {name: gap.losses[i][0] for name, i in LOSS_REASONS.items() if gap.losses[i][0]}
            )
        else:
            target = {"MODEL": records.models, "REQUEST": records.requests,
                      "VOCABULARY": records.vocabularies}.get(kind, records.ends)
            target.append(json.loads(self._body(item)))

    def _tensor(self, item: Slice) -> Tensor:
        buffer = (c_char * max(item.payload_bytes, 1))()
        self._check(self._library.ring2_gather(self._handle, ctypes.byref(item), buffer))
        return Tensor(
            item.request_key, HOOK_NAMES[item.hook], item.layer, item.step,
            "decode" if item.phase else "prefill", (item.token_start, item.token_end),
            item.kv_offset, DTYPE_NAMES[item.dtype], tuple(item.dims[: item.ndim]),
            buffer.raw[: item.payload_bytes],
        )


def _step(body: bytes) -> Step:
    header = StepHeader.from_buffer_copy(body)
    size = ctypes.sizeof(StepRow)
    rows = [
        StepRow.from_buffer_copy(body, ctypes.sizeof(StepHeader) + i * size)
        for i in range(header.row_count)
    ]
    return Step(
        header.step, header.columns,
        tuple((r.request_key, r.token_start, r.token_end, r.index, r.row_offset, r.kv_offset)
              for r in rows),
        tuple("decode" if r.phase else "prefill" for r in rows),
        header.control_sequence,
    )
