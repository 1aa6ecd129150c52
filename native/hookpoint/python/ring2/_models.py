"""Where the hooks of the catalogue are in a stock Hugging Face causal language model.

One table of families; a model type that is not in it is not guessed at. Each site names a module
and says whether its input or its output is the tensor, and how to view it in the catalogue's axes.
"""

import os
from collections.abc import Callable
from typing import Any, NamedTuple

from ._errors import Ring2Error

INPUT = "input"
OUTPUT = "output"
WEIGHTS = "weights"  # attention probabilities, by the attention function or the module's output

View = Callable[[Any], Any]


class Family(NamedTuple):
    """Attribute names of a model type, from the module that holds the blocks."""

    layers: str
    final_norm: str
    attention: str
    fused: str | None = None  # one projection for q, k and v
    head_norms: bool = False  # q_norm and k_norm on [batch, tokens, heads, head_dim]


FAMILIES = {
    "llama": Family("layers", "norm", "self_attn"),
    "mistral": Family("layers", "norm", "self_attn"),
    "qwen2": Family("layers", "norm", "self_attn"),
    "qwen3": Family("layers", "norm", "self_attn", head_norms=True),
    "gpt2": Family("h", "ln_f", "attn", fused="c_attn"),
}


class Site(NamedTuple):
    """One place to capture: a module, its side, and the view in the catalogue's axes."""

    hook: str
    layer: int  # -1 for a global hook
    module: Any
    side: str
    view: View | None = None


class Structure(NamedTuple):
    """A model as ring2 sees it."""

    sites: tuple[Site, ...]
    layer_count: int
    info: dict[str, object]
    captures_token_ids: bool


def _heads(head_dim: int) -> View:
    def view(tensor: Any) -> Any:
        if tensor.ndim == 4:
            return tensor
        return tensor.view(*tensor.shape[:-1], -1, head_dim)

    return view


def _part_heads(part: int, width: int, head_dim: int) -> View:
    def view(tensor: Any) -> Any:
        piece = tensor[..., part * width : (part + 1) * width]
        return piece.view(*piece.shape[:-1], -1, head_dim)

    return view


def _projection_sites(family: Family, attention: Any, layer: int) -> list[Site]:
    view = _heads(attention.head_dim)
    if family.fused is not None:
        module = getattr(attention, family.fused)
        width = attention.num_heads * attention.head_dim
        return [
            Site(hook, layer, module, OUTPUT, _part_heads(part, width, attention.head_dim))
            for part, hook in enumerate(("q", "k", "v"))
        ]
    queries = attention.q_norm if family.head_norms else attention.q_proj
    keys = attention.k_norm if family.head_norms else attention.k_proj
    return [
        Site("q", layer, queries, OUTPUT, view),
        Site("k", layer, keys, OUTPUT, view),
        Site("v", layer, attention.v_proj, OUTPUT, view),
    ]


def _model_name(config: Any, model: Any) -> str:
    name = getattr(config, "_name_or_path", "") or type(model).__name__
    return os.path.basename(os.path.normpath(name)) if os.path.isdir(name) else name


def describe(model: Any, hooks_layers: int) -> dict[str, object]:
    """The MODEL record's body without its hooks; 0 for what the model does not say."""
    config = getattr(model, "config", None)
    heads = getattr(config, "num_attention_heads", 0) or 0
    parameter = next(model.parameters(), None)
    return {
        "name": _model_name(config, model),
        "revision": getattr(config, "_commit_hash", None) or "",
        "engine": "transformers" if getattr(config, "model_type", None) else "torch",
        "dtype": str(parameter.dtype).removeprefix("torch.") if parameter is not None else "",
        "layers": getattr(config, "num_hidden_layers", None) or hooks_layers,
        "heads": heads,
        "kv_heads": getattr(config, "num_key_value_heads", None) or heads,
        "hidden": getattr(config, "hidden_size", 0) or 0,
        "vocabulary": getattr(config, "vocab_size", 0) or 0,
    }


def _unknown(model: Any, model_type: object) -> Ring2Error:
    return Ring2Error(
        "RING2_E_MODEL",
        f"expected a Hugging Face causal language model of type {', '.join(FAMILIES)}, or a module "
        f"with ring2.HookPoint modules inside; got {type(model).__name__} (model_type "
        f"{model_type!r}). Put ring2.HookPoint modules into the model, or report its class.",
    )


def hugging_face(model: Any) -> Structure | None:
    """The structure of a known Hugging Face model; None when it is none."""
    family = FAMILIES.get(getattr(getattr(model, "config", None), "model_type", None))
    if family is None:
        return None
    base = getattr(model, getattr(model, "base_model_prefix", ""), model)
    blocks = getattr(base, family.layers, None)
    final_norm = getattr(base, family.final_norm, None)
    if blocks is None or final_norm is None or not len(blocks):
        return None
    sites = []
    for layer, block in enumerate(blocks):
        attention = getattr(block, family.attention)
        sites.append(Site("resid_pre", layer, block, INPUT))
        sites.append(Site("pattern", layer, attention, WEIGHTS))
        sites.extend(_projection_sites(family, attention, layer))
    sites.append(Site("resid_final", -1, final_norm, INPUT))
    sites.append(Site("final_ln", -1, final_norm, OUTPUT))
    head = model.get_output_embeddings()
    if head is not None:
        sites.append(Site("final_logits", -1, head, OUTPUT))
    return Structure(tuple(sites), len(blocks), describe(model, len(blocks)), True)


def find_structure(model: Any, points: list[Any]) -> Structure:
    """The structure of ``model`` with its HookPoints, which win over a site of the same name."""
    known = hugging_face(model)
    if known is None and not points:
        raise _unknown(model, getattr(getattr(model, "config", None), "model_type", None))
    own = [Site(point.hook_name, point.layer, point, OUTPUT) for point in points]
    places = [(site.hook, site.layer) for site in own]
    repeated = {place for place in places if places.count(place) > 1}
    if repeated:
        raise Ring2Error(
            "RING2_E_MODEL",
            "expected each HookPoint of a model to have its own name and layer, got several of "
            + ", ".join(f"{name} (layer {layer})" for name, layer in sorted(repeated)),
        )
    if known is None:
        count = max((site.layer for site in own), default=-1) + 1
        return Structure(tuple(own), count, describe(model, count), False)
    rest = tuple(site for site in known.sites if (site.hook, site.layer) not in places)
    return known._replace(sites=(*own, *rest))
