"""Forward hooks on the modules of a vLLM model that copy what passes, one operator call each.

In a compiled model the hooks are traced into the graph: they hold indexing and the operator alone,
whose token buffer keeps it from being removed or moved. In an eager model a hook is there only while
what it copies is wanted, and runs no Python where the process can have such hooks; one that fails is
switched off by itself, and what it leaves out is counted.
"""

from collections.abc import Callable, Iterable
from typing import Any

from ring2 import _native, _native_taps
from ring2._control import Control
from ring2._producer import Producer
from ring2._selection import HOOKS_BY_NAME
from ring2._site_hooks import Place, SiteHooks
from ring2._trouble import Trouble

from ._sites import CHOOSE, EXPERTS, INPUT, OUTPUT, STREAM, WEIGHTS, Site, tensor_at

Hook = Callable[..., None]
HOOKS = "_ring2_hooks"  # of a router, which has none of its own

_WHERE = {
    OUTPUT: _native_taps.OUTPUT, INPUT: _native_taps.INPUT, STREAM: _native_taps.STREAM,
    WEIGHTS: _native_taps.OUTPUT, EXPERTS: _native_taps.OUTPUT,
}


class Taps:
    """Puts taps on modules, for one producer."""

    def __init__(self, producer: Producer, trouble: Trouble) -> None:
        import torch

        self._producer = producer
        self._trouble = trouble
        self._capture = _native.register_operator()
        self._native = _native.library()
        self._token = torch.zeros(1, dtype=torch.uint8)
        self._makers = _native_taps.makers()
        self._hooks = SiteHooks()

    def install(self, sites: Iterable[Site], compiled: bool) -> None:
        """Hooks every site's module."""
        if compiled:
            for site in sites:
                _putter(site)(self.traced(site))
        else:
            self._hooks.install([self._place(site) for site in sites])

    def follow(self, control: Control) -> None:
        """Has the hooks of an eager model there that ``control`` wants, and no others."""
        self._hooks.follow(control, True)

    def _place(self, site: Site) -> Place:
        hook = self.guarded(site)
        wanted = [(HOOKS_BY_NAME[site.hook].id, site.layer)]
        return Place(_putter(site), hook, self._without_python(site, hook), wanted)

    def _without_python(self, site: Site, hook: Hook) -> Hook:
        producer = self._producer
        if self._makers is None or producer.on_gpu:
            return hook
        part = 1 if site.side == EXPERTS else 0
        return self._makers.tap(
            producer.slot, _coded(site), site.layer, _WHERE[site.side], part, producer.blocking,
            None, hook,
        )

    def traced(self, site: Site) -> Hook:
        """A hook that a compiler can trace."""
        capture, token, slot = self._capture, self._token, self._producer.slot
        number, layer, pick = _coded(site), site.layer, tensor_at(site)

        def tap(_module: Any, inputs: tuple, output: Any) -> None:
            capture(token, pick(inputs, output), slot, number, layer)

        return tap

    def guarded(self, site: Site) -> Hook:
        """A hook that never raises."""
        tap, trouble, producer = self.traced(site), self._trouble, self._producer
        wants, slot = self._native.ring2_torch_wants, producer.slot
        number = HOOKS_BY_NAME[site.hook].id
        name, working = f"{site.hook}[{site.layer}]", True

        def guard(module: Any, inputs: tuple, output: Any) -> None:
            nonlocal working
            if working:
                try:
                    tap(module, inputs, output)
                    return
                except Exception as error:  # noqa: BLE001  the model must go on, whatever this was
                    working = False
                    trouble.warn_once(name, f"{name} is captured no more after an error: {error!r}")
            if wants(slot, number, site.layer):
                producer.count_loss("unsupported", 1)

        return guard


def _coded(site: Site) -> int:
    """The hook's number, with the heads that are meant, as the operator takes them."""
    return HOOKS_BY_NAME[site.hook].id | (0 if site.view is None else site.view.code)


def _putter(site: Site) -> Callable[[Hook], Callable[[], object]]:
    """What puts a hook at a site and returns what takes it off."""
    if site.side in (EXPERTS, WEIGHTS):
        return lambda hook: _after_choice(site.module, hook)
    return lambda hook: site.module.register_forward_hook(hook).remove


def _after_choice(router: Any, hook: Hook) -> Callable[[], object]:
    """Calls a hook with what a router chose."""
    hooks = getattr(router, HOOKS, None)
    if hooks is None:
        hooks, choose = [], getattr(router, CHOOSE)
        setattr(router, HOOKS, hooks)

        def chosen(*args: Any, **kwargs: Any) -> Any:
            output = choose(*args, **kwargs)
            for one in hooks:
                one(router, args, output)
            return output

        setattr(router, CHOOSE, chosen)
    hooks.append(hook)
    return lambda: hooks.remove(hook)
