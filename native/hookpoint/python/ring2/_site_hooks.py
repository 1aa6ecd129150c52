"""Hooks on the modules of a model, there only while somebody wants what they capture.

A module without hooks costs nothing: PyTorch calls its forward at once. So a hook whose tensors
nobody wants is taken off at the beginning of a step, and put back when they are wanted again.

A compiler looks at hooks once, when it traces. Before it traces anything all hooks are put on in the
form that it can trace, and stay so from then on (``settle``). Hooks are only taken off while no
other thread is inside a step, which would miss them.
"""

import threading
from collections.abc import Callable, Iterable
from typing import Any

from ._control import Control

Undo = Callable[[], object]


class Place:
    """One hook at a module: what it captures, and how it is put there."""

    __slots__ = ("_put", "_undo", "_untraced", "_traced", "wanted")

    def __init__(
        self, put: Callable[[Any], Undo], traced: Any, untraced: Any,
        wanted: Iterable[tuple[int, int]],
    ) -> None:
        self._put = put
        self._traced = traced
        self._untraced = untraced
        self._undo: Undo | None = None
        self.wanted = tuple(wanted)
        """(hook number, layer) of all that it captures."""

    def put(self, to_trace: bool) -> None:
        if self._undo is None:
            self._undo = self._put(self._traced if to_trace else self._untraced)

    def take(self) -> None:
        if self._undo is not None:
            self._undo()
            self._undo = None


class SiteHooks:
    """All places of one model. Every method may be called from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._places: tuple[Place, ...] = ()
        self._settled = False
        self._followed = -1  # sequence of the control words by which they are there

    def install(self, places: Iterable[Place]) -> None:
        """Puts on all of them; what was there goes."""
        self.remove()
        with self._lock:
            self._places = tuple(places)
            self._followed = -1
            for place in self._places:
                place.put(self._settled)

    def remove(self) -> None:
        with self._lock:
            for place in self._places:
                place.take()
            self._places = ()

    def settle(self) -> None:
        """From now on all are there, as a compiler traces them. Twice is harmless."""
        if self._settled:
            return
        with self._lock:
            self._settled = True
            for place in self._places:
                place.take()
                place.put(True)

    def follow(self, control: Control, alone: bool) -> None:
        """Has what ``control`` wants captured. ``alone``: no other thread is inside a step."""
        if self._settled or control.sequence == self._followed:
            return
        with self._lock:
            if not self._settled:
                self._put_wanted(control, alone)

    def _put_wanted(self, control: Control, alone: bool) -> None:
        nothing = control.wants_nothing
        for place in self._places:
            if not nothing and any(control.wants(hook, layer) for hook, layer in place.wanted):
                place.put(False)
            elif alone:
                place.take()
        if alone:
            self._followed = control.sequence
