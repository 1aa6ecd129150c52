"""What is copied inside a step: a tap for each site, for logits and for attention patterns.

A tap is a function that is given a tensor and never raises. Which step it belongs to is said by
``_step_writer``; whether anybody wants the tensor is asked natively, by the operator.
"""

from collections.abc import Callable
from typing import Any

from . import _attention, _models, _native
from ._producer import Producer
from ._selection import HOOKS_BY_NAME
from ._step_writer import CurrentStep, untraced
from ._trouble import Trouble

Tap = Callable[[Any], None]


class Taps:
    """Makes the taps of one probe."""

    def __init__(
        self, producer: Producer, trouble: Trouble, disable: Callable[[Exception], None],
        current: CurrentStep,
    ) -> None:
        self._producer = producer
        self._trouble = trouble
        self._disable = disable
        self._current = current
        self._capture = _native.register_operator()
        self._native = _native.library()
        self._token = _token_buffer()

    def token_ids(self, tensor: Any) -> None:
        hook = HOOKS_BY_NAME["token_ids"].id
        self._capture(self._token, tensor, self._producer.slot, hook, -1)

    def site(self, site: _models.Site) -> Tap:
        """The tap of a site's module."""
        tap = self._tap(HOOKS_BY_NAME[site.hook].id, site.layer, site.view)
        return self._logits(tap) if site.hook == "final_logits" else tap

    def _tap(self, hook: int, layer: int, view: _models.View | None) -> Tap:
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

    def _logits(self, tap: Tap) -> Tap:
        """Rows of logits are the last tokens of a step, unless the caller chose others."""

        def logits(tensor: Any) -> None:
            if not self._current.picks_logits:
                tap(tensor)
            elif self._current.forward is not None:
                self._producer.count_loss("unsupported", 1)
                self._trouble.warn_once(
                    "logits",
                    "final_logits of a forward pass whose logits_to_keep is a tensor of positions "
                    "were not captured; give it the number of last positions",
                )

        return untraced(logits)

    # ------------------------------------------------------------------ attention

    def weights_hook(self, layer: int, tap: Tap) -> Callable[..., None]:
        """Eager attention returns its probabilities: they are captured as they are."""

        def hook(_module: Any, _args: Any, output: Any) -> None:
            forward = self._current.forward
            if forward is None:
                return
            weights = output[1] if isinstance(output, tuple) and len(output) > 1 else None
            keys = forward.past + forward.columns
            if weights is None or not forward.keys_in_one_piece or weights.shape[-1] < keys:
                self._refuse_pattern(layer)
                return
            tap(weights[..., :keys])

        return untraced(hook)

    def pattern(self, layer: int, tap: Tap) -> Callable[..., None]:
        """Called beside an attention kernel with what it was given."""
        import torch

        wants, slot = self._native.ring2_torch_wants, self._producer.slot
        hook = HOOKS_BY_NAME["pattern"].id

        def pattern(module: Any, query: Any, key: Any, mask: Any, kwargs: dict[str, Any]) -> None:
            try:
                forward = self._current.forward
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

        return untraced(pattern)

    def _refuse_pattern(self, layer: int) -> None:
        self._producer.count_loss("unsupported", 1)
        self._trouble.warn_once(
            "pattern",
            f"attention pattern of layer {layer} was not captured: its keys are not one run of the "
            "request's positions (right padding before decoding, or a sliding window)",
        )


def _token_buffer() -> Any:
    """What the operator says it changes, so that a compiler neither drops nor reorders it."""
    import torch

    return torch.zeros(1, dtype=torch.uint8)


def input_hook(tap: Tap, part: int, argument: str) -> Callable[..., None]:
    """Taps the positional argument ``part``, or the one passed as ``argument``."""

    def hook(_module: Any, args: tuple, kwargs: dict[str, Any]) -> None:
        tap(args[part] if len(args) > part else kwargs.get(argument))

    return hook


def output_hook(tap: Tap, part: int) -> Callable[..., None]:
    """Taps the output, or its ``part`` when it is a tuple."""

    def hook(_module: Any, _args: tuple, output: Any) -> None:
        tap(output[part] if isinstance(output, tuple) else output)

    return hook
