"""``Probe``: hooks on a model and capture into one segment, until it is detached.

What is public, and where the hooks are put. Steps and requests: ``_step_writer``; what is copied
inside a step: ``_taps``. Nothing here changes a tensor or raises into the model: the first
unexpected error ends the capture, with one log line. ``detach`` leaves the model as it was.
"""

import contextlib
import threading
from collections.abc import Collection, Iterator
from typing import Any

from . import _attention, _compiled, _cuda, _models, _requests
from ._control import Control
from ._end_tokens import EndTokens
from ._errors import Ring2Error
from ._producer import Producer
from ._requests import Entry
from ._selection import HOOKS_BY_NAME
from ._site_hooks import Place, SiteHooks, Undo
from ._step_writer import StepWriter
from ._taps import Taps
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
        self._undo: list[Undo] = []
        self._site_hooks = SiteHooks()
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
            self._taps.count_failure, self._site_hooks.settle,
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
        self._site_hooks.remove()
        while self._undo:
            self._undo.pop()()
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
        if self._producer.on_gpu or not _compiled.announces_itself():
            # A CUDA graph replays the hooks that it captured.
            self._site_hooks.settle()
        _compiled.start_anew()
        _compiled.be_told(self._taps.number)
        self._steps.before_prompt = self._follow
        self._steps.before_step = self._before_step

    def _before_step(self, control: Control, alone: bool) -> None:
        _compiled.be_told(self._taps.number)
        self._site_hooks.follow(control, alone)

    def _sites(self) -> list[_models.Site]:
        wanted = {(hook, layer) for hook, layers in self.hooks.items() for layer in layers}
        return [site for site in self._structure.sites if (site.hook, site.layer) in wanted]

    def _install_sites(self) -> None:
        sites = self._sites()
        computed = {s.layer: s for s in sites if self._is_computed(s)}
        self._site_hooks.install([
            *(self._place(site) for site in sites if not self._is_computed(site)),
            *(self._attention_place(site, sites) for site in computed.values()),
            *self._kernel_places(computed.values()),
        ])
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
            self._install_sites()
            self._steps.tensors = len(self._sites()) + self._takes_ids
            self._trouble.warn(
                f"modules were replaced after attaching: {', '.join(replaced[:REPLACED_SHOWN_MAX])}"
                f"{' and more' if len(replaced) > REPLACED_SHOWN_MAX else ''}; {after}"
            )

    def _choose_attention(self) -> None:
        """Has eager attention call taps, where its scores are computed."""
        sites = [s for s in self._sites() if s.side in (_models.SCORES, _models.WEIGHTS)]
        config = self._structure.config
        self._eager = _attention.implementation(config) == "eager"
        if self._eager:
            scored = {type(s.module): s.module for s in sites if s.side == _models.SCORES}
            self._undo.extend(_attention.interpose_eager(module) for module in scored.values())

    def _is_computed(self, site: _models.Site) -> bool:
        """Whether it is computed beside the attention kernel, not taken from a module."""
        return site.side == _models.SCORES or (site.side == _models.WEIGHTS and not self._eager)

    def _place(self, site: _models.Site) -> Place:
        hook, module = self._taps.site(site), site.module

        def put(hook: Any) -> Undo:
            if hasattr(module, "hook_name"):
                module._tap = hook
                return lambda: setattr(module, "_tap", None)
            if site.side == _models.INPUT:
                return module.register_forward_pre_hook(hook, with_kwargs=True).remove
            return module.register_forward_hook(hook).remove

        wanted = [(HOOKS_BY_NAME[site.hook].id, site.layer)]
        return Place(put, hook, self._taps.untraced_site(site, hook), wanted)

    def _attention_place(self, site: _models.Site, sites: list[_models.Site]) -> Place:
        hooks = tuple(s.hook for s in sites if s.layer == site.layer and self._is_computed(s))
        module = site.module
        tap = self._taps.attention(site.layer, hooks)
        untraced = self._taps.untraced_attention(site.layer, hooks, tap)

        def put(tap: Any) -> Undo:
            module.__dict__[_attention.TAP] = tap
            return lambda: module.__dict__.pop(_attention.TAP, None)

        return Place(put, tap, untraced, [(HOOKS_BY_NAME[hook].id, site.layer) for hook in hooks])

    def _kernel_places(self, sites: Collection[_models.Site]) -> Iterator[Place]:
        """The twin of the model's attention kernel, which calls the taps of the layers."""
        if self._eager or not sites:
            return
        config = self._structure.config

        def put(_hook: None) -> Undo:
            kernel = _attention.implementation(config)
            twin = _attention.register_twin(kernel)
            config._attn_implementation = twin

            def undo() -> None:
                # Another kernel that was chosen meanwhile stays.
                if config._attn_implementation == twin:
                    config._attn_implementation = kernel

            return undo

        hooks = [HOOKS_BY_NAME[hook].id for hook in ("attn_scores", "pattern") if hook in self.hooks]
        yield Place(put, None, None, [(hook, s.layer) for hook in hooks for s in sites])


def _token_device(model: Any) -> Any:
    """The model's first GPU, else the CPU."""
    gpus = [device for device in _cuda.devices_of(model) if device.type == "cuda"]
    return gpus[0] if gpus else "cpu"
