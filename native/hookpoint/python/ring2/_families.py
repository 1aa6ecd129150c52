"""How stock Hugging Face language models name their modules, and which of it a model has.

Two layouts: blocks as Llama's (Mistral, Qwen, Mixtral, SmolLM, …) and as GPT-2's. A model type of
the table is taken by its name. Another one is taken by its layout when nothing speaks against it: every
module is there under its name, a block and its attention have no others with weights, and its
configuration scales nothing between modules, as then the output of a module is not what is added
to the residual stream. What fits neither is not guessed at: the error lists what was found.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

from ._errors import Ring2Error

NAMES_SHOWN_MAX = 20
CHILDREN_SHOWN_MAX = 12

# Model types whose forward passes were compared with these layouts, module by module.
KNOWN_TYPES = frozenset(
    {"gpt2", "llama", "mistral", "qwen2", "qwen3", "qwen2_moe", "mixtral"}
)

# Configuration fields of models that change tensors between modules, and their neutral values.
SCALES = (
    "attn_logit_softcapping", "clip_qkv", "embedding_multiplier", "embedding_scale",
    "final_logit_softcapping", "logit_scale", "logits_scaling", "residual_multiplier",
    "scale_depth", "scale_emb",
)
NEUTRAL = (None, 0, 1, False)


class Layout(NamedTuple):
    """Names of modules, from the one that holds the blocks."""

    blocks: str
    final_norm: str
    embed: str
    positions: str | None
    attention_norm: str
    attention: str
    mlp_norm: str
    mlp: tuple[str, ...]  # the first that is there
    projections: tuple[str, ...]  # of q, k and v, or one for the three
    head_norms: tuple[str, ...]  # of q and k, where the model has them
    attention_output: str
    mlp_output: tuple[str, ...]  # the first that is there
    fused_by: str | None = None  # whose order of q, k and v a fused projection has


LAYOUTS = (
    Layout(
        "layers", "norm", "embed_tokens", None, "input_layernorm", "self_attn",
        "post_attention_layernorm", ("mlp", "block_sparse_moe"), ("q_proj", "k_proj", "v_proj"),
        ("q_norm", "k_norm"), "o_proj", ("down_proj", "c_proj"),
    ),
    Layout(
        "h", "ln_f", "wte", "wpe", "ln_1", "attn", "ln_2", ("mlp",), ("c_attn",), (), "c_proj",
        ("c_proj",), "transformers.models.gpt2.",
    ),
)


class Parts(NamedTuple):
    """A model's modules by the names of a layout."""

    layout: Layout
    base: Any  # the module that holds the blocks
    blocks: tuple[Any, ...]
    config: Any


class Finding(NamedTuple):
    """What of a layout a module has: enough for an error that says so."""

    parts: Parts
    present: tuple[str, ...]
    missing: tuple[str, ...]
    foreign: tuple[str, ...]  # modules with weights that the layout does not know


def child(module: Any, name: str | None) -> Any:
    """The module of that name; None when there is none."""
    found = getattr(module, name, None) if name is not None else None
    return found if hasattr(found, "register_forward_hook") else None


def first_child(module: Any, names: tuple[str, ...]) -> Any:
    """The first of these modules that is there; None when none is."""
    found = (child(module, name) for name in names)
    return next((one for one in found if one is not None), None)


def _has_weights(module: Any) -> bool:
    return next(module.parameters(), None) is not None


class _Notes:
    """Names by what is said of them, each with the layers it was said of."""

    def __init__(self) -> None:
        self.present: dict[str, list[int]] = {}
        self.missing: dict[str, list[int]] = {}
        self.foreign: dict[str, list[int]] = {}

    def expect(self, module: Any, name: str, where: str, layer: int) -> Any:
        found = child(module, name)
        self.say(self.missing if found is None else self.present, where + name, layer)
        return found

    def say(self, what: dict[str, list[int]], name: str, layer: int) -> None:
        what.setdefault(name, []).append(layer)

    def strangers(self, module: Any, known: tuple[str, ...], where: str, layer: int) -> None:
        for name, found in module.named_children():
            if name not in known and _has_weights(found):
                self.say(self.foreign, where + name, layer)


def _note_attention(layout: Layout, attention: Any, where: str, layer: int, notes: _Notes) -> None:
    names = (*layout.projections, layout.attention_output)
    for name in names:
        notes.expect(attention, name, where, layer)
    if not isinstance(getattr(attention, "head_dim", None), int):
        notes.say(notes.missing, f"{where}head_dim", layer)
    classes = (kind.__module__ for kind in type(attention).__mro__)
    if layout.fused_by is not None and not any(c.startswith(layout.fused_by) for c in classes):
        notes.say(notes.missing, f"{where}{layout.projections[0]} in a known order", layer)
    notes.strangers(attention, (*names, *layout.head_norms), where, layer)


