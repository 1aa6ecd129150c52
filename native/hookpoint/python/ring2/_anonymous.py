"""Requests for forward passes that nobody described: one per batch row and sequence.

A sequence begins with a forward pass at position 0 and goes on while the same cache grows; it ends
when its cache is gone, starts again, or has no cache at all. Ids are ``anon-<12 hex digits>``.
A compiled model shows only where the keys of its cache lie: a sequence that compiled passes began
goes on where the last one left its keys, at the position that it had reached, and ends when it is
the oldest of ``TRACED_MAX``.
"""

import secrets
import threading
import weakref
from collections import OrderedDict, deque
from typing import Any

from ._compiled import TracedCache, live_address
from ._requests import Entry, RequestInfo

SEQUENCES_MAX = 1024
TRACED_MAX = 64

_Entries = tuple[Entry, ...]


class AnonymousRequests:
    """Open anonymous requests of one probe, by cache."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sequences: OrderedDict[int, tuple[Any, _Entries]] = OrderedDict()
        self._traced: OrderedDict[int, tuple[int, _Entries]] = OrderedDict()
        # Filled by the garbage collector's callbacks, which may take no lock.
        self._gone: deque[int] = deque()

    def resolve(self, batch: int, past: int, cache: Any) -> _Entries:
        """The entries of this forward pass, one per batch row."""
        if isinstance(cache, TracedCache):
            return self._resolve_traced(batch, past, cache.address)
        ended: list[_Entries] = []
        with self._lock:
            self._collect(ended)
            known = self._sequences.get(id(cache)) if cache is not None else None
            if known is not None and past > 0 and len(known[1]) == batch:
                entries = known[1]
            else:
                if known is not None:
                    ended.append(self._sequences.pop(id(cache))[1])
                entries = tuple(self._new() for _ in range(batch))
                self._remember(cache, entries, ended)
        self._close(ended)
        return entries

    def after(self, entries: _Entries, cache: Any) -> None:
        """Keeps the sequence for as long as the cache that the forward pass returned lives."""
        ended: list[_Entries] = []
        with self._lock:
            self._collect(ended)
            known = self._sequences.get(id(cache)) if cache is not None else None
            if known is not None and known[1] is entries:
                pass
            elif not self._remember(cache, entries, ended):
                ended.append(entries)
        self._close(ended)

    def _resolve_traced(self, batch: int, past: int, address: int) -> _Entries:
        with self._lock:
            reached, entries = self._traced.get(address, (-1, ()))
            if past > 0 and reached == past and len(entries) == batch:
                return entries
            for reference, entries in self._sequences.values():
                cache = reference() if past > 0 and address else None
                if cache is not None and live_address(cache) == address and len(entries) == batch:
                    return entries
            return tuple(self._new() for _ in range(batch))

    def after_traced(self, entries: _Entries, address: int, reached: int) -> None:
        """Keeps the sequence of a compiled pass, whose keys lie at ``address`` now."""
        ended: list[_Entries] = []
        with self._lock:
            if any(known is entries for _, known in self._sequences.values()):
                return
            for place in [at for at, (_, known) in self._traced.items() if known is entries]:
                del self._traced[place]
            if not address:
                ended.append(entries)
            else:
                if address in self._traced:
                    ended.append(self._traced.pop(address)[1])
                self._traced[address] = (reached, entries)
                if len(self._traced) > TRACED_MAX:
                    ended.append(self._traced.popitem(last=False)[1][1])
        self._close(ended)

    def collect(self) -> None:
        """Ends the sequences whose cache is gone."""
        ended: list[_Entries] = []
        with self._lock:
            self._collect(ended)
        self._close(ended)

    def end_all(self) -> None:
        with self._lock:
            ended = [entries for _, entries in self._sequences.values()]
            ended.extend(entries for _, entries in self._traced.values())
            self._sequences.clear()
            self._traced.clear()
        self._close(ended)

    @staticmethod
    def _new() -> Entry:
        return Entry(RequestInfo(f"anon-{secrets.token_hex(6)}"))

    @staticmethod
    def _close(ended: list[_Entries]) -> None:
        for entries in ended:
            for entry in entries:
                entry.close("ok")

    def _remember(self, cache: Any, entries: _Entries, ended: list[_Entries]) -> bool:
        if cache is None:
            return False
        identity = id(cache)
        try:
            reference = weakref.ref(cache, lambda _: self._gone.append(identity))
        except TypeError:
            return False  # a tuple of tensors: nothing tells when it is gone
        self._sequences[identity] = (reference, entries)
        if len(self._sequences) > SEQUENCES_MAX:
            ended.append(self._sequences.popitem(last=False)[1][1])
        return True

    def _collect(self, ended: list[_Entries]) -> None:
        while self._gone:
            identity = self._gone.popleft()
            known = self._sequences.get(identity)
            # The address may already belong to a new cache.
            if known is not None and known[0]() is None:
                del self._sequences[identity]
                ended.append(known[1])
