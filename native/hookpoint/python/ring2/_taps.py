"""What is copied inside a step: a tap for each site, for logits and for attention patterns.

A tap is a forward hook of PyTorch that never raises. Which step its tensor belongs to is said by
``_step_writer``; whether anybody wants it is asked natively, by the operator. A step that nobody
wants is not opened, and outside of a step a tap does nothing.
"""

from collections.abc import Callable
from typing import Any

from . import _attention, _compiled, _models, _native, _native_taps
from ._producer import Producer
from ._selection import HOOKS_BY_NAME
from ._sites import Heads
from ._step_writer import CurrentStep
from ._trouble import Trouble

Tap = Callable[[Any, Any, Any], None]

CUT_KEYS = 256  # beside a hook's number: its last axis is of a cache's keys; as in torch_copy.h
SCORES_HOOK = HOOKS_BY_NAME["attn_scores"].id
PATTERN_HOOK = HOOKS_BY_NAME["pattern"].id
HOOK_NAMES = {hook.id: name for name, hook in HOOKS_BY_NAME.items()}


class Taps:
    """Makes the taps of one probe."""

    def __init__(
        self, producer: Producer, trouble: Trouble, current: CurrentStep, device: Any
    ) -> None:
        self._producer = producer
        self._trouble = trouble
        self._current = current
        self._capture = _native.register_operator()
        # What the overload calls itself, without its Python. A compiler needs the overload.
        self._direct = getattr(self._capture, "_op", self._capture)
        self._native = _native.library()
        self.token = _token_buffer(device)
        self._makers = _native_taps.makers()
        self._computed: dict[int, tuple[str, ...]] = {}
        self.number = 0  # of this probe, for the operators of compiled passes

    def token_ids(self, tensor: Any) -> None:
        hook = HOOKS_BY_NAME["token_ids"].id
        self._capture(self.token, tensor, self._producer.slot, hook, -1)

    def site(self, site: _models.Site) -> Callable[..., None]:
        """The hook that captures what passes a module: its output, its part of one, its input.

        A compiler traces it. Hooks on inputs are called before the module, with its named arguments.
        """
        tap = self._tap(site)
        if site.side == _models.INPUT and not hasattr(site.module, "hook_name"):
            return input_hook(tap, site.part, site.argument)
        return tap

    def untraced_site(self, site: _models.Site, hook: Callable[..., None]) -> Callable[..., None]:
        """What costs less than ``hook``, of the same site, where no compiler looks."""
        producer = self._producer
        if self._makers is None or producer.on_gpu or callable(site.view):
            return hook
        of_input = site.side == _models.INPUT and not hasattr(site.module, "hook_name")
        where = _native_taps.NAMED_INPUT if of_input else _native_taps.OUTPUT
        return self._makers.tap(
            producer.slot, _coded(site), site.layer, where, _part(site), producer.blocking,
            site.argument, hook,
        )

    def _tap(self, site: _models.Site) -> Tap:
        import torch

        hook, coded, part = HOOKS_BY_NAME[site.hook].id, _coded(site), _part(site)
        view = None if isinstance(site.view, Heads) else site.view
        capture, direct, token = self._capture, self._direct, self.token
        producer, slot, layer = self._producer, self._producer.slot, site.layer
        current, failed = self._current, self.failed
        traced = torch.compiler.is_dynamo_compiling

        def tap(_module: Any, _args: Any, output: Any) -> None:
            compiling = traced()
            # What a CUDA graph captures outside of a step it replays in steps.
            if not compiling and current.forward is None and not producer.on_gpu:
                return
            try:
                tensor = output[part] if isinstance(output, tuple) else output
                if tensor.requires_grad:
                    tensor = tensor.detach()
                if view is not None:
                    tensor = view(tensor)
                if compiling:
                    capture(token, tensor, slot, coded, layer)
                else:
                    direct(token, tensor, slot, coded, layer)
            except Exception as error:  # the model must go on, whatever this was
                failed(hook, layer, error)

        return tap

    # ------------------------------------------------------------------ attention

    def attention(self, layer: int, hooks: tuple[str, ...]) -> Callable[..., None]:
        """Called beside an attention kernel with what it was given; computes ``hooks``."""
        import torch

        def attend(query: Any, key: Any, mask: Any, scaling: float | None, causal: bool) -> None:
            tensor = mask if isinstance(mask, torch.Tensor) else None
            known = mask is None or tensor is not None
            if _compiled.traced():
                if query.requires_grad:
                    query, key = query.detach(), key.detach()
                torch.ops.ring2.attend(
                    self.token, self.number, layer, query, key, tensor, known, scaling,
                    bool(causal),
                )
            elif self._current.forward is not None:
                self.compute(layer, query, key, tensor, known, scaling, causal)

        self._computed[layer] = hooks
        return attend

    def untraced_attention(
        self, layer: int, hooks: tuple[str, ...], tap: Callable[..., None]
    ) -> Callable[..., None]:
        """What costs less than ``tap``, of the same layer, where no compiler looks."""
        producer = self._producer
        if self._makers is None or producer.on_gpu:
            return tap
        return self._makers.attention(
            producer.slot, layer, producer.blocking, "attn_scores" in hooks, "pattern" in hooks, tap
        )

    def compute(
        self, layer: int, query: Any, key: Any, mask: Any, known_mask: bool,
        scaling: float | None, causal: bool,
    ) -> None:
        """Scores and probabilities of one layer, as far as anybody wants them. Never raises."""
        forward = self._current.forward
        wants, slot = self._native.ring2_torch_wants, self._producer.slot
        wanted = [
            hook for hook in self._computed.get(layer, ())
            if forward is not None and wants(slot, HOOKS_BY_NAME[hook].id, layer)
        ]
        if not wanted:
            return
        try:
            self._compute(wanted, layer, query, key, mask, known_mask, scaling, causal)
        except Exception as error:  # the model must go on, whatever this was
            for hook in wanted:
                self.failed(HOOKS_BY_NAME[hook].id, layer, error)

    def _compute(
        self, wanted: list[str], layer: int, query: Any, key: Any, mask: Any, known_mask: bool,
        scaling: float | None, causal: bool,
    ) -> None:
        import torch

        forward = self._current.forward
        keys = forward.past + forward.columns
        if not forward.keys_in_one_piece or key.shape[2] < keys or not known_mask:
            self._refuse_attention(layer, len(wanted))
            return
        with torch.no_grad():
            tensor = _attention.scores(query, key, mask, scaling, causal, keys)
            if "attn_scores" in wanted:
                self._capture(self.token, tensor, self._producer.slot, SCORES_HOOK, layer)
            if "pattern" in wanted:
                tensor = _attention.probabilities(tensor)
                self._capture(self.token, tensor, self._producer.slot, PATTERN_HOOK, layer)

    def _refuse_attention(self, layer: int, count: int) -> None:
        self._producer.count_loss("unsupported", count)
        self._trouble.warn_once(
            "pattern",
            f"attention pattern of layer {layer} was not captured: its keys are not one run of the "
            "request's positions (right padding before decoding, or a sliding window), or its mask "
            "is no tensor",
        )

    # ------------------------------------------------------------------ trouble

    def failed(self, hook: int, layer: int, error: Exception) -> None:
        """One tensor was not captured; everything else goes on."""
        if _compiled.traced():
            import torch

            torch.ops.ring2.fail(self.token, self.number, hook, layer)
        else:
            self.count_failure(hook, layer, f"{type(error).__name__}: {error}")

    def count_failure(
        self, hook: int, layer: int, reason: str = "its tap could not be traced"
    ) -> None:
        if self._current.forward is None:
            return
        self._producer.count_loss("unsupported", 1)
        name = HOOK_NAMES.get(hook, str(hook))
        where = name if layer < 0 else f"{name} of layer {layer}"
        self._trouble.warn_once(
            f"failed {hook} {layer}",
            f"{where} could not be captured and is counted as lost; the model and everything else "
            f"go on: {reason}",
        )