def _note_block(layout: Layout, block: Any, layer: int, notes: _Notes) -> None:
    for name in (layout.attention_norm, layout.mlp_norm):
        notes.expect(block, name, "", layer)
    attention = notes.expect(block, layout.attention, "", layer)
    if attention is not None:
        _note_attention(layout, attention, f"{layout.attention}.", layer, notes)
    mlp = first_child(block, layout.mlp)
    notes.say(notes.missing if mlp is None else notes.present, layout.mlp[0], layer)
    known = (layout.attention_norm, layout.attention, layout.mlp_norm, *layout.mlp)
    notes.strangers(block, known, "", layer)


def _labels(said: dict[str, list[int]], where: str, count: int) -> tuple[str, ...]:
    def layers(numbers: list[int]) -> str:
        return "*" if len(set(numbers)) == count else f"{numbers[0]}"

    return tuple(f"{where}.{layers(numbers)}.{name}" for name, numbers in said.items())


def _examine(layout: Layout, base: Any, name: str) -> Finding:
    blocks = tuple(getattr(base, layout.blocks))
    where = f"{name}{layout.blocks}"
    present, missing = [f"{where} ({len(blocks)})"], []
    for part in (layout.final_norm, layout.embed, layout.positions):
        if part is not None:
            (missing if child(base, part) is None else present).append(f"{name}{part}")
    notes = _Notes()
    for layer, block in enumerate(blocks):
        _note_block(layout, block, layer, notes)
    return Finding(
        Parts(layout, base, blocks, getattr(base, "config", None)),
        (*present, *_labels(notes.present, where, len(blocks))),
        (*missing, *_labels(notes.missing, where, len(blocks))),
        _labels(notes.foreign, where, len(blocks)),
    )


def _findings(model: Any) -> Iterator[Finding]:
    """Every module of the model that holds blocks, judged by the layout of that name."""
    for name, module in model.named_modules():
        for layout in LAYOUTS:
            blocks = module._modules.get(layout.blocks)
            if blocks is not None and hasattr(blocks, "__len__") and len(blocks):
                yield _examine(layout, module, f"{name}." if name else "")


def _scales(config: Any) -> list[str]:
    return [
        f"{name}={getattr(config, name)!r}" for name in SCALES
        if getattr(config, name, None) not in NEUTRAL
    ]


def _fits(finding: Finding) -> bool:
    if finding.missing:
        return False
    config = finding.parts.config
    if getattr(config, "model_type", None) in KNOWN_TYPES:
        return True
    return not finding.foreign and not _scales(config)


def find_parts(model: Any) -> Parts | None:
    """The modules of the one language model in ``model``; None when there is none or several."""
    fitting = [finding.parts for finding in _findings(model) if _fits(finding)]
    return fitting[0] if len(fitting) == 1 else None


def _listed(names: tuple[str, ...]) -> str:
    shown = ", ".join(names[:NAMES_SHOWN_MAX])
    rest = len(names) - NAMES_SHOWN_MAX
    return f"{shown} and {rest} more" if rest > 0 else shown


def _judgement(finding: Finding) -> str:
    reasons = [f"found {_listed(finding.present)}"]
    if finding.missing:
        reasons.append(f"missing {_listed(finding.missing)}")
    if finding.foreign:
        reasons.append(f"unknown modules {_listed(finding.foreign)}")
    scales = _scales(finding.parts.config)
    if scales:
        reasons.append(f"changed between modules by {', '.join(scales)}")
    return "; ".join(reasons)


def unknown(model: Any) -> Ring2Error:
    """RING2_E_MODEL with the class, the model type, and what of each layout was there."""
    config = getattr(model, "config", None)
    found = f"{type(model).__name__} (model_type {getattr(config, 'model_type', None)!r})"
    findings = list(_findings(model))
    if sum(_fits(finding) for finding in findings) > 1:
        found += " with several language models inside"
    elif findings:
        best = max(findings, key=lambda finding: len(finding.present) - len(finding.missing))
        found += f": {_judgement(best)}"
    else:
        children = tuple(
            f"{name} ({type(module).__name__})" for name, module in model.named_children()
        )[:CHILDREN_SHOWN_MAX]
        names = " or ".join(layout.blocks for layout in LAYOUTS)
        found += f" without a list of blocks ({names}); modules: {', '.join(children) or 'none'}"
    return Ring2Error.of(
        "RING2_E_MODEL",
        f"a Hugging Face causal language model of type {', '.join(sorted(KNOWN_TYPES))}, one with "
        "their modules, or a module with ring2.HookPoint modules inside",
        found,
        "Put ring2.HookPoint modules into the model where tensors are to be captured.",
    )
