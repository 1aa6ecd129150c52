"""ring2: copy what a running PyTorch model computes into shared memory for ring2-exporter.

    probe = ring2.attach(model, hooks="hidden-states,pattern,final_logits")
    with ring2.request(request_id, traceparent=headers.get("traceparent")):
        model.generate(**inputs)
    probe.detach()

    ring2.open("http://127.0.0.1:9464").trace(trace_id).tensor("resid_pre", layer=11).numpy()

Importing this package needs neither torch nor transformers nor numpy.
"""

from typing import Any

from ._attach import attach
from ._errors import Ring2Error
from ._probe import Probe
from ._ranks import Ranks, World
from ._requests import RequestInfo, batch, request
from ._selection import register_preset
from ._tensor_data import TensorData
from .client import Client, Trace, open
from .codec import decode

__version__ = "0.1.0"

__all__ = [
    "Client",
    "HookPoint",
    "Probe",
    "Ranks",
    "RequestInfo",
    "Ring2Error",
    "TensorData",
    "Trace",
    "World",
    "attach",
    "batch",
    "decode",
    "open",
    "register_preset",
    "request",
]


def __getattr__(name: str) -> Any:
    # HookPoint is a torch.nn.Module: torch is imported when it is first asked for.
    if name == "HookPoint":
        from .hook_point import HookPoint

        return HookPoint
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
