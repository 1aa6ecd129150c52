"""One segment as this process writes to it: records that must arrive, steps, heartbeat, close.

MODEL, REQUEST and REQUEST_END must arrive: while the ring is full they wait here in order, bounded,
and are written before the next record. Steps and tensors never wait (unless the segment's policy is
``block``). After a fork the child's copy is dead: it never touches the parent's segment.
"""

import ctypes
import itertools
import logging
import os
import threading
import weakref
from collections import deque
from collections.abc import Callable, Sequence

from . import _native
from ._catalogue import LOSS_REASONS
from ._control import Control
from ._errors import Ring2Error
from ._ranks import Ranks
from ._requests import encode

logger = logging.getLogger("ring2")

PENDING_RECORDS_MAX = 4096
HEARTBEAT_SECONDS = 0.5
HEARTBEAT_JOIN_SECONDS = 2.0
BYTES_PER_MIB = 1 << 20
WHEN_FULL = {"drop": 0, "block": 1}
BLOCK_TIMEOUT_MS_MAX = 60_000

_live: "weakref.WeakSet[Producer]" = weakref.WeakSet()


def _argument(message: str) -> Ring2Error:
    return Ring2Error("RING2_E_ARGUMENT", message)


def _beat(reference: "weakref.ref[Producer]", stop: threading.Event) -> None:
    while not stop.wait(HEARTBEAT_SECONDS):
        producer = reference()
        if producer is None:
            return
        producer.heartbeat()
        housekeeping = producer.housekeeping
        if housekeeping is not None:
            housekeeping()
        del producer, housekeeping


