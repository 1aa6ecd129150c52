"""``attach``: from a model and a selection to a running probe, and the process's list of probes."""

import atexit
import itertools
import logging
import os
import re
from collections.abc import Iterable
from typing import Any

from . import _attention, _cuda, _models, _native, _requests, _vocabulary
from ._end_tokens import EndTokens
from ._errors import Ring2Error
from ._probe import Probe
from ._producer import Producer
from ._ranks import Ranks, World, find_place
from ._selection import Layers, select

logger = logging.getLogger("ring2")

_segment_numbers = itertools.count(1)


def _attached_probes() -> list[Probe]:
    return [sink for sink in _requests.attached if isinstance(sink, Probe)]


def _detach_all() -> None:
    for probe in _attached_probes():
        probe.detach()


def _abandon_all() -> None:
    for probe in _attached_probes():
        probe.abandon()
    _requests.attached.clear()


atexit.register(_detach_all)
os.register_at_fork(after_in_child=_abandon_all)


def _default_segment(name: str) -> str:
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.") or "model"
    return f"{plain[:40]}-{os.getpid()}-{next(_segment_numbers)}"


def _check_not_attached(model: Any) -> None:
    for probe in _attached_probes():
        other = probe.model
        if other is model or model in other.modules() or other in model.modules():
            raise Ring2Error(
                "RING2_E_MODEL",
                f"expected a model without a probe, got one that is attached to segment "
                f"{probe.segment!r} already; detach that probe first.",
            )


def attach(
    model: Any,
    hooks: str | Iterable[str] = "hf-only",
    layers: Layers = "all",
    tokenizer: Any = None,
    segment: str | None = None,
    payload_mb: float = 256,
    when_full: str = "drop",
    *,
    block_timeout_ms: int = 1000,
    directory: str | None = None,
    model_name: str | None = None,
    revision: str | None = None,
    ranks: Ranks | None = None,
    world: World | None = None,
    gpu_ring_mb: float = 256,
) -> Probe:
    """Starts capturing ``hooks`` of ``layers`` from a model into a new segment.

    model       a Hugging Face causal language model as it is, or any module with HookPoints
    hooks       names, presets, aliases of docs/hooks.md: ``"resid_pre[0,5],pattern[::4],logits"``
    layers      for hooks without brackets: "all", a number, numbers, or text like "::4"
    tokenizer   for its end-of-sequence ids, which count outside of ``model.generate``, and for the
                texts of token ids, which a thread sends
    segment     name of /dev/shm/ring2.<segment>; by default the model's name and the process id
    payload_mb  size of the payload ring in MiB
    ranks       this process's place in a model that several processes run, with ``world``, their
                number; a Transformers model that is sharded by its tp_plan says both itself
    gpu_ring_mb size of the ring on each GPU that the model lies on, in MiB
    when_full   "drop" counts what does not fit; "block" waits up to ``block_timeout_ms`` first

    Forward passes outside of ``request`` and ``batch`` get requests with generated ids, one per
    batch row: from a pass at position 0 for as long as its cache grows. Raises Ring2Error.
    """
    import torch

    if not isinstance(model, torch.nn.Module):
        raise Ring2Error(
            "RING2_E_MODEL", f"expected a torch.nn.Module, got {type(model).__name__}"
        )
    _check_not_attached(model)
    structure = _models.find_structure(model)
    place = find_place(model, ranks, world)
    available: dict[str, set[int]] = {}
    for site in structure.sites:
        available.setdefault(site.hook, set()).add(site.layer)
    if structure.captures_token_ids:
        available.setdefault("token_ids", set()).add(-1)
    chosen, skipped = select(
        hooks,
        layers,
        place.whole(available, _layers_of(structure)),
        _layers_of(structure),
        type(model).__name__,
    )
    chosen = place.own(chosen, available)
    if skipped:
        logger.info(
            "ring2: not captured from %s, which lacks it: %s",
            type(model).__name__, ", ".join(skipped),
        )
    _native.register_operator()
    info = dict(structure.info)
    info["name"] = model_name or info["name"]
    info["revision"] = revision if revision is not None else info["revision"]
    info["hooks"] = {name: list(numbers) for name, numbers in chosen.items()}
    name = segment if segment is not None else _default_segment(str(info["name"]))
    sites = [site for site in structure.sites if site.layer in chosen.get(site.hook, ())]
    computed = _attention.computed(structure.config, sites)
    if computed:
        info["computed"] = computed
    info.update(place.body())
    producer = Producer(name, payload_mb, when_full, block_timeout_ms, directory)
    producer.set_ranks(place.ranks)
    _cuda.open_ways(model, producer, gpu_ring_mb)
    return _start(model, structure, chosen, producer, info, tokenizer)


def _layers_of(structure: _models.Structure) -> int:
    """Of the whole model, where it says so: a pipeline stage has some of them."""
    said = structure.info.get("layers")
    return max(structure.layer_count, said if isinstance(said, int) else 0)


def _start(
    model: Any, structure: _models.Structure, chosen: dict[str, tuple[int, ...]],
    producer: Producer, info: dict[str, object], tokenizer: Any,
) -> Probe:
    probe = Probe(model, structure, chosen, producer, EndTokens(model, tokenizer))
    try:
        producer.send(_native.KIND_MODEL, info)
        probe.install()
    except BaseException:
        probe.detach()
        raise
    _requests.attached.append(probe)
    _vocabulary.start(producer, info, tokenizer)
    return probe
