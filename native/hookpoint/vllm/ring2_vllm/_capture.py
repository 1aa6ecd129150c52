"""Capture of one worker: which requests a forward pass computes, in which rows, and its STEP.

The model runner's own batch says the order of rows; it is read inside the step, after vLLM has
prepared it, and checked against the scheduler's counts and the positions the model is given. What does not
agree is counted as lost and given to nobody. Nothing here raises into vLLM; outside of
``Worker.execute_model`` (warm-up, profiling) nothing is captured.
"""

import ctypes
import logging
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from ring2 import _native
from ring2._control import Control
from ring2._producer import Producer
from ring2._selection import HOOKS_BY_NAME
from ring2._trouble import Trouble

from ._aborts import ABORTED, aborted_of, untold
from ._patterns import COMPUTED, Patterns
from ._sessions import Session, Sessions

logger = logging.getLogger("vllm.ring2")


class Row(NamedTuple):
    """One request's part of a step: rows [offset, offset + token_end − token_start)."""

    session: Session
    token_start: int
    token_end: int
    offset: int
    phase: int
    index: int  # in the runner's batch


class Capture:
    """Steps and requests of one worker, until ``close``."""

    def __init__(
        self, producer: Producer, runner: Any, hooks: Mapping[str, tuple[int, ...]], queries: int
    ) -> None:
        self.producer = producer
        self.trouble = Trouble(producer.name)
        self.sessions = Sessions(producer)
        self._runner = runner
        self._hooks = hooks
        self._tensors = sum(len(n) for hook, n in hooks.items() if hook not in COMPUTED)
        self._native = _native.library()
        self._operator = _native.register_operator()
        self._patterns = Patterns(producer, self.trouble, queries)
        self._scheduled: Any = None  # the scheduler's output while execute_model runs
        self.follow: Callable[[Control], object] = lambda _: None  # before each step
        self._logits_rows: list[int] | None = None  # of the open step; None: no step is open

    def install(self, impls: Mapping[int, Any]) -> None:
        """Wraps this worker's forward pass, its logits and the given layers' attention."""
        runner, model = self._runner, self._runner.get_model()
        forward = runner._model_forward
        runner._model_forward = self._around_forward(forward)
        logits = getattr(model, "compute_logits", None)
        if logits is not None and "final_logits" in self._hooks:
            model.compute_logits = self._around_logits(logits)
        self._patterns.install(impls, self._hooks)

    def close(self) -> None:
        """Ends open requests and closes the segment. Twice is harmless."""
        if self.producer.alive:
            self.trouble.active = False
            finished, aborted = untold()
            self.sessions.finish(finished, dict.fromkeys(aborted, ABORTED))
            self.sessions.finish_all()
            self.producer.close()

    # ------------------------------------------------------------------ around vLLM's calls

    def begin(self, scheduled: Any) -> None:
        """A call of Worker.execute_model."""
        if not self.trouble.active:
            return
        try:
            self._scheduled = scheduled
            if scheduled.finished_req_ids:
                outcomes = dict.fromkeys(aborted_of(scheduled), ABORTED)
                self.sessions.finish(scheduled.finished_req_ids, outcomes)
        except Exception as error:  # noqa: BLE001  the engine must go on, whatever this was
            self._disable(error)

    def end(self) -> None:
        """The call is over, however it ended."""
        self._scheduled = None
        self._close_step()

    def _around_forward(self, forward: Callable[..., Any]) -> Callable[..., Any]:
        def model_forward(*args: Any, **kwargs: Any) -> Any:
            if self._scheduled is not None and self.trouble.active:
                try:
                    names = ("input_ids", "positions", "intermediate_tensors", "inputs_embeds")
                    self._open_step({**dict(zip(names, args, strict=False)), **kwargs})
                except Exception as error:  # noqa: BLE001  the engine must go on
                    self._disable(error)
            return forward(*args, **kwargs)

        return model_forward

    def _around_logits(self, compute: Callable[..., Any]) -> Callable[..., Any]:
        def compute_logits(*args: Any, **kwargs: Any) -> Any:
            logits = compute(*args, **kwargs)
            if self._logits_rows is not None and logits is not None:
                try:
                    self._write_logits(logits, self._logits_rows)
                except Exception as error:  # noqa: BLE001  the engine must go on
                    self._disable(error)
            return logits

        return compute_logits

    def _disable(self, error: Exception) -> None:
        self._close_step()
        self.trouble.disable(error)

    def _close_step(self) -> None:
        self._logits_rows = None
        self._patterns.end()
        self._native.ring2_torch_set_step(self.producer.slot, -1)

    # ------------------------------------------------------------------ a step

    def _open_step(self, given: Mapping[str, Any]) -> None:
        self._close_step()
        control = self.producer.control()
        self.follow(control)
        rows = self._rows(given.get("positions"))
        if rows is None:
            self._refuse()
            return
        wanted = [row for row in rows if self._is_wanted(control, row)]
        if not wanted:
            return
        for row in wanted:
            self.sessions.announce(row.session)
        tokens = sum(row.token_end - row.token_start for row in rows)
        runs = [] if len(wanted) == len(rows) else self._runs(wanted)
        length = _columns(given, tokens)
        whole = not runs or not self._set_runs(length, runs)
        values, offset = [], 0
        for order, row in enumerate(wanted):
            values.append((row.session.key, row.token_start, row.token_end, order,
                           row.offset if whole else offset, 0, row.phase))
            offset += row.token_end - row.token_start
        columns = length if whole else offset
        slot = self.producer.slot
        step = self.producer.write_step(
            _native.LAYOUT_PACKED, columns, values, self._tensors, control.sequence
        )
        if step < 0:
            return
        self._native.ring2_torch_set_batch(slot, 0)
        self._native.ring2_torch_set_step(slot, step)
        self._logits_rows = [row.index for row in wanted]
        kept = [] if whole else runs
        self._patterns.begin(wanted, step, control.sequence, lambda: self._set_runs(length, kept))
        ids = given.get("input_ids")
        if ids is not None and "token_ids" in self._hooks:
            self._write("token_ids", ids)

    def _rows(self, positions: Any) -> list[Row] | None:
        """Rows of the runner's batch in its order; None when anything does not agree."""
        runner, scheduled = self._runner, self._scheduled
        batch, counts = runner.input_batch, scheduled.num_scheduled_tokens
        names = list(batch.req_ids[: batch.num_reqs])
        if len(set(names)) != len(names) or set(names) != set(counts):
            return None
        if not 0 < len(names) <= _native.STEP_ROWS_MAX:
            return None
        if sum(counts.values()) != scheduled.total_num_scheduled_tokens:
            return None
        computed = batch.num_computed_tokens_cpu[: len(names)].tolist()
        first = positions if getattr(positions, "ndim", 0) == 1 else None
        rows: list[Row] = []
        offset = 0
        for index, (name, start) in enumerate(zip(names, computed, strict=True)):
            count = counts[name]
            if first is not None and int(first[offset]) != start:
                return None
            session = self.sessions.of(name, runner.requests)
            prefill = start < session.prompt_tokens or count > 1
            phase = _native.PHASE_PREFILL if prefill else _native.PHASE_DECODE
            rows.append(Row(session, start, start + count, offset, phase, index))
            offset += count
        return rows

    def _is_wanted(self, control: Control, row: Row) -> bool:
        session = row.session
        wanted = not control.wants_nothing
        wanted = wanted and control.wants_request(session.info.request_id, session.sampled)
        wanted = wanted and control.wants_tokens(row.phase, row.token_start, row.token_end)
        session.count(row.token_end, wanted)
        return wanted

    def _runs(self, wanted: list[Row]) -> list[int]:
        """Start and count in turn, of the rows of these requests."""
        runs: list[int] = []
        for row in wanted:
            count = row.token_end - row.token_start
            if runs and runs[-2] + runs[-1] == row.offset:
                runs[-1] += count
            else:
                runs += (row.offset, count)
        return runs

    def _set_runs(self, length: int, runs: list[int]) -> bool:
        """Has only these rows copied until the step ends; False when there are too many runs."""
        pairs = (ctypes.c_uint32 * len(runs))(*runs)
        slot, count = self.producer.slot, len(runs) // 2
        return bool(self._native.ring2_torch_set_runs(slot, length, count, pairs))

    def _refuse(self) -> None:
        self.producer.count_loss("unsupported", self._tensors)
        self.trouble.warn_once(
            "rows", "a step whose rows vLLM's batch does not say for certain was not captured"
        )

    def _write(self, hook: str, tensor: Any) -> None:
        self._operator(self._patterns.token, tensor, self.producer.slot, HOOKS_BY_NAME[hook].id, -1)

    def _write_logits(self, logits: Any, indices: list[int]) -> None:
        """One row per request: of its last token in this step."""
        slot, self._logits_rows = self.producer.slot, None
        if not self._native.ring2_torch_wants(slot, HOOKS_BY_NAME["final_logits"].id, -1):
            return
        batch = self._runner.input_batch.num_reqs
        if logits.ndim != 2 or logits.shape[0] != batch:
            self.producer.count_loss("unsupported", 1)
            self.trouble.warn_once(
                "logits", f"expected {batch} rows of logits, one per request, got {logits.shape[0]}"
            )
            return
        # The logits have rows of their own, so the step's choice of rows does not hold for them.
        self._native.ring2_torch_set_runs(slot, 0, 0, None)
        self._write("final_logits", logits if len(indices) == batch else logits[indices])


def _columns(given: Mapping[str, Any], tokens: int) -> int:
    """Rows of the model's tensors, which may be padded behind the last token."""
    for name in ("input_ids", "inputs_embeds"):
        tensor = given.get(name)
        if tensor is not None:
            return max(tokens, int(tensor.shape[0]))
    positions = given.get("positions")
    return tokens if positions is None else max(tokens, int(positions.shape[-1]))
