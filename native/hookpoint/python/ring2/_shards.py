"""Requests that ranks of a parallel model ran together, and tensors that they hold in shards.

The summary of such a request names the producers of all ranks. Shards are put side by side along the
axis of heads, or the last one; only positions that every shard has are in the whole.
"""

import json
from collections.abc import Iterable
from typing import Any, NamedTuple

from ._errors import Ring2Error
from ._selection import HOOKS_BY_NAME
from ._stitch import Ranges, ranges_of
from ._tensor_data import needed


class Parallel(NamedTuple):
    """How a request's model was shared: its tensor-parallel ranks, and the producers of all ranks."""

    ranks: int
    kv_heads: int
    producers: frozenset[str]
    # The request's own producer brought the shards of all ranks.
    gathered: bool = False


def parallel_of(summary: str | None, producer: str) -> Parallel | None:
    """What the summary of a producer's request says; None for a model in one process."""
    facts = json.loads(summary) if summary else {}
    parallel = facts.get("parallel")
    if parallel is None:
        model = facts.get("model", {})
        shards = model.get("shards", 1)
        own = frozenset([producer])
        return Parallel(shards, model.get("kvHeads", 0), own, gathered=True) if shards > 1 else None
    producers = (part["producer"] for part in parallel["parts"])
    return Parallel(
        parallel["world"]["tp"],
        facts["model"].get("kvHeads", 0),
        frozenset(f"{one['segment']}-{one['boot']}" for one in producers),
    )


def shard_ranks(hook: str, parallel: Parallel | None, rank: dict[str, int]) -> list[int] | None:
    """The ranks whose shards make the hook's tensor; None where one rank's rows are the answer.

    With fewer key heads than ranks, ranks that follow one another hold the same ones: the first counts.
    """
    kind = HOOKS_BY_NAME.get(hook)
    if parallel is None or parallel.ranks < 2 or kind is None or not kind.sharded:
        return None
    if "tp_rank" in rank:
        return None
    count, kv_heads = parallel.ranks, parallel.kv_heads
    copies = -(-count // kv_heads) if "kv_heads" in kind.dims and 0 < kv_heads < count else 1
    return [one for one in range(count) if one % copies == 0]


def check_ranks(wanted: list[int], held: Iterable[int]) -> None:
    """Part of a tensor must not look like all of it."""
    present = set(held)
    missing = [one for one in wanted if one not in present]
    if missing:
        raise Ring2Error.of(
            "RING2_E_INCOMPLETE", f"the shards of {len(wanted)} tensor-parallel ranks",
            f"none of rank {', '.join(map(str, missing))}",
            f"Ask for one that is there (rank=\"{min(present)}\").",
        )


def join_shards(shards: list[tuple[Any, Ranges]], shape: str, head_axis: int | None) -> tuple[Any, Ranges]:
    """The whole tensor, and the positions of its token axis."""
    numpy = needed("numpy")
    attention = shape == "attention"
    token_axis = 1 if attention else 0
    positions = [_positions(ranges) for _, ranges in shards]
    common = sorted(set(positions[0]).intersection(*positions[1:]))
    if not common:
        held = "; ".join(str(ranges) for _, ranges in shards)
        raise Ring2Error.of(
            "RING2_E_INCOMPLETE", "tokens of which every shard is there", f"none in common: {held}",
            "Ask for one shard (rank=\"0\").",
        )
    parts = []
    for (values, _), own in zip(shards, positions, strict=True):
        places = {position: index for index, position in enumerate(own)}
        parts.append(numpy.take(values, [places[one] for one in common], axis=token_axis))
    if attention:
        keys = max(part.shape[2] for part in parts)
        parts = [numpy.pad(part, [(0, 0), (0, 0), (0, keys - part.shape[2])]) for part in parts]
    axis = head_axis if head_axis is not None else parts[0].ndim - 1
    return numpy.concatenate(parts, axis=axis), ranges_of(set(common))


def _positions(ranges: Ranges) -> list[int]:
    return [position for start, end in ranges for position in range(start, end)]
