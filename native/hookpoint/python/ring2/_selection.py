"""Which hooks and layers a user asked for: DMI's selection syntax, and layers in brackets.

    hidden-states,pattern[::4],final_logits      a union; aliases; every fourth layer
    full | hf-only | vllm-full                   presets

Knows the catalogue, nothing of models. What a preset names and a model cannot give is skipped and
reported back, and so are layers of a range that lack the hook; what is named by itself and cannot
be given at all is an error.
"""

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from ._catalogue import HOOKS
from ._errors import Ring2Error

HOOKS_BY_NAME = {hook.name: hook for hook in HOOKS}

PRESETS: dict[str, tuple[str, ...]] = {
    "full": tuple(hook.name for hook in HOOKS),
    "hf-only": ("resid_pre", "final_ln", "pattern", "final_logits"),
    "vllm-full": tuple(h.name for h in HOOKS if h.name not in ("attn_scores", "pattern")),
}

ALIASES = {
    "hidden-states": "resid_pre",
    "hidden_states": "resid_pre",
    "logits": "final_logits",
    "token-ids": "token_ids",
}

# Layers as users may write them: "all", one number, numbers, a slice or range, or "0,5,8:12".
Layers = str | int | slice | range | Iterable[int]

_ITEM = re.compile(r"\s*([A-Za-z0-9_-]+)\s*(?:\[([^\[\]]*)\])?\s*(?:,|$)")
_LAYER_PART = re.compile(r"(-?\d+)|(-?\d+)?:(-?\d+)?(?::(-?\d+)?)?")


# Names that a preset of one's own may have: as they can stand in a selection.
_PRESET_NAME = re.compile(r"[A-Za-z0-9_-]+")


class Item(NamedTuple):
    """One part of a selection; ``layers`` is the text in brackets, None without."""

    hook: str
    layers: str | None
    explicit: bool


def _error(message: str) -> Ring2Error:
    return Ring2Error("RING2_E_SELECTION", message)


def _known() -> str:
    names = ", ".join(HOOKS_BY_NAME)
    return f"hooks: {names}; presets: {', '.join(PRESETS)}; aliases: {', '.join(ALIASES)}"


def parse(text: str | Iterable[str]) -> tuple[Item, ...]:
    """The items of a selection, presets expanded. Unknown or empty: RING2_E_SELECTION."""
    source = text if isinstance(text, str) else ",".join(text)
    if not source.strip():
        raise _error(f"expected at least one hook, got an empty selection. There are {_known()}")
    items: list[Item] = []
    position = 0
    while position < len(source):
        match = _ITEM.match(source, position)
        if match is None:
            raise _error(
                f"expected hook names separated by commas, like resid_pre[0,5],pattern[::4]; "
                f"got {source[position:]!r}. There are {_known()}"
            )
        position = match.end()
        name, layers = match.group(1), match.group(2)
        if name in PRESETS:
            items.extend(Item(hook, layers, False) for hook in PRESETS[name])
            continue
        hook = ALIASES.get(name, name)
        if hook not in HOOKS_BY_NAME:
            raise _error(f"expected a known hook, got {name!r}. There are {_known()}")
        items.append(Item(hook, layers, True))
    if source.rstrip().endswith(","):
        raise _error(f"expected a hook after the last comma, got {source!r}")
    return tuple(items)


def register_preset(name: str, hooks: str | Iterable[str]) -> None:
    """Names a selection, for every ``attach`` of this process.

    ``hooks`` is a selection without layers. A name that is a hook, an alias or a preset already, or
    a selection that is none: RING2_E_SELECTION.
    """
    if not _PRESET_NAME.fullmatch(name):
        raise _error(f"expected a preset's name of letters, digits, - and _, got {name!r}")
    if name in PRESETS or name in ALIASES or name in HOOKS_BY_NAME:
        raise _error(f"expected a new preset's name, got {name!r}. There are {_known()}")
    items = parse(hooks)
    if any(item.layers is not None for item in items):
        raise _error(f"expected a preset's hooks without layers, got {hooks!r}")
    PRESETS[name] = tuple(dict.fromkeys(item.hook for item in items))


