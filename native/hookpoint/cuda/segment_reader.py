"""Reads a segment's records in the process that writes it: enough for check.py, and nothing else.

The layout is that of native/include/ring2_layout.h; positions are released as an exporter would.
"""

import mmap
import struct
from typing import NamedTuple

import numpy

HEADER = 4096
SLOT = 128
COMMITTED, ABORTED = 2, 3
TENSOR = 4
ALIGN = 64
META_HEAD, META_TAIL, PAYLOAD_TAIL = 256, 1024, 1032
LOSSES, LOSS_REASONS = 384, 16
CONTROL_SEQUENCE, CONTROL_FLAGS = 3072, 3076
SAMPLED_ONLY, PREFILL = 1, 2


class Record(NamedTuple):
    """One record: its descriptor, and its bytes."""

    kind: int
    dtype: int
    hook: int
    layer: int
    step: int
    dims: tuple[int, ...]
    data: bytes


class SegmentReader:
    """The consumer of one segment; every record is given once."""

    def __init__(self, path: str) -> None:
        with open(path, "r+b") as file:
            self._map = mmap.mmap(file.fileno(), 0)
        values = struct.unpack_from("<QIIQIIQQ", self._map, 0)
        self._slots, self._payload, self._payload_bytes = values[4], values[6], values[7]
        self._words = numpy.frombuffer(self._map, dtype="<u8", count=HEADER // 8)
        self._halves = self._words.view("<u4")
        self._next = int(self._words[META_TAIL // 8])

    def want_sampled_only(self) -> None:
        """Says that only requests whose trace is sampled are wanted, while no step runs."""
        self._halves[CONTROL_SEQUENCE // 4] += 1  # odd while the words change
        self._halves[CONTROL_FLAGS // 4] = SAMPLED_ONLY | PREFILL
        self._halves[CONTROL_SEQUENCE // 4] += 1

    def drain(self, with_data: bool = True) -> list[Record]:
        """Takes and releases every record that is complete, up to the first that is not."""
        records = []
        head = int(self._words[META_HEAD // 8])
        while self._next < head:
            at = HEADER + self._next % self._slots * SLOT
            state, kind, dtype, ndim, _, hook, layer, position, size = struct.unpack_from(
                "<QBBBBHhQQ", self._map, at
            )
            if state not in (self._next << 2 | COMMITTED, self._next << 2 | ABORTED):
                break
            step, *dims = struct.unpack_from("<q8I", self._map, at + 40)
            if state & 3 == COMMITTED:
                start = self._payload + position % self._payload_bytes
                data = self._map[start : start + size] if with_data else b""
                records.append(Record(kind, dtype, hook, layer, step, tuple(dims[:ndim]), data))
            self._next += 1
            self._words[PAYLOAD_TAIL // 8] = position + size
            self._words[META_TAIL // 8] = self._next
        return records

    def lost(self) -> int:
        """Records that the producer counted as lost, all reasons."""
        first = LOSSES // 8
        return int(self._words[first : first + 2 * LOSS_REASONS : 2].sum())

    def close(self) -> None:
        del self._words, self._halves
        self._map.close()
