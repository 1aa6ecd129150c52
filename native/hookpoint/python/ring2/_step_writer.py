"""Steps and requests of one probe: what a forward pass opens, writes and closes.

A forward pass opens a step (its STEP record first), the taps inside it copy what they see, and its
end closes the step. Nothing here raises into the model. What is captured in a step: ``_taps``.
"""

import ctypes
import itertools
import sys
import threading
from collections.abc import Callable, Iterable
from typing import Any

from . import _compiled, _cuda, _native, _requests
from ._anonymous import AnonymousRequests
from ._compiled import TracedCache
from ._control import Control
from ._end_tokens import EndTokens
from ._finished import FinishedRows
from ._producer import Producer
from ._requests import Entry, Session
from ._steps import Forward, argument_binder, holds_values, model_input, read_forward
from ._trouble import Trouble


class CurrentStep(threading.local):
    """The step that this thread's forward pass belongs to."""

    forward: Forward | None = None
    entries: tuple[Entry, ...] = ()
    cache: Any = None  # of a step that may not have been written: without a forward
    caller: Any = None  # the frame that runs the forward pass, by which a nested one is known
    entrance: int = 0  # which of the modules that are watched began it
    outer: list[tuple[Any, ...]]  # steps of the passes that this one is nested in

    def __init__(self) -> None:
        self.outer = []

    def clear(self) -> None:
        self.forward, self.entries, self.cache, self.caller = None, (), None, None