def _slice_of(match: re.Match[str]) -> slice:
    first, last, step = (int(part) if part else None for part in match.group(2, 3, 4))
    return slice(first, last, step)


def _layers_of_text(text: str, count: int, what: str) -> list[int]:
    if text.strip() == "all":
        return list(range(count))
    chosen: list[int] = []
    for part in text.split(","):
        match = _LAYER_PART.fullmatch(part.strip())
        if match is None or (match.group(1) is None and match.group(4) == "0"):
            raise _error(f"expected layers like 0,5,11 or ::4 for {what}, got {text!r}")
        if match.group(1) is not None:
            chosen.append(_one_layer(int(match.group(1)), count, what))
        else:
            chosen.extend(range(count)[_slice_of(match)])
    if not chosen:
        raise _error(f"expected at least one of {count} layers for {what}, got {text!r}")
    return chosen


def _one_layer(layer: int, count: int, what: str) -> int:
    if not -count <= layer < count:
        raise _error(f"expected a layer from 0 to {count - 1} for {what}, got {layer}")
    return layer % count


def resolve_layers(layers: Layers, count: int, what: str) -> frozenset[int]:
    """The layer numbers that ``layers`` means in a model of ``count`` layers."""
    if isinstance(layers, str):
        return frozenset(_layers_of_text(layers, count, what))
    if isinstance(layers, bool):
        raise _error(f"expected layers for {what}, got {layers!r}")
    if isinstance(layers, int):
        return frozenset({_one_layer(layers, count, what)})
    if isinstance(layers, slice):
        chosen = range(count)[layers]
    else:
        chosen = [_one_layer(int(layer), count, what) for layer in layers]
    if not chosen:
        raise _error(f"expected at least one of {count} layers for {what}, got {layers!r}")
    return frozenset(chosen)


def select(
    text: str | Iterable[str],
    layers: Layers,
    available: Mapping[str, frozenset[int]],
    layer_count: int,
    where: str,
) -> tuple[dict[str, tuple[int, ...]], tuple[str, ...]]:
    """Hook → layers to capture (``(-1,)`` for a global hook), and what was skipped.

    ``available`` is what the model can give: hook → layers, ``{-1}`` for a global hook.
    Brackets behind a hook take the place of ``layers`` for that hook.
    """
    default = resolve_layers(layers, layer_count, "layers=") if layer_count else frozenset()
    chosen: dict[str, set[int]] = {}
    skipped: dict[str, None] = {}
    for item in parse(text):
        hook = HOOKS_BY_NAME[item.hook]
        offered = available.get(item.hook)
        if offered is None:
            if item.explicit:
                names = ", ".join(sorted(available, key=lambda name: HOOKS_BY_NAME[name].id))
                raise _error(
                    f"{item.hook} is not captured from {where}; "
                    f"it gives: {names or 'nothing'}"
                )
            skipped[item.hook] = None
            continue
        if not hook.layered:
            if item.layers is not None and item.explicit:
                raise _error(f"{item.hook} has no layers, got {item.hook}[{item.layers}]")
            chosen.setdefault(item.hook, set()).add(-1)
            continue
        wanted = default
        if item.layers is not None:
            wanted = resolve_layers(item.layers, layer_count, item.hook)
        if item.explicit and not wanted & offered:
            raise _error(
                f"{item.hook} of {where} is captured from layers "
                f"{', '.join(map(str, sorted(offered)))}; got {sorted(wanted)}"
            )
        if item.layers is not None:
            skipped.update({f"{item.hook}[{layer}]": None for layer in sorted(wanted - offered)})
        chosen.setdefault(item.hook, set()).update(wanted & offered)
    result = {name: tuple(sorted(numbers)) for name, numbers in chosen.items() if numbers}
    if not result:
        raise _error(f"nothing of {text!r} with layers={layers!r} is captured from {where}")
    return result, tuple(skipped)
