"""``Probe``: hooks on a model, steps, and capture into one segment.

A forward pass of the model opens a step (its STEP record first), the hooks inside it copy what they
see, and its end closes the step. Nothing here changes a tensor or raises into the model: the first
unexpected error ends the capture, with one log line. ``detach`` leaves the model as it was.
"""

import itertools
import logging
import threading
from collections.abc import Callable
from typing import Any

from . import _attention, _models, _native, _requests
from ._anonymous import AnonymousRequests
from ._end_tokens import EndTokens
from ._finished import FinishedRows
from ._producer import Producer
from ._requests import Entry, Session
from ._selection import HOOKS_BY_NAME
from ._steps import Forward, argument_binder, read_forward

logger = logging.getLogger("ring2")


class _CurrentStep(threading.local):
    """The step that this thread's forward pass belongs to."""

    forward: Forward | None = None
    entries: tuple[Entry, ...] = ()
    cache: Any = None  # of a step that may not have been written: without a forward
    picks_logits: bool = False  # whether the caller chose the positions of the logits

    def clear(self) -> None:
        self.forward, self.entries, self.cache, self.picks_logits = None, (), None, False


class Probe:
    """Capture of one model into one segment, until ``detach``. Also a context manager."""

    def __init__(
        self, model: Any, structure: _models.Structure, hooks: dict[str, tuple[int, ...]],
        producer: Producer, end_tokens: EndTokens,
    ) -> None:
        self.hooks = hooks
        self.segment = producer.name
        self.path = producer.path
        self.model = model
        self._producer = producer
        self._capture = _native.register_operator()
        self._native = _native.library()
        self._token = _token_buffer()
        self._keys = itertools.count(1)
        self._keys_lock = threading.Lock()
        self._step = _CurrentStep()
        self._open: dict[Entry, None] = {}
        self._anonymous = AnonymousRequests()
        self._end_tokens = end_tokens
        self._finished = FinishedRows(end_tokens)
        self._undo: list[Callable[[], object]] = []
        self._active = True
        self._warned: set[str] = set()
        wanted = {(hook, layer) for hook, layers in hooks.items() for layer in layers}
        self._sites = [site for site in structure.sites if (site.hook, site.layer) in wanted]
        self._tensors = len(self._sites) + ("token_ids" in hooks)
        producer.housekeeping = self._anonymous.collect

    # ------------------------------------------------------------------ public

    @property
    def active(self) -> bool:
        """False once detached, or after an error has ended the capture."""
        return self._active and self._producer.alive

    def losses(self) -> dict[str, tuple[int, int]]:
        """(records, bytes) that this side could not write, by reason; see docs/architecture.md."""
        return self._producer.losses()

    def abandon(self) -> None:
        """In a forked child: the hooks stay on the model and do nothing."""
        self._active = False

    def detach(self) -> None:
        """Takes every hook off, ends open requests and closes the segment. Twice is harmless."""
        self._active = False
        while self._undo:
            self._undo.pop()()
        if self in _requests.attached:
            _requests.attached.remove(self)
        self._anonymous.end_all()
        for entry in list(self._open):
            self.close_request(entry, "ok")
        self._producer.housekeeping = None
        self._producer.close()

    def __enter__(self) -> "Probe":
        return self

    def __exit__(self, *_: object) -> None:
        self.detach()

    # ------------------------------------------------------------------ installation

    def install(self) -> None:
        """Puts the hooks on the model."""
        model = self.model
        self._bind = argument_binder(model.forward)
        # Steps are Python's business: a compiler must run these as they are, not trace them.
        before, after = _untraced(self._before), _untraced(self._after)
        self._on(model.register_forward_pre_hook(before, with_kwargs=True, prepend=True))
        self._on(model.register_forward_hook(after, always_call=True))
        restore = self._end_tokens.install()
        if restore is not None:
            self._undo.append(restore)
        kernel = "" if "pattern" not in self.hooks else self._attention_kernel()
        for site in self._sites:
            self._install_site(site, kernel)

    def _on(self, handle: Any) -> None:
        self._undo.append(handle.remove)

    def _attention_kernel(self) -> str:
        if not any(site.side == _models.WEIGHTS for site in self._sites):
            return ""
        config = self.model.config
        kernel = _attention.implementation(self.model)
        if kernel != "eager":
            config._attn_implementation = _attention.register_twin(kernel)

            def restore() -> None:
                config._attn_implementation = kernel

            self._undo.append(restore)
        return kernel

    def _install_site(self, site: _models.Site, kernel: str) -> None:
        tap = self._tap(HOOKS_BY_NAME[site.hook].id, site.layer, site.view)
        if site.hook == "final_logits":
            tap = self._logits_tap(tap)
        module = site.module
        if hasattr(module, "hook_name"):
            module._tap = tap
            self._undo.append(lambda: setattr(module, "_tap", None))
        elif site.side == _models.INPUT:
            self._on(module.register_forward_pre_hook(_input_hook(tap), with_kwargs=True))
        elif site.side == _models.OUTPUT:
            self._on(module.register_forward_hook(_output_hook(tap)))
        elif kernel == "eager":
            self._on(module.register_forward_hook(_untraced(self._weights_hook(site.layer, tap))))
        else:
            module.__dict__[_attention.TAP] = _untraced(self._pattern_tap(site.layer, tap))
            self._undo.append(lambda: module.__dict__.pop(_attention.TAP, None))

    def _tap(self, hook: int, layer: int, view: _models.View | None) -> Callable[[Any], None]:
        capture, token, slot = self._capture, self._token, self._producer.slot

        def tap(tensor: Any) -> None:
            try:
                if tensor.requires_grad:
                    tensor = tensor.detach()
                if view is not None:
                    tensor = view(tensor)
                capture(token, tensor, slot, hook, layer)
            except Exception as error:  # the model must go on, whatever this was
                self._disable(error)

        return tap

    def _logits_tap(self, tap: Callable[[Any], None]) -> Callable[[Any], None]:
        """Rows of logits are the last tokens of a step, unless the caller chose others."""

        def logits(tensor: Any) -> None:
            if not self._step.picks_logits:
                tap(tensor)
            elif self._step.forward is not None:
                self._producer.count_loss("unsupported", 1)
                self._warn_once(
                    "logits",
                    "final_logits of a forward pass whose logits_to_keep is a tensor of positions "
                    "were not captured; give it the number of last positions",
                )

        return _untraced(logits)

    # ------------------------------------------------------------------ attention

    def _weights_hook(self, layer: int, tap: Callable[[Any], None]) -> Callable[..., None]:
        """Eager attention returns its probabilities: they are captured as they are."""

        def hook(_module: Any, _args: Any, output: Any) -> None:
            forward = self._step.forward
            if forward is None:
                return
            weights = output[1] if isinstance(output, tuple) and len(output) > 1 else None
            keys = forward.past + forward.columns
            if weights is None or not forward.keys_in_one_piece or weights.shape[-1] < keys:
                self._refuse_pattern(layer)
                return
            tap(weights[..., :keys])

        return hook

    def _pattern_tap(self, layer: int, tap: Callable[[Any], None]) -> Callable[..., None]:
        import torch

        wants, slot = self._native.ring2_torch_wants, self._producer.slot
        hook = HOOKS_BY_NAME["pattern"].id

        def pattern(module: Any, query: Any, key: Any, mask: Any, kwargs: dict[str, Any]) -> None:
            try:
                forward = self._step.forward
                if forward is None or not wants(slot, hook, layer):
                    return
                keys = forward.past + forward.columns
                known_mask = mask is None or isinstance(mask, torch.Tensor)
                if not forward.keys_in_one_piece or key.shape[2] < keys or not known_mask:
                    self._refuse_pattern(layer)
                    return
                causal = kwargs.get("is_causal")
                if causal is None:
                    causal = getattr(module, "is_causal", True)
                with torch.no_grad():
                    weights = _attention.probabilities(
                        query, key, mask, kwargs.get("scaling"), causal, keys
                    )
                tap(weights)
            except Exception as error:  # the model must go on, whatever this was
                self._disable(error)

        return pattern

    def _refuse_pattern(self, layer: int) -> None:
        self._producer.count_loss("unsupported", 1)
        self._warn_once(
            "pattern",
            f"attention pattern of layer {layer} was not captured: its keys are not one run of the "
            "request's positions (right padding before decoding, or a sliding window)",
        )

    # ------------------------------------------------------------------ steps

    def _before(self, _module: Any, args: tuple, kwargs: dict[str, Any]) -> None:
        if not self._active:
            return
        try:
            self._open_step(self._bind(args, kwargs))
        except Exception as error:  # the model must go on, whatever this was
            self._disable(error)

    def _after(self, _module: Any, _args: tuple, output: Any) -> None:
        entries, given = self._step.entries, self._step.cache
        self._native.ring2_torch_set_step(self._producer.slot, -1)
        self._step.clear()
        if not entries or not self._active:
            return
        try:
            cache = getattr(output, "past_key_values", None)
            self._anonymous.after(entries, cache if cache is not None else given)
        except Exception as error:  # the model must go on, whatever this was
            self._disable(error)

    def _open_step(self, arguments: dict[str, Any]) -> None:
        self._native.ring2_torch_set_step(self._producer.slot, -1)
        self._step.clear()
        forward = read_forward(arguments)
        if forward is None:
            self._refuse_step("a forward pass without a tensor argument cannot be attributed")
            return
        entries = _requests.current()
        if entries is None:
            entries = self._anonymous.resolve(forward.batch, forward.past, forward.cache)
            self._step.entries, self._step.cache = entries, forward.cache
        elif len(entries) != forward.batch:
            self._refuse_step(
                f"a forward pass of {forward.batch} rows under {len(entries)} requests was not "
                "captured: give one request per batch row (beams and several sequences per request "
                "cannot be attributed)"
            )
            return
        if forward.irregular:
            self._refuse_step("rows with padding between their tokens were not captured")
        self._step.picks_logits = hasattr(arguments.get("logits_to_keep"), "ndim")
        rows = self._finished.remove(forward, entries)
        if rows:
            self._write_step(forward, rows, entries)

    def _write_step(self, forward: Forward, rows: Any, entries: tuple[Entry, ...]) -> None:
        values = []
        for row in rows:
            session = self._session(entries[row.index])
            session.count(row.token_end, forward.phase == _native.PHASE_PREFILL)
            values.append((session.key, row.token_start, row.token_end, row.index,
                           row.row_offset, row.kv_offset, forward.phase))
        step = self._producer.write_step(forward.layout, forward.columns, values, self._tensors)
        if step < 0:
            return
        self._step.forward = forward
        self._native.ring2_torch_set_step(self._producer.slot, step)
        if "token_ids" in self.hooks and forward.token_ids is not None:
            self._capture(self._token, forward.token_ids, self._producer.slot,
                          HOOKS_BY_NAME["token_ids"].id, -1)

    def _refuse_step(self, reason: str) -> None:
        self._producer.count_loss("unsupported", self._tensors)
        self._warn_once(reason, reason)

    # ------------------------------------------------------------------ requests

    def _session(self, entry: Entry) -> Session:
        session = entry.sessions.get(self)
        if session is None:
            with self._keys_lock:
                session = entry.sessions.get(self)
                if session is None:
                    session = Session(next(self._keys))
                    entry.sessions[self] = session
                    self._open[entry] = None
                    body = _requests.request_body(
                        entry.info, session.key, entry.started_realtime_ns
                    )
                    self._producer.send(_native.KIND_REQUEST, body)
        return session

    def open_request(self, entry: Entry) -> None:
        """Writes the REQUEST record. Never raises."""
        if not self.active:
            return
        try:
            self._session(entry)
        except Exception as error:  # the caller's request must go on, whatever this was
            self._disable(error)

    def close_request(self, entry: Entry, outcome: str) -> None:
        """Writes the REQUEST_END record. Never raises."""
        session = entry.sessions.pop(self, None)
        self._open.pop(entry, None)
        if session is None or not self._producer.alive:
            return
        try:
            self._finished.forget(entry)
            self._producer.send(
                _native.KIND_REQUEST_END,
                {
                    "key": session.key,
                    "steps": session.steps,
                    "tokens": session.tokens,
                    "prompt_tokens": session.prompt_tokens,
                    "outcome": outcome,
                },
            )
        except Exception as error:  # the caller's request must go on, whatever this was
            self._disable(error)

    # ------------------------------------------------------------------ trouble

    def _warn_once(self, key: str, text: str) -> None:
        if key not in self._warned:
            self._warned.add(key)
            logger.warning("ring2: %s", text)

    def _disable(self, error: Exception) -> None:
        """Ends the capture after an error that was not expected; the model goes on."""
        if not self._active:
            return
        self._active = False
        self._step.forward = None
        self._native.ring2_torch_set_step(self._producer.slot, -1)
        logger.error(
            "ring2: capture of %s has stopped after an error; the model goes on without it: %s: %s",
            type(self.model).__name__, type(error).__name__, error, exc_info=error,
        )


def _untraced(function: Callable[..., Any]) -> Callable[..., Any]:
    import torch

    return torch.compiler.disable(function)


def _token_buffer() -> Any:
    """What the operator says it changes, so that a compiler neither drops nor reorders it."""
    import torch

    return torch.zeros(1, dtype=torch.uint8)


def _input_hook(tap: Callable[[Any], None]) -> Callable[..., None]:
    def hook(_module: Any, args: tuple, kwargs: dict[str, Any]) -> None:
        tap(args[0] if args else kwargs.get("hidden_states"))

    return hook


def _output_hook(tap: Callable[[Any], None]) -> Callable[..., None]:
    def hook(_module: Any, _args: tuple, output: Any) -> None:
        tap(output[0] if isinstance(output, tuple) else output)

    return hook
