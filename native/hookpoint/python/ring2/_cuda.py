"""GPUs: which a model lies on, the ways from them into its segment, and CUDA graphs.

The copies themselves are native (native/hookpoint/cuda). Has not run on a GPU yet.
"""

import ctypes
import logging
import os
from typing import Any, NamedTuple

from . import _native
from ._producer import Producer

logger = logging.getLogger("ring2")

BYTES_PER_MIB = 1 << 20


class GpuCounts(NamedTuple):
    """What one GPU's way into the segment has done; docs/engines/cuda.md."""

    copied_records: int
    copied_bytes: int
    dropped_records: int
    dropped_bytes: int
    graph_nodes: int
    pinned: int
    broken: int


def devices_of(model: Any) -> list[Any]:
    """The devices of a model's parameters and buffers, those without memory left out."""
    found: dict[Any, None] = {}
    for tensors in (model.parameters(), model.buffers()):
        for tensor in tensors:
            if tensor.device.type != "meta":
                found[tensor.device] = None
    return list(found)


def open_ways(model: Any, producer: Producer, ring_mb: float) -> None:
    """Opens the way from every GPU of the model; says of which device nothing is copied."""
    refused = {}
    for device in devices_of(model):
        if device.type == "cuda":
            reason = _open(producer, device.index or 0, ring_mb)
            if reason:
                refused[str(device)] = reason
        elif device.type != "cpu":
            refused[str(device)] = "no way from such a device"
    if refused:
        logger.warning(
            "ring2: tensors on %s are not copied; they are counted as lost (unsupported): %s",
            ", ".join(sorted(refused)), "; ".join(dict.fromkeys(refused.values())),
        )


def _open(producer: Producer, device: int, ring_mb: float) -> str:
    import torch

    native = _native.library()
    path = os.path.join(os.path.dirname(torch.__file__), "lib", "libtorch_cuda.so")
    size = int(ring_mb * BYTES_PER_MIB)
    if native.ring2_torch_cuda_add(producer.slot, device, size, os.fsencode(path)) != 0:
        return native.ring2_torch_cuda_error().decode("utf-8", "replace")
    producer.on_gpu = True
    counts = counts_of(producer, device)
    if counts is not None and not counts.pinned:
        logger.warning(
            "ring2: the segment could not be registered as pinned memory; copies off GPU %d go "
            "through the driver's staging buffer and are slower", device,
        )
    return ""


def counts_of(producer: Producer, device: int) -> GpuCounts | None:
    """What the way from a GPU has done; None when there is none."""
    values = (ctypes.c_uint64 * len(GpuCounts._fields))()
    if not _native.library().ring2_torch_cuda_counts(producer.slot, device, values):
        return None
    return GpuCounts(*values)


def captures_graph() -> bool:
    """Whether this thread's work is being captured into a CUDA graph."""
    import torch

    return bool(torch.cuda.is_current_stream_capturing())
