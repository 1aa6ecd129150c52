"""Rows of one tensor, one per step, stitched along the token axis as the exporter does it.

- The token axis is axis 0, or axis 1 (queries) of attention [heads, queries, keys].
- A row of n entries for the tokens [a, b) holds the last n of them.
- A position that several steps computed is taken from the latest.
- Attention rows of fewer keys than the longest are filled with zeros at the end.
- Positions that are missing are left out and named.
"""

from typing import Any, NamedTuple

from ._errors import Ring2Error
from ._tensor_data import needed

Ranges = list[tuple[int, int]]


class Row(NamedTuple):
    """A checked row: its place on the token axis, and its elements in their shape."""

    step: int
    token_start: int
    token_end: int
    values: Any


def stitch(
    rows: list[Row], attention: bool, tokens: tuple[int, int] | None,
    heads: list[int] | None, head_axis: int | None,
) -> tuple[Any, Ranges]:
    """The tensor, and the positions of its token axis. RING2_E_QUERY where nothing is selected."""
    numpy = needed("numpy")
    axis = 1 if attention else 0
    owners: dict[int, tuple[Row, int]] = {}
    for row in sorted(rows, key=lambda one: one.step):
        first = row.token_end - row.values.shape[axis]
        for position in range(first, row.token_end):
            if tokens is None or tokens[0] <= position < tokens[1]:
                owners[position] = (row, position - first)
    if not owners:
        held = ranges_of({position for row in rows
                          for position in range(row.token_end - row.values.shape[axis], row.token_end)})
        raise Ring2Error.of("RING2_E_QUERY", f"tokens within {held}", f"tokens={tokens}")
    keys = max(row.values.shape[2] for row, _ in owners.values()) if attention else 0
    parts = []
    for row, first, last in _runs(owners):
        part = row.values[:, first:last] if attention else row.values[first:last]
        if attention:
            part = numpy.pad(part, [(0, 0), (0, 0), (0, keys - part.shape[2])])
        if heads is not None and head_axis is not None:
            part = numpy.take(part, heads, axis=head_axis)
        parts.append(part)
    return numpy.concatenate(parts, axis=axis), ranges_of(set(owners))


def _runs(owners: dict[int, tuple[Row, int]]) -> list[tuple[Row, int, int]]:
    """Entries [first, last) of a row that follow one another, in order of position."""
    runs: list[tuple[Row, int, int]] = []
    for position in sorted(owners):
        row, entry = owners[position]
        if runs and runs[-1][0] is row and runs[-1][2] == entry:
            runs[-1] = (row, runs[-1][1], entry + 1)
        else:
            runs.append((row, entry, entry + 1))
    return runs


def ranges_of(positions: set[int]) -> Ranges:
    """As half-open ranges."""
    ranges: Ranges = []
    for position in sorted(positions):
        if ranges and ranges[-1][1] == position:
            ranges[-1] = (ranges[-1][0], position + 1)
        else:
            ranges.append((position, position + 1))
    return ranges


def parse_tokens(text: str | None) -> tuple[int, int] | None:
    """``a:b``, ``a:`` or ``:b``."""
    if text is None:
        return None
    first, colon, last = text.partition(":")
    digits = all(part == "" or part.isascii() and part.isdigit() for part in (first, last))
    start, end = int(first or 0) if digits else 0, int(last or 2**31 - 1) if digits else 0
    if colon and digits and first + last and start < end:
        return start, end
    raise Ring2Error.of("RING2_E_QUERY", "tokens=a:b with 0 ≤ a < b; either may be left out", repr(text))


def parse_heads(text: str | None, count: int | None) -> list[int] | None:
    """``0,3,5:8``, of a tensor with this many heads."""
    if text is None:
        return None
    if count is None:
        raise Ring2Error.of("RING2_E_QUERY", "no heads for a tensor that has none", f"heads={text}")
    heads: list[int] = []
    for part in text.split(","):
        first, colon, last = part.partition(":")
        if not first.isdigit() or (colon and not last.isdigit()):
            raise Ring2Error.of("RING2_E_QUERY", "heads such as 0,3,5:8", repr(text))
        heads.extend(range(int(first), int(last) if colon else int(first) + 1))
    if not heads or len(set(heads)) < len(heads) or max(heads) >= count:
        raise Ring2Error.of("RING2_E_QUERY", f"heads from 0 to {count - 1}, each once", repr(text))
    return heads
