"""``Probe``: hooks on a model and capture into one segment, until it is detached.

What is public, and where the hooks are put. Steps and requests: ``_step_writer``; what is copied
inside a step: ``_taps``. Nothing here changes a tensor or raises into the model: the first
unexpected error ends the capture, with one log line. ``detach`` leaves the model as it was.
"""

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

from . import _attention, _compiled, _cuda, _models, _requests
from ._end_tokens import EndTokens
from ._errors import Ring2Error
from ._producer import Producer
from ._requests import Entry
from ._step_writer import StepWriter
from ._taps import Taps, input_hook
from ._trouble import Trouble
from ._wiring import Wiring

REPLACED_SHOWN_MAX = 4


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
        self._structure = structure
        self._undo: list[Callable[[], object]] = []
        self._undo_sites: list[Callable[[], object]] = []
        self._following = threading.Lock()
        # A HookPoint of that name captures them itself.
        self._takes_ids = structure.captures_token_ids and "token_ids" in hooks
        tensors = len(self._sites()) + self._takes_ids
        self._trouble = Trouble(type(model).__name__)
        self._steps = StepWriter(producer, end_tokens, self._trouble, tensors)
        self._taps = Taps(
            producer, self._trouble, self._steps.current, _token_device(model)
        )
        self._taps.number = _compiled.register(_compiled.Handlers(
            self._steps.begin_traced, self._steps.end_traced, self._taps.compute,
            self._taps.count_failure,
        ))
        if self._takes_ids:
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
        _compiled.forget(self._taps.number)
        for undo in (self._undo_sites, self._undo):
            while undo:
                undo.pop()()
        if self in _requests.attached:
            _requests.attached.remove(self)
        self._steps.close_all()
        self._producer.close()

    @contextlib.contextmanager
    def replay(self, **arguments: Any) -> Iterator[None]:
        """The step of a forward pass that a CUDA graph of one's own replays inside the block.

        ``arguments`` are those of the forward pass as they are now (``input_ids``,
        ``attention_mask``, ``past_key_values``, …). The graph was captured while the probe was
        attached.
        """
        self._steps.begin_traced(arguments)
        try:
            yield
        finally:
            self._steps.end_replay()

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
        entrances = self._structure.entrances
        self._undo.extend(self._steps.watch(entrances, self._taps.token, self._taps.number))
        restore = self._end_tokens.install()
        if restore is not None:
            self._undo.append(restore)
        self._choose_attention()
        self._install_sites()
        _compiled.start_anew()
        self._steps.before_prompt = self._follow

    def _sites(self) -> list[_models.Site]:
        wanted = {(hook, layer) for hook, layers in self.hooks.items() for layer in layers}
        return [site for site in self._structure.sites if (site.hook, site.layer) in wanted]

    def _install_sites(self) -> None:
        sites = self._sites()
        for site in sites:
            if site.side == _models.SCORES or (site.side == _models.WEIGHTS and not self._eager):
                self._tap_attention(site, sites)
            else:
                self._install_site(site)
        self._wiring = Wiring(self.model, [site.module for site in sites])

    def _follow(self) -> None:
        """Puts the hooks on what has taken the place of modules they were on."""
        with self._following:
            replaced = self._wiring.replaced()
            if not replaced:
                return
            before = len(self._sites())
            try:
                self._structure = _models.find_structure(self.model)
                after = f"{len(self._sites())} of {before} tensors of a step are captured from now on"
            except Ring2Error as error:
                after = f"the model is not known any more, so hooks stay where they were: {error}"
            while self._undo_sites:
                self._undo_sites.pop()()
            self._install_sites()
            self._steps.tensors = len(self._sites()) + self._takes_ids
            self._trouble.warn(
                f"modules were replaced after attaching: {', '.join(replaced[:REPLACED_SHOWN_MAX])}"
                f"{' and more' if len(replaced) > REPLACED_SHOWN_MAX else ''}; {after}"
            )

    def _on(self, handle: Any) -> None:
        self._undo_sites.append(handle.remove)

    def _choose_attention(self) -> None:
        """Has the model's attention call taps, where scores or probabilities are computed."""
        sites = [s for s in self._sites() if s.side in (_models.SCORES, _models.WEIGHTS)]
        config = self._structure.config
        self._eager = _attention.implementation(config) == "eager"
        if not sites:
            return
        if self._eager:
            scored = {type(s.module): s.module for s in sites if s.side == _models.SCORES}
            self._undo.extend(_attention.interpose_eager(module) for module in scored.values())
            return
        kernel = _attention.implementation(config)
        config._attn_implementation = _attention.register_twin(kernel)

        def restore() -> None:
            config._attn_implementation = kernel

        self._undo.append(restore)

    def _tap_attention(self, site: _models.Site, sites: list[_models.Site]) -> None:
        sides = (_models.SCORES,) if self._eager else (_models.SCORES, _models.WEIGHTS)
        hooks = tuple(s.hook for s in sites if s.layer == site.layer and s.side in sides)
        module = site.module
        module.__dict__[_attention.TAP] = self._taps.attention(site.layer, hooks)
        self._undo_sites.append(lambda: module.__dict__.pop(_attention.TAP, None))

    def _install_site(self, site: _models.Site) -> None:
        tap = self._taps.site(site)
        module = site.module
        if hasattr(module, "hook_name"):
            module._tap = tap
            self._undo_sites.append(lambda: setattr(module, "_tap", None))
        elif site.side == _models.INPUT:
            self._on(module.register_forward_pre_hook(
                input_hook(tap, site.part, site.argument), with_kwargs=True
            ))
        else:
            self._on(module.register_forward_hook(tap))


def _token_device(model: Any) -> Any:
    """The model's first GPU, else the CPU."""
    gpus = [device for device in _cuda.devices_of(model) if device.type == "cuda"]
    return gpus[0] if gpus else "cpu"