def _coded(site: _models.Site) -> int:
    """The operator's word for a site: its hook, and how its axes become the catalogue's."""
    hook = HOOKS_BY_NAME[site.hook].id
    # A static cache has columns for keys that are not there yet: the operator cuts them off.
    coded = hook | CUT_KEYS if site.side == _models.WEIGHTS else hook
    return coded | site.view.code if isinstance(site.view, Heads) else coded


def _part(site: _models.Site) -> int:
    # Eager attention returns its probabilities second: they are captured as they are.
    return 1 if site.side == _models.WEIGHTS else site.part


def _token_buffer(device: Any) -> Any:
    """What the operator says it changes, so that a compiler neither drops nor reorders it.

    It lies on the model's device and is marked as static: PyTorch makes no CUDA graph of a pass that
    has an input in CPU memory, or that changes an input which may move.
    """
    import torch

    token = torch.zeros(1, dtype=torch.uint8, device=device)
    if token.is_cuda:
        torch._dynamo.mark_static_address(token)
    return token


def input_hook(tap: Tap, part: int, argument: str) -> Callable[..., None]:
    """Taps the positional argument ``part``, or the one passed as ``argument``."""

    def hook(module: Any, args: tuple, kwargs: dict[str, Any] | None = None) -> None:
        # Without them it was taken off while this very call ran.
        if kwargs is not None:
            tap(module, args, args[part] if len(args) > part else kwargs.get(argument))

    return hook
