"""Forward hooks on the modules of a vLLM model that copy what passes, one operator call each.

In a compiled model the hooks are traced into the graph: they hold indexing, views and the operator
alone, whose token buffer keeps it from being removed or moved. In an eager model a hook that fails
is switched off by itself, and what it leaves out is counted.
"""

from collections.abc import Callable, Iterable
from typing import Any

from ring2 import _native
from ring2._producer import Producer
from ring2._selection import HOOKS_BY_NAME
from ring2._trouble import Trouble

from ._sites import CHOOSE, EXPERTS, WEIGHTS, Site, tensor_at


class Taps:
    """Puts taps on modules, for one producer."""

    def __init__(self, producer: Producer, trouble: Trouble) -> None:
        import torch

        self._producer = producer
        self._trouble = trouble
        self._capture = _native.register_operator()
        self._native = _native.library()
        self._token = torch.zeros(1, dtype=torch.uint8)

    def install(self, sites: Iterable[Site], compiled: bool) -> None:
        """Hooks every site's module."""
        for site in sites:
            hook = self.traced(site) if compiled else self.guarded(site)
            if site.side in (EXPERTS, WEIGHTS):
                _after_choice(site.module, hook)
            else:
                site.module.register_forward_hook(hook)

    def traced(self, site: Site) -> Callable[..., None]:
        """A hook that a compiler can trace."""
        capture, token, slot = self._capture, self._token, self._producer.slot
        number, layer, pick = HOOKS_BY_NAME[site.hook].id, site.layer, tensor_at(site)

        def tap(_module: Any, inputs: tuple, output: Any) -> None:
            capture(token, pick(inputs, output), slot, number, layer)

        return tap

    def guarded(self, site: Site) -> Callable[..., None]:
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


def _after_choice(router: Any, hook: Callable[..., None]) -> None:
    """Calls a hook with what a router chose."""
    choose = getattr(router, CHOOSE)

    def chosen(*args: Any, **kwargs: Any) -> Any:
        output = choose(*args, **kwargs)
        hook(router, args, output)
        return output

    setattr(router, CHOOSE, chosen)
