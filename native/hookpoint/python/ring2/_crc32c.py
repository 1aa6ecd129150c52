"""CRC-32C (Castagnoli, RFC 3720 §12.1) by numpy: many parts of equal length at once, then joined.

crc(A + B) is crc(A) moved past the bytes of B, exclusive-or crc(B). Moving is linear over bits, so a
move is four tables of 256 words, and the move of twice the length is the move taken twice.
"""

from functools import lru_cache
from typing import Any

from ._tensor_data import needed

_POLYNOMIAL = 0x82F63B78
_PART_BYTES = 256


def crc32c(data: Any) -> int:
    """Of bytes or anything with their buffer, unsigned."""
    numpy = needed("numpy")
    flat = numpy.frombuffer(data, dtype=numpy.uint8)
    parts = len(flat) // _PART_BYTES
    tail = flat[parts * _PART_BYTES :]
    crc = numpy.uint32(0xFFFFFFFF)
    if parts:
        crc = _joined(numpy, flat[: parts * _PART_BYTES].reshape(parts, _PART_BYTES), crc)
    table = _byte_table()
    value = int(crc)
    for byte in tail.tolist():
        value = int(table[(value ^ byte) & 0xFF]) ^ (value >> 8)
    return value ^ 0xFFFFFFFF


def _joined(numpy: Any, parts: Any, start: Any) -> Any:
    """State after all parts. A part's state starts at 0, but for the first's."""
    table = _byte_table()
    states = numpy.zeros(len(parts), dtype=numpy.uint32)
    states[0] = start
    for column in numpy.ascontiguousarray(parts.T):
        states = table[(states ^ column) & 0xFF] ^ (states >> 8)
    power = _PART_BYTES.bit_length() - 1
    while len(states) > 1:
        # An odd number gets a part of nothing in front, which changes no state.
        if len(states) % 2:
            states = numpy.concatenate([numpy.zeros(1, dtype=numpy.uint32), states])
        states = _moved(_move_table(power), states[0::2]) ^ states[1::2]
        power += 1
    return states[0]


@lru_cache
def _byte_table() -> Any:
    numpy = needed("numpy")
    table = numpy.arange(256, dtype=numpy.uint32)
    for _ in range(8):
        table = (table >> 1) ^ numpy.where(table & 1, numpy.uint32(_POLYNOMIAL), numpy.uint32(0))
    return table


@lru_cache
def _move_table(power: int) -> Any:
    """Tables of the move past 2^power zero bytes: one row per byte of the state."""
    numpy = needed("numpy")
    values = numpy.arange(256, dtype=numpy.uint32)
    rows = [values << (8 * index) for index in range(4)]
    if power == 0:
        table = _byte_table()
        return numpy.stack([table[row & 0xFF] ^ (row >> 8) for row in rows])
    half = _move_table(power - 1)
    return numpy.stack([_moved(half, _moved(half, row)) for row in rows])


def _moved(tables: Any, states: Any) -> Any:
    out = tables[0][states & 0xFF]
    for index in range(1, 4):
        out = out ^ tables[index][(states >> (8 * index)) & 0xFF]
    return out
