"""Rows of a batch that have ended while others go on.

A generation loop feeds an ended row its end-of-sequence token once and padding from then on. The
step that produced the end is part of the request; what is fed afterwards is not. In a batch of one
the loop stops by itself, so a fed end-of-sequence token there was meant by the caller.
"""

from typing import Any
from weakref import WeakKeyDictionary

from ._end_tokens import EndTokens
from ._native import PHASE_DECODE
from ._steps import Forward, Row


class FinishedRows:
    """Remembers, per open request, the position from which its row holds no more of it."""

    def __init__(self, end_tokens: EndTokens) -> None:
        self._end_tokens = end_tokens
        self._ended: WeakKeyDictionary[Any, int] = WeakKeyDictionary()

    def forget(self, entry: Any) -> None:
        self._ended.pop(entry, None)

    def remove(self, forward: Forward, entries: tuple[Any, ...]) -> tuple[Row, ...]:
        """The rows of this forward pass whose requests have not ended."""
        decode = forward.phase == PHASE_DECODE and forward.batch > 1
        if not decode or forward.token_ids is None:
            if self._ended:
                for entry in entries:
                    self._ended.pop(entry, None)
            return forward.rows
        fed = forward.token_ids[:, 0].tolist()
        ends = self._end_tokens.current()
        rows = []
        for row in forward.rows:
            entry = entries[row.index]
            ended_at = self._ended.get(entry)
            if ended_at is not None and row.token_start > ended_at:
                continue
            if fed[row.index] in ends:
                self._ended[entry] = row.token_start
                continue
            self._ended.pop(entry, None)
            rows.append(row)
        return tuple(rows)
