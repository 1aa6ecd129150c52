"""``Probe``: hooks on a model and capture into one segment, until it is detached.

What is public, and where the hooks are put. Steps and requests: ``_step_writer``; what is copied
inside a step: ``_taps``. Nothing here changes a tensor or raises into the model: the first
unexpected error ends the capture, with one log line. ``detach`` leaves the model as it was.
"""

from collections.abc import Callable
from typing import Any

from . import _attention, _models, _requests
from ._end_tokens import EndTokens
from ._producer import Producer
from ._requests import Entry
from ._step_writer import StepWriter
from ._taps import Taps, input_hook, output_hook
from ._trouble import Trouble


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
        self._end_tokens = end_tokens
        self._undo: list[Callable[[], object]] = []
        wanted = {(hook, layer) for hook, layers in hooks.items() for layer in layers}
        self._sites = [site for site in structure.sites if (site.hook, site.layer) in wanted]
        tensors = len(self._sites) + ("token_ids" in hooks)
        self._trouble = Trouble(type(model).__name__)
        self._steps = StepWriter(producer, end_tokens, self._trouble, tensors)
        self._taps = Taps(producer, self._trouble, self._steps.disable, self._steps.current)
        if "token_ids" in hooks:
            self._steps.capture_token_ids = self._taps.token_ids

    # ------------------------------------------------------------------ public

    @property
    def active(self) -> bool:
        """False once detached, or after an error has ended the capture."""
        return self._trouble.active and self._producer.alive

    def losses(self) -> dict[str, tuple[int, int]]:
        """(records, bytes) that this side could not write, by reason; see docs/architecture.md."""
        return self._producer.losses()

    def abandon(self) -> None:
        """In a forked child: the hooks stay on the model and do nothing."""
        self._trouble.active = False

    def detach(self) -> None:
        """Takes every hook off, ends open requests and closes the segment. Twice is harmless."""
        self._trouble.active = False
        while self._undo:
            self._undo.pop()()
        if self in _requests.attached:
            _requests.attached.remove(self)
        self._steps.close_all()
        self._producer.close()

    def open_request(self, entry: Entry) -> None:
        """Writes the REQUEST record. Never raises."""
        self._steps.open_request(entry)

    def close_request(self, entry: Entry, outcome: str) -> None:
        """Writes the REQUEST_END record. Never raises."""
        self._steps.close_request(entry, outcome)

    def __enter__(self) -> "Probe":
        return self

    def __exit__(self, *_: object) -> None:
        self.detach()

    # ------------------------------------------------------------------ installation

    def install(self) -> None:
        """Puts the hooks on the model."""
        self._undo.extend(self._steps.watch(self.model))
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
        tap = self._taps.site(site)
        module = site.module
        if hasattr(module, "hook_name"):
            module._tap = tap
            self._undo.append(lambda: setattr(module, "_tap", None))
        elif site.side == _models.INPUT:
            self._on(module.register_forward_pre_hook(
                input_hook(tap, site.part, site.argument), with_kwargs=True
            ))
        elif site.side == _models.OUTPUT:
            self._on(module.register_forward_hook(output_hook(tap, site.part)))
        elif kernel == "eager":
            self._on(module.register_forward_hook(self._taps.weights_hook(site.layer, tap)))
        else:
            module.__dict__[_attention.TAP] = self._taps.pattern(site.layer, tap)
            self._undo.append(lambda: module.__dict__.pop(_attention.TAP, None))
