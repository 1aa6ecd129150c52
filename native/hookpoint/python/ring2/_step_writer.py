"""Steps and requests of one probe: what a forward pass opens, writes and closes.

A forward pass opens a step (its STEP record first), the taps inside it copy what they see, and its
end closes the step. Nothing here raises into the model. What is captured in a step: ``_taps``.
"""

import ctypes
import itertools
import threading
from collections.abc import Callable
from typing import Any

from . import _native, _requests
from ._anonymous import AnonymousRequests
from ._control import Control
from ._end_tokens import EndTokens
from ._finished import FinishedRows
from ._producer import Producer
from ._requests import Entry, Session
from ._steps import Forward, argument_binder, read_forward
from ._trouble import Trouble


class CurrentStep(threading.local):
    """The step that this thread's forward pass belongs to."""

    forward: Forward | None = None
    entries: tuple[Entry, ...] = ()
    cache: Any = None  # of a step that may not have been written: without a forward
    picks_logits: bool = False  # whether the caller chose the positions of the logits

    def clear(self) -> None:
        self.forward, self.entries, self.cache, self.picks_logits = None, (), None, False


class StepWriter:
    """Opens and closes the steps of one model, and its requests' sessions."""

    def __init__(
        self, producer: Producer, end_tokens: EndTokens, trouble: Trouble, tensors: int
    ) -> None:
        self.current = CurrentStep()
        self._producer = producer
        self._trouble = trouble
        self._tensors = tensors
        self.capture_token_ids: Callable[[Any], object] | None = None
        self._native = _native.library()
        self._keys = itertools.count(1)
        self._keys_lock = threading.Lock()
        self._open: dict[Entry, None] = {}
        self._anonymous = AnonymousRequests()
        self._finished = FinishedRows(end_tokens)
        producer.housekeeping = self._anonymous.collect

    def watch(self, model: Any) -> list[Callable[[], object]]:
        """Hooks a model's forward passes; returns what undoes it."""
        self._bind = argument_binder(model.forward)
        # Steps are Python's business: a compiler must run these as they are, not trace them.
        before, after = untraced(self._before), untraced(self._after)
        handles = (
            model.register_forward_pre_hook(before, with_kwargs=True, prepend=True),
            model.register_forward_hook(after, always_call=True),
        )
        return [handle.remove for handle in handles]

    def close_all(self) -> None:
        """Ends every open request."""
        self._anonymous.end_all()
        for entry in list(self._open):
            self.close_request(entry, "ok")
        self._producer.housekeeping = None

    # ------------------------------------------------------------------ steps

    def disable(self, error: Exception) -> None:
        self.current.forward = None
        self._native.ring2_torch_set_step(self._producer.slot, -1)
        self._trouble.disable(error)

    def _before(self, _module: Any, args: tuple, kwargs: dict[str, Any]) -> None:
        if not self._trouble.active:
            return
        try:
            self._open_step(self._bind(args, kwargs))
        except Exception as error:  # the model must go on, whatever this was
            self.disable(error)

    def _after(self, _module: Any, _args: tuple, output: Any) -> None:
        entries, given = self.current.entries, self.current.cache
        self._native.ring2_torch_set_step(self._producer.slot, -1)
        self.current.clear()
        if not entries or not self._trouble.active:
            return
        try:
            cache = getattr(output, "past_key_values", None)
            self._anonymous.after(entries, cache if cache is not None else given)
        except Exception as error:  # the model must go on, whatever this was
            self.disable(error)

    def _open_step(self, arguments: dict[str, Any]) -> None:
        self._native.ring2_torch_set_step(self._producer.slot, -1)
        self.current.clear()
        control = self._producer.control()
        if control.wants_nothing:
            self._skip_step(arguments)
            return
        forward = read_forward(arguments)
        if forward is None:
            self._refuse("a forward pass without a tensor argument cannot be attributed")
            return
        entries = _requests.current()
        if entries is None:
            entries = self._anonymous.resolve(forward.batch, forward.past, forward.cache)
            self.current.entries, self.current.cache = entries, forward.cache
        elif len(entries) != forward.batch:
            self._refuse(
                f"a forward pass of {forward.batch} rows under {len(entries)} requests was not "
                "captured: give one request per batch row (beams and several sequences per request "
                "cannot be attributed)"
            )
            return
        if forward.irregular:
            self._refuse("rows with padding between their tokens were not captured")
        self.current.picks_logits = hasattr(arguments.get("logits_to_keep"), "ndim")
        rows = self._finished.remove(forward, entries)
        if rows:
            self._write(control, forward, rows, entries)

    def _skip_step(self, arguments: dict[str, Any]) -> None:
        """A step that nobody wants. In a batch it may still be the one in which a row ends."""
        entries = _requests.current()
        if entries is not None and len(entries) == 1:
            self._session(entries[0]).left_out += 1
            return
        ids = arguments.get("input_ids")
        if getattr(ids, "ndim", 0) != 2 or ids.shape[0] == 1:
            return
        forward = read_forward(arguments)
        if forward is None:
            return
        if entries is None:
            entries = self._anonymous.resolve(forward.batch, forward.past, forward.cache)
            self.current.entries, self.current.cache = entries, forward.cache
        elif len(entries) != forward.batch:
            return
        for row in self._finished.remove(forward, entries):
            session = self._session(entries[row.index])
            session.count(row.token_end, forward.phase == _native.PHASE_PREFILL, False)

    def _write(
        self, control: Control, forward: Forward, rows: Any, entries: tuple[Entry, ...]
    ) -> None:
        values = []
        phase = forward.phase
        for row in rows:
            entry = entries[row.index]
            session = self._session(entry)
            wanted = control.wants_request(entry.info.request_id, entry.sampled)
            wanted = wanted and control.wants_tokens(phase, row.token_start, row.token_end)
            if 0 < session.tokens < row.token_start and session.left_out == 0:
                session.left_out = 1  # at least: passed without a look while nothing was wanted
            session.count(row.token_end, phase == _native.PHASE_PREFILL, wanted)
            if not wanted:
                continue
            self._announce(entry, session)
            values.append((session.key, row.token_start, row.token_end, row.index,
                           row.row_offset, row.kv_offset, phase))
        if not values:
            return
        batched = forward.layout == _native.LAYOUT_BATCHED
        if batched and len(values) < forward.batch:
            values = self._leave_out(forward.batch, values)
        step = self._producer.write_step(
            forward.layout, forward.columns, values, self._tensors, control.sequence
        )
        if step < 0:
            return
        self.current.forward = forward
        self._native.ring2_torch_set_batch(self._producer.slot, forward.batch if batched else 0)
        self._native.ring2_torch_set_step(self._producer.slot, step)
        if self.capture_token_ids is not None and forward.token_ids is not None:
            self.capture_token_ids(forward.token_ids)

    def _leave_out(self, batch: int, values: list[tuple[int, ...]]) -> list[tuple[int, ...]]:
        """Has only the given rows of the batch copied, and numbers them as they then lie."""
        runs: list[int] = []
        for value in values:
            if runs and runs[-2] + runs[-1] == value[3]:
                runs[-1] += 1
            else:
                runs += (value[3], 1)
        pairs = (ctypes.c_uint32 * len(runs))(*runs)
        slot = self._producer.slot
        if not self._native.ring2_torch_set_runs(slot, batch, len(runs) // 2, pairs):
            return values
        return [(*value[:3], index, *value[4:]) for index, value in enumerate(values)]

    def _refuse(self, reason: str) -> None:
        self._producer.count_loss("unsupported", self._tensors)
        self._trouble.warn_once(reason, reason)

    # ------------------------------------------------------------------ requests

    def _session(self, entry: Entry) -> Session:
        session = entry.sessions.get(self)
        if session is None:
            with self._keys_lock:
                session = entry.sessions.get(self)
                if session is None:
                    session = Session(next(self._keys))
                    entry.sessions[self] = session
        return session

    def _announce(self, entry: Entry, session: Session) -> None:
        """Writes the REQUEST record, once."""
        if session.announced:
            return
        with self._keys_lock:
            if session.announced:
                return
            session.announced = True
            self._open[entry] = None
            body = _requests.request_body(entry.info, session.key, entry.started_realtime_ns)
            self._producer.send(_native.KIND_REQUEST, body)

    def open_request(self, entry: Entry) -> None:
        """Writes the REQUEST record of a request that is wanted. Never raises."""
        if not self._trouble.active or not self._producer.alive:
            return
        try:
            control = self._producer.control()
            nothing = control.wants_nothing
            if not nothing and control.wants_request(entry.info.request_id, entry.sampled):
                self._announce(entry, self._session(entry))
        except Exception as error:  # the caller's request must go on, whatever this was
            self.disable(error)

    def close_request(self, entry: Entry, outcome: str) -> None:
        """Writes the REQUEST_END record. Never raises."""
        session = entry.sessions.pop(self, None)
        self._open.pop(entry, None)
        self._finished.forget(entry)
        if session is None or not session.announced or not self._producer.alive:
            return
        try:
            self._producer.send(
                _native.KIND_REQUEST_END,
                {
                    "key": session.key,
                    "steps": session.steps,
                    **({"steps_left_out": session.left_out} if session.left_out else {}),
                    "tokens": session.tokens,
                    "prompt_tokens": session.prompt_tokens,
                    "outcome": outcome,
                },
            )
        except Exception as error:  # the caller's request must go on, whatever this was
            self.disable(error)


def untraced(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same function, which a compiler runs as it is."""
    import torch

    return torch.compiler.disable(function)