class Producer:
    """A segment this process has created. Every method may be called from any thread."""

    def __init__(
        self,
        name: str,
        payload_mb: float,
        when_full: str,
        block_timeout_ms: int,
        directory: str | None,
    ) -> None:
        if when_full not in WHEN_FULL:
            raise _argument(f"expected when_full to be 'drop' or 'block', got {when_full!r}")
        if not isinstance(payload_mb, (int, float)) or not payload_mb > 0:
            raise _argument(f"expected payload_mb to be a positive number, got {payload_mb!r}")
        if not 0 <= block_timeout_ms <= BLOCK_TIMEOUT_MS_MAX:
            raise _argument(
                f"expected block_timeout_ms from 0 to {BLOCK_TIMEOUT_MS_MAX}, "
                f"got {block_timeout_ms}"
            )
        self.name = name
        self.housekeeping: Callable[[], None] | None = None  # called with every heartbeat
        self._native = _native.library()
        self._lock = threading.RLock()
        self._pending: deque[tuple[int, bytes]] = deque()
        self._steps = itertools.count()
        self._handle: ctypes.c_void_p | None = None
        handle = ctypes.c_void_p()
        _native.check(
            self._native.ring2_python_open(
                None if directory is None else os.fsencode(directory),
                name.encode("utf-8", "replace"),
                int(payload_mb * BYTES_PER_MIB),
                WHEN_FULL[when_full],
                block_timeout_ms * 1000,
                ctypes.byref(handle),
            )
        )
        self.path = os.path.join(directory or "/dev/shm", f"ring2.{name}")
        self.slot = self._native.ring2_torch_add(handle)
        if self.slot < 0:
            self._native.ring2_producer_close(handle)
            raise _argument("expected at most 64 attached models in one process, got one more")
        self.set_ranks(Ranks())
        self._handle = handle
        self.blocking = when_full == "block"
        self._start_heartbeat()
        _live.add(self)

    def _start_heartbeat(self) -> None:
        self._stop = threading.Event()
        self._thread = threading.Thread(
            target=_beat, args=(weakref.ref(self), self._stop), name="ring2-heartbeat", daemon=True
        )
        self._thread.start()

    @property
    def alive(self) -> bool:
        return self._handle is not None

    def heartbeat(self) -> None:
        """Says that this process lives, and tries again what waits for room."""
        with self._lock:
            if self._handle is not None:
                self._native.ring2_producer_heartbeat(self._handle)
                self._flush()

    def send(self, kind: int, body: dict[str, object]) -> None:
        """Writes a JSON record, now or as soon as there is room."""
        data = encode(body)
        with self._lock:
            if self._handle is None:
                return
            self._flush()
            if self.on_gpu and kind == _native.KIND_REQUEST_END and not self._pending:
                # Its last tensors may still be on the GPU: the end comes behind them.
                size = len(data)
                if self._native.ring2_torch_write_behind(self.slot, kind, data, size):
                    return
            if not self._pending and self._write(kind, data):
                return
            if len(self._pending) < PENDING_RECORDS_MAX:
                self._pending.append((kind, data))
                return
            self._native.ring2_count_loss(
                self._handle, LOSS_REASONS["meta_full"], 1, len(data)
            )

    def offer(self, kind: int, body: dict[str, object], room: int) -> bool:
        """Writes a JSON record if nothing waits and ``room`` records of its size would fit."""
        data = encode(body)
        with self._lock:
            if self._handle is None or not self._flush():
                return False
            if not self._native.ring2_python_room(self._handle, room * len(data)):
                return False
            written = self._native.ring2_write_json(self._handle, kind, data, len(data))
            return _native.check(written) == _native.OK

    def _write(self, kind: int, data: bytes) -> bool:
        # A refused record is counted as lost by the native side; asking for room first keeps the
        # count honest while the record waits.
        if not self.blocking and not self._native.ring2_python_room(self._handle, len(data)):
            return False
        written = self._native.ring2_write_json(self._handle, kind, data, len(data))
        return _native.check(written) == _native.OK

    def _flush(self) -> bool:
        while self._pending:
            kind, data = self._pending[0]
            if not self._write(kind, data):
                return False
            self._pending.popleft()
        return True

    def set_ranks(self, ranks: Ranks) -> None:
        """Every tensor from now on carries these ranks."""
        self._native.ring2_torch_set_ranks(self.slot, ranks.tp, ranks.pp, ranks.dp, ranks.ep)

    def control(self) -> Control:
        """What the exporter wants now; taken once at the beginning of a step."""
        return Control(self._native, self.slot)

    def write_step(
        self, layout: int, columns: int, rows: Sequence[Sequence[int]], tensors: int,
        sequence: int = 0, flags: int = 0,
    ) -> int:
        """Writes a STEP and returns its number; -1 when it, with its ``tensors``, is lost.

        ``sequence`` is that of the ``Control`` the step is captured by.
        """
        flat = [value for row in rows for value in row]
        values = (ctypes.c_int64 * len(flat))(*flat)
        with self._lock:
            if self._handle is None:
                return -1
            step = next(self._steps)
            if not self._flush():
                # A REQUEST that waits must come before the steps that name it.
                self._native.ring2_count_loss(
                    self._handle, LOSS_REASONS["step_lost"], tensors, 0
                )
                return -1
            written = _native.check(
                self._native.ring2_python_step(
                    self._handle, step, layout, flags, sequence, columns, len(rows), values
                )
            )
        # On FULL the native side refuses the step's tensors and counts each with its bytes.
        return step if written in (_native.OK, _native.FULL) else -1

    def count_loss(self, reason: str, records: int) -> None:
        with self._lock:
            if self._handle is not None:
                self._native.ring2_count_loss(self._handle, LOSS_REASONS[reason], records, 0)

    def losses(self) -> dict[str, tuple[int, int]]:
        """Records and bytes lost on this side, by reason; reasons without loss are left out."""
        records = (ctypes.c_uint64 * _native.LOSS_REASONS_MAX)()
        sizes = (ctypes.c_uint64 * _native.LOSS_REASONS_MAX)()
        with self._lock:
            if self._handle is None:
                return dict(self._last_losses)
            _native.check(self._native.ring2_python_losses(self._handle, records, sizes))
        return {
            name: (records[index], sizes[index])
            for name, index in LOSS_REASONS.items()
            if records[index]
        }

    on_gpu = False  # whether tensors of a GPU find their way here

    _last_losses: dict[str, tuple[int, int]] = {}

    def close(self) -> None:
        """Marks the segment closed; what is in it stays for the exporter. Twice is harmless."""
        self._stop.set()
        self._native.ring2_torch_remove(self.slot)
        with self._lock:
            if self._handle is None:
                return
            if not self._flush():
                self._native.ring2_count_loss(
                    self._handle, LOSS_REASONS["meta_full"], len(self._pending), 0
                )
            self._last_losses = self.losses()
            handle, self._handle = self._handle, None
            self._native.ring2_producer_close(handle)
        if self._thread is not threading.current_thread():
            self._thread.join(HEARTBEAT_JOIN_SECONDS)

    def abandon(self) -> None:
        """In a forked child: forgets the parent's segment without touching it."""
        self._handle = None
        self._lock = threading.RLock()
        self._pending.clear()


def _after_fork_in_child() -> None:
    for producer in list(_live):
        producer._native.ring2_torch_forget_all()
        producer.abandon()


os.register_at_fork(after_in_child=_after_fork_in_child)
