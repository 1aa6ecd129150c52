"""Faults that the chat service can be given on purpose: noise in one layer's weights.

The noise is Gaussian, in units of each weight's own standard deviation, and the same for the same seed.
What was there before is kept, so removing the fault restores the weights bit for bit. Weights
change between two batches only: a request is generated wholly with a fault or wholly without.
"""

import threading
from dataclasses import dataclass
from typing import Any

import torch

NOISE_MAX = 100.0


@dataclass(frozen=True)
class Fault:
    """Noise in every weight of one layer; `noise` in standard deviations of the weight."""

    layer: int
    noise: float
    seed: int

    def attributes(self) -> dict[str, int | float]:
        """As attributes of a span event."""
        return {"fault.layer": self.layer, "fault.noise": self.noise, "fault.seed": self.seed}


class Faults:
    """At most one fault at a time. Whoever runs the model holds `lock` meanwhile."""

    def __init__(self, layers: Any) -> None:
        self.lock = threading.Lock()
        self._layers = layers
        self._healthy: list[tuple[torch.Tensor, torch.Tensor]] = []
        self._current: Fault | None = None

    @property
    def current(self) -> Fault | None:
        return self._current

    def inject(self, fault: Fault) -> bool:
        """Adds the noise; False when a fault is already in force. Waits for the batch that runs.

        Raises IndexError when there is no such layer.
        """
        if not 0 <= fault.layer < len(self._layers):
            raise IndexError(f"expected a layer from 0 to {len(self._layers) - 1}, got {fault.layer}")
        generator = torch.Generator().manual_seed(fault.seed)
        with self.lock, torch.no_grad():
            if self._current is not None:
                return False
            for weight in self._layers[fault.layer].parameters():
                self._healthy.append((weight, weight.detach().clone()))
                noise = torch.randn(weight.shape, generator=generator)
                weight.add_((noise * weight.float().std() * fault.noise).to(weight))
            self._current = fault
            return True

    def remove(self) -> None:
        """Restores the weights; nothing when there is no fault. Waits for the batch that runs."""
        with self.lock, torch.no_grad():
            for weight, healthy in self._healthy:
                weight.copy_(healthy)
            self._healthy.clear()
            self._current = None
