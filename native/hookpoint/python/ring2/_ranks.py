"""Ranks of a model that several processes run: where they come from, and what each rank captures.

- Of a hook that every tensor-parallel rank has alike, rank 0 captures the tensor. A sharded hook is
  captured by every rank, which has a shard of its own (docs/hooks.md says which are).
- A pipeline stage captures its own layers; the first one has token ids and embeddings, the last one
  what comes behind the last layer.

Ranks are taken from a Transformers model's device mesh; nothing else is certain, so that elsewhere
they are said: ``attach(model, ranks=ring2.Ranks(tp=1), world=ring2.World(tp=2))``.
"""

import logging
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from ._errors import Ring2Error
from ._selection import HOOKS_BY_NAME

logger = logging.getLogger("ring2")

RANK_MAX = 4095
_FIRST_STAGE = ("token_ids", "embed", "pos_embed")
_LAST_STAGE = ("resid_final", "final_ln", "final_logits")


@dataclass(frozen=True)
class Ranks:
    """This process's place: tensor-, pipeline-, data- and expert-parallel rank, from 0."""

    tp: int = 0
    pp: int = 0
    dp: int = 0
    ep: int = 0


@dataclass(frozen=True)
class World:
    """How many ranks there are along each axis."""

    tp: int = 1
    pp: int = 1
    dp: int = 1
    ep: int = 1


@dataclass(frozen=True)
class Place:
    """Ranks in their world."""

    ranks: Ranks = Ranks()
    world: World = World()

    @property
    def parallel(self) -> bool:
        """Whether other processes run the same requests."""
        return self.world.tp * self.world.pp > 1

    def body(self) -> dict[str, object]:
        """Its part of the MODEL record; nothing for a model in one process."""
        if self == Place():
            return {}
        return {"ranks": asdict(self.ranks), "world": asdict(self.world)}

    def captures(self, hook: str) -> bool:
        """Whether this rank is one that captures the hook."""
        if self.ranks.tp != 0 and not HOOKS_BY_NAME[hook].sharded:
            return False
        if self.ranks.pp != 0 and hook in _FIRST_STAGE:
            return False
        return self.ranks.pp == self.world.pp - 1 or hook not in _LAST_STAGE

    def whole(self, available: Mapping[str, set[int]], layers: int) -> dict[str, frozenset[int]]:
        """What the whole model can give, as far as a stage can tell: what it has itself, and that of
        the other stages."""
        if self.world.pp == 1:
            return {name: frozenset(numbers) for name, numbers in available.items()}
        everywhere = frozenset(range(layers))
        others = dict.fromkeys((*_FIRST_STAGE, *_LAST_STAGE), frozenset({-1}))
        own = {name: everywhere if HOOKS_BY_NAME[name].layered else frozenset({-1})
               for name in available}
        return {**others, **own}

    def own(
        self, chosen: Mapping[str, tuple[int, ...]], available: Mapping[str, set[int]]
    ) -> dict[str, tuple[int, ...]]:
        """What this rank captures of what is wanted of the model."""
        kept = {
            name: tuple(layer for layer in layers if layer in available.get(name, ()))
            for name, layers in chosen.items()
            if self.captures(name)
        }
        return {name: layers for name, layers in kept.items() if layers}


def find_place(model: Any, ranks: Ranks | None, world: World | None) -> Place:
    """What the caller says, else what the model's device mesh says. RING2_E_ARGUMENT when wrong."""
    if ranks is None and world is None:
        found = _of_mesh(model)
        if found is None:
            _say_unknown(model)
        return found or Place()
    if ranks is None or world is None:
        raise _error("ranks and world together", "only one of them")
    if not isinstance(ranks, Ranks) or not isinstance(world, World):
        raise _error(
            "ring2.Ranks and ring2.World", f"{type(ranks).__name__} and {type(world).__name__}"
        )
    for axis, size in asdict(world).items():
        rank = getattr(ranks, axis)
        known = isinstance(size, int) and isinstance(rank, int)
        if not known or not 1 <= size <= RANK_MAX or not 0 <= rank < size:
            raise _error(f"a {axis} rank from 0 to below its world's {axis}", f"{rank} of {size}")
    return Place(ranks, world)


def _error(expected: str, actual: str) -> Ring2Error:
    return Ring2Error("RING2_E_ARGUMENT", f"expected {expected}, got {actual}.")


def _of_mesh(model: Any) -> Place | None:
    """The place in the mesh over which Transformers has sharded the model (``tp_plan``)."""
    mesh, size = getattr(model, "_device_mesh", None), getattr(model, "_tp_size", None)
    if mesh is None or not isinstance(size, int) or size < 2:
        return None
    names = mesh.mesh_dim_names or ()
    if "tp" in names:
        mesh = mesh["tp"]
    elif mesh.ndim != 1:
        return None
    if mesh.size() != size:
        return None
    return Place(Ranks(tp=mesh.get_local_rank()), World(tp=size))


def _say_unknown(model: Any) -> None:
    # Not imported for this: without it nothing is distributed.
    distributed = sys.modules.get("torch.distributed")
    if distributed is None or not distributed.is_available() or not distributed.is_initialized():
        return
    if distributed.get_world_size() > 1:
        logger.info(
            "ring2: %d processes run together, and %s does not say how it is shared among them; its "
            "requests are told of by each process apart. Say it with attach(…, ranks=, world=).",
            distributed.get_world_size(), type(model).__name__,
        )
