"""How stock Hugging Face language models name their modules, and which of it a model has.

Two layouts: blocks as Llama's (Mistral, Qwen, Mixtral, SmolLM, …) and as GPT-2's. A model type of the
table is taken by its name. Another one is taken by its layout when nothing speaks against it: every
module is there under its name, a block and its attention have no others with weights, and its
configuration scales nothing between modules, as then the output of a module is not what is added
to the residual stream. What fits neither is not guessed at: the error lists what was found.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

from ._errors import Ring2Error

MISSING_SHOWN_MAX = 8
CHILDREN_SHOWN_MAX = 12

# Model types whose forward passes were compared with these layouts, module by module.
KNOWN_TYPES = frozenset(
    {"gpt2", "llama", "mistral", "qwen2", "qwen3", "qwen2_moe", "mixtral"}
)

# Configuration fields of models that multiply between modules, and their neutral values.
SCALES = (
    "attn_logit_softcapping", "attention_multiplier", "embedding_multiplier", "embedding_scale",
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
    mlp_output: str


LAYOUTS = (
    Layout(
        "layers", "norm", "embed_tokens", None, "input_layernorm", "self_attn",
        "post_attention_layernorm", ("mlp", "block_sparse_moe"), ("q_proj", "k_proj", "v_proj"),
        ("q_norm", "k_norm"), "o_proj", "down_proj",
    ),
    Layout(
        "h", "ln_f", "wte", "wpe", "ln_1", "attn", "ln_2", ("mlp",), ("c_attn",), (), "c_proj",
        "c_proj",
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


def mlp_of(layout: Layout, block: Any) -> Any:
    """The block's MLP, dense or sparse; None when there is none."""
    return next((m for m in (child(block, name) for name in layout.mlp) if m is not None), None)


def _has_weights(module: Any) -> bool:
    return next(module.parameters(), None) is not None


def _foreign(module: Any, known: tuple[str, ...], where: str) -> list[str]:
    return [
        f"{where}.{name}" for name, found in module.named_children()
        if name not in known and _has_weights(found)
    ]


def _of_block(layout: Layout, block: Any, where: str) -> tuple[list[str], list[str], list[str]]:
    present: list[str] = []
    missing: list[str] = []
    foreign: list[str] = []

    def expect(module: Any, name: str, path: str) -> Any:
        found = child(module, name)
        (present if found is not None else missing).append(f"{path}.{name}")
        return found

    for name in (layout.attention_norm, layout.mlp_norm):
        expect(block, name, where)
    attention = expect(block, layout.attention, where)
    inside = f"{where}.{layout.attention}"
    if attention is not None:
        names = (*layout.projections, layout.attention_output)
        for name in names:
            expect(attention, name, inside)
        if not isinstance(getattr(attention, "head_dim", None), int):
            missing.append(f"{inside}.head_dim")
        foreign.extend(_foreign(attention, (*names, *layout.head_norms), inside))
    mlp = mlp_of(layout, block)
    (present if mlp is not None else missing).append(f"{where}.{layout.mlp[0]}")
    known = (layout.attention_norm, layout.attention, layout.mlp_norm, *layout.mlp)
    foreign.extend(_foreign(block, known, where))
    return present, missing, foreign


def _examine(layout: Layout, base: Any, name: str) -> Finding:
    blocks = tuple(getattr(base, layout.blocks))
    present, missing, foreign = [f"{name}{layout.blocks} ({len(blocks)})"], [], []
    for part in (layout.final_norm, layout.embed, layout.positions):
        if part is not None:
            (missing if child(base, part) is None else present).append(f"{name}{part}")
    for number, block in enumerate(blocks):
        seen = _of_block(layout, block, f"{name}{layout.blocks}.{number}")
        for into, more in zip((present, missing, foreign), seen, strict=True):
            into.extend(more)
    parts = Parts(layout, base, blocks, getattr(base, "config", None))
    return Finding(parts, tuple(present), tuple(missing), tuple(foreign))


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
    shown = ", ".join(names[:MISSING_SHOWN_MAX])
    rest = len(names) - MISSING_SHOWN_MAX
    return f"{shown} and {rest} more" if rest > 0 else shown


def _judgement(finding: Finding) -> str:
    reasons = [f"found {_listed(finding.present)}"]
    if finding.missing:
        reasons.append(f"missing {_listed(finding.missing)}")
    if finding.foreign:
        reasons.append(f"unknown modules {_listed(finding.foreign)}")
    scales = _scales(finding.parts.config)
    if scales:
        reasons.append(f"scaled between modules by {', '.join(scales)}")
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