class StepWriter:
    """Opens and closes the steps of one model, and its requests' sessions."""

    def __init__(
        self, producer: Producer, end_tokens: EndTokens, trouble: Trouble, tensors: int
    ) -> None:
        self.current = CurrentStep()
        self._producer = producer
        self._trouble = trouble
        self.tensors = tensors  # of a whole step
        self.capture_token_ids: Callable[[Any], object] | None = None
        self.before_prompt: Callable[[], object] | None = None
        self.before_step: Callable[[Control, bool], object] | None = None
        self._inside: set[int] = set()  # threads that run a step
        self._inside_lock = threading.Lock()
        self._native = _native.library()
        self._keys = itertools.count(1)
        self._keys_lock = threading.Lock()
        self._open: dict[Entry, None] = {}
        self._anonymous = AnonymousRequests()
        self._finished = FinishedRows(end_tokens)
        producer.housekeeping = self._anonymous.collect

    def watch(
        self, entrances: Iterable[Any], token: Any, number: int
    ) -> list[Callable[[], object]]:
        """Hooks the modules whose call is a forward pass; returns what undoes it.

        Where one calls another, the outer call is the forward pass. ``token`` and ``number`` are
        what the operators of a compiled pass are given.
        """
        modules = tuple(entrances)
        depth = [0] if len(modules) > 1 else None
        undo = []
        for entrance, module in enumerate(modules):
            before, after = self._hooks(entrance, argument_binder(module.forward))
            traced = _compiled.trace_hooks(token, number, argument_binder(module.forward), depth)
            undo += self._watch(module, before, after, *traced)
        return undo

    def _hooks(self, entrance: int, bind: Callable[..., Any]) -> tuple[Any, Any]:
        def before(caller: Any, args: tuple, kwargs: dict[str, Any]) -> None:
            if not self._trouble.active:
                return
            try:
                if self._nest(entrance, caller):
                    self._open_step(bind(args, kwargs))
            except Exception as error:  # the model must go on, whatever this was
                self.disable(error)

        def after(output: Any) -> None:
            if self.current.entrance == entrance:
                self._after(output)

        return _compiled.untraced(before), _compiled.untraced(after)

    @staticmethod
    def _watch(
        module: Any, before: Any, after: Any, trace_before: Any, trace_after: Any
    ) -> list[Callable[[], object]]:
        # Of a model that is compiled by itself these are called outside of the graph, as they are.
        # Where a compiler traces the call of the model, it follows them to the operators.
        import torch

        traced = torch.compiler.is_dynamo_compiling

        # A copy of the model has these hooks too, and is another model.
        def pre_hook(called: Any, args: tuple, kwargs: dict[str, Any] | None = None) -> None:
            if kwargs is None:
                return  # taken off while this very call ran: PyTorch does not know any more how
            if traced():
                trace_before(args, kwargs)
            elif called is module:
                before(sys._getframe(1), args, kwargs)

        def hook(called: Any, _args: tuple, output: Any) -> None:
            if traced():
                trace_after(output)
            elif called is module:
                after(output)

        _compiled.never_first(pre_hook, hook)
        return [
            module.register_forward_pre_hook(pre_hook, with_kwargs=True, prepend=True).remove,
            module.register_forward_hook(hook, always_call=True).remove,
        ]

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

    def _after(self, output: Any) -> None:
        cache = getattr(output, "past_key_values", None)
        entries, given = self._close_step()
        if not entries or not self._trouble.active:
            return
        try:
            self._anonymous.after(entries, cache if cache is not None else given)
        except Exception as error:  # the model must go on, whatever this was
            self.disable(error)

    def begin_traced(self, arguments: dict[str, Any]) -> None:
        """What a compiled forward pass does before it runs. Never raises."""
        if not self._trouble.active:
            return
        try:
            self.current.outer.clear()
            self._end_native()
            self.current.clear()
            self._open_step(arguments)
        except Exception as error:  # the model must go on, whatever this was
            self.disable(error)

    def end_traced(self, cache: TracedCache | None) -> None:
        """What a compiled forward pass does after it has run. Never raises."""
        forward = self.current.forward
        entries, given = self._close_step()
        if not entries or not self._trouble.active:
            return
        try:
            address = given.address if cache is None else cache.address
            reached = 0 if forward is None else forward.past + forward.columns
            self._anonymous.after_traced(entries, address, reached)
        except Exception as error:  # the model must go on, whatever this was
            self.disable(error)

    def _nest(self, entrance: int, caller: Any) -> bool:
        """Whether this call begins a step; that of a model which calls itself is laid aside."""
        current = self.current
        if current.caller is not None and _runs_in(caller, current.caller):
            if current.entrance != entrance:
                return False
            current.outer.append((current.forward, current.entries, current.cache, current.caller))
            self._native.ring2_torch_push(self._producer.slot)
        elif current.outer:
            # A pass was left without its end (an interrupt): what it was nested in is gone too.
            current.outer.clear()
            self._native.ring2_torch_drop(self._producer.slot)
        self._end_native()
        current.clear()
        current.caller, current.entrance = caller, entrance
        return True

    def _close_step(self) -> tuple[tuple[Entry, ...], Any]:
        """Ends this thread's step; its anonymous entries, and the cache that it was given."""
        current = self.current
        entries, given = current.entries, current.cache
        self._end_native()
        current.clear()
        if not current.outer:
            with self._inside_lock:
                self._inside.discard(threading.get_ident())
        if current.outer:
            current.forward, current.entries, current.cache, current.caller = current.outer.pop()
            self._native.ring2_torch_pop(self._producer.slot)
        return entries, given

    def _end_native(self) -> None:
        if self._native.ring2_torch_end_step(self._producer.slot):
            self._trouble.warn_once(
                "cut",
                "attention patterns or final_logits of a forward pass were not captured: their "
                "keys are not one run of the request's positions (right padding before decoding, "
                "or a sliding window), or logits_to_keep is a tensor of positions",
            )

    def end_replay(self) -> None:
        """Ends the step of a graph's replay. Never raises."""
        self._after(None)

    def _open_step(self, arguments: dict[str, Any]) -> None:
        if self._producer.on_gpu and _cuda.captures_graph():
            # Nothing runs now: each replay opens a step of its own. The shape stays as it is.
            tensor, ids = model_input(arguments)
            batched = getattr(tensor, "ndim", 0) >= (2 if ids is not None else 3)
            batch = tensor.shape[0] if batched else 0
            self._native.ring2_torch_set_batch(self._producer.slot, batch)
            return
        control = self._producer.control()
        self._follow(control)
        if control.wants_nothing:
            self._skip_step(arguments)
            return
        if not holds_values(arguments):
            self._refuse("a forward pass on meta or fake tensors was not captured")
            return
        forward = read_forward(arguments)
        if forward is None:
            self._refuse("a forward pass without a tensor argument cannot be attributed")
            return
        if self.before_prompt is not None and forward.phase == _native.PHASE_PREFILL:
            self.before_prompt()
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
        picks_logits = hasattr(arguments.get("logits_to_keep"), "ndim")
        rows = self._finished.remove(forward, entries)
        if rows:
            self._write(control, forward, rows, entries, picks_logits)

    def _follow(self, control: Control) -> None:
        """Has the hooks on the modules that this step needs, before it runs."""
        thread = threading.get_ident()
        with self._inside_lock:
            if len(self._inside) > (thread in self._inside):
                # A thread that was interrupted in a pass has not said that it left.
                self._inside &= {living.ident for living in threading.enumerate()}
            if self.before_step is not None and not self.current.outer:
                self.before_step(control, self._inside <= {thread})
            self._inside.add(thread)

    def _skip_step(self, arguments: dict[str, Any]) -> None:
        """A step that nobody wants. In a batch it may still be the one in which a row ends."""
        entries = _requests.current()
        if entries is not None and len(entries) == 1:
            self._session(entries[0]).left_out += 1
            return
        # A request that nobody named is known by how far its cache has come: it must be looked at.
        forward = read_forward(arguments) if holds_values(arguments) else None
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
        self, control: Control, forward: Forward, rows: Any, entries: tuple[Entry, ...],
        picks_logits: bool,
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
            forward.layout, forward.columns, values, self.tensors, control.sequence
        )
        if step < 0:
            return
        self.current.forward = forward
        self._native.ring2_torch_set_batch(self._producer.slot, forward.batch if batched else 0)
        keys = forward.past + forward.columns if forward.keys_in_one_piece else -1
        self._native.ring2_torch_set_limits(self._producer.slot, keys, picks_logits)
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
        self._producer.count_loss("unsupported", self.tensors)
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
            body = _requests.end_body(session, outcome)
            self._producer.send(_native.KIND_REQUEST_END, body)
        except Exception as error:  # the caller's request must go on, whatever this was
            self.disable(error)


def _runs_in(frame: Any, caller: Any) -> bool:
    """Whether ``caller`` is still running, beneath ``frame``."""
    while frame is not None:
        if frame is caller:
            return True
        frame = frame.f_back
    return False
