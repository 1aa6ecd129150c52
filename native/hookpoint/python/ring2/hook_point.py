"""``HookPoint``: a named place in a model of one's own. Imports torch, so it is loaded lazily."""

from typing import Any

import torch

from ._errors import Ring2Error
from ._native import LAYERS_MAX
from ._selection import HOOKS_BY_NAME


class HookPoint(torch.nn.Module):
    """Identity. While a probe is attached to a model around it, what passes is captured.

    ``name`` is a hook of the catalogue (docs/hooks.md); its axes there are the tensor's, with or
    without a batch axis. ``layer`` is required for hooks of a block and refused for global ones.
    """

    def __init__(self, name: str, layer: int | None = None) -> None:
        super().__init__()
        hook = HOOKS_BY_NAME.get(name)
        if hook is None:
            raise Ring2Error(
                "RING2_E_HOOK",
                f"expected one of {', '.join(HOOKS_BY_NAME)}, got {name!r}",
            )
        if hook.layered and (layer is None or not 0 <= layer < LAYERS_MAX):
            raise Ring2Error(
                "RING2_E_HOOK",
                f"expected a layer from 0 to {LAYERS_MAX - 1} for {name}, got {layer}",
            )
        if not hook.layered and layer not in (None, -1):
            raise Ring2Error("RING2_E_HOOK", f"expected no layer for {name}, got {layer}")
        self.hook_name = name
        self.layer = layer if hook.layered and layer is not None else -1
        self._tap: Any = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tap = self._tap
        if tap is not None:
            tap(self, (), x)
        return x

    def extra_repr(self) -> str:
        return self.hook_name if self.layer < 0 else f"{self.hook_name}, layer={self.layer}"

    def __getstate__(self) -> dict[str, Any]:
        # A saved or copied model is not attached to this process's segment.
        return {**self.__dict__, "_tap": None}
