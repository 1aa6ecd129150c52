"""From a model to its sites: where each hook of the catalogue is, and the model's own description.

The sites of a layer are in the order in which a forward pass reaches them. A hook that a model does
not have has no site: positions of rotary models, the router of a dense layer, the activation of
experts that are one fused product.
"""

import os
from typing import Any

from . import _attention, _families
from ._errors import Ring2Error
from ._families import Parts, child, first_child
from ._sites import (
    INPUT,
    OUTPUT,
    SCORES,
    WEIGHTS,
    Heads,
    Site,
    Structure,
    View,
    as_float32,
    as_int32,
)


def _projection_sites(parts: Parts, attention: Any, layer: int) -> list[Site]:
    layout, view = parts.layout, Heads(attention.head_dim)
    if len(layout.projections) == 1:
        module = child(attention, layout.projections[0])
        count = attention.num_heads
        return [
            Site(hook, layer, module, OUTPUT, Heads(attention.head_dim, part * count, count))
            for part, hook in enumerate(("q", "k", "v"))
        ]
    modules = [child(attention, name) for name in layout.projections]
    for index, name in enumerate(layout.head_norms):
        modules[index] = child(attention, name) or modules[index]
    return [
        Site(hook, layer, module, OUTPUT, view)
        for hook, module in zip(("q", "k", "v"), modules, strict=True)
    ]


def _attention_sites(parts: Parts, block: Any, layer: int) -> list[Site]:
    layout = parts.layout
    norm, attention = child(block, layout.attention_norm), child(block, layout.attention)
    output = child(attention, layout.attention_output)
    return [
        Site("resid_pre", layer, block, INPUT),
        Site("ln1", layer, norm, OUTPUT),
        *_projection_sites(parts, attention, layer),
        *([Site("attn_scores", layer, attention, SCORES)]
          if _attention.scorable(parts.config, attention) else []),
        Site("pattern", layer, attention, WEIGHTS),
        Site("z", layer, output, INPUT, Heads(attention.head_dim)),
        Site("attn_out", layer, attention, OUTPUT),
    ]


def _router_sites(mlp: Any, layer: int) -> list[Site]:
    """Of a sparse MLP: the router's logits, and the choice as the experts are given it."""
    router, experts = child(mlp, "gate"), child(mlp, "experts")
    if router is None or experts is None:
        return []
    sites = [Site("router_logits", layer, router, OUTPUT)]
    # Experts that are a list of modules have no call of their own: the choice is made in the block.
    if not hasattr(experts, "__len__"):
        sites.append(Site("topk_ids", layer, experts, INPUT, as_int32, 1, "top_k_index"))
        sites.append(Site("topk_weights", layer, experts, INPUT, as_float32, 2, "top_k_weights"))
    return sites


def _mlp_sites(parts: Parts, block: Any, layer: int) -> list[Site]:
    layout = parts.layout
    norm, mlp = child(block, layout.mlp_norm), first_child(block, layout.mlp)
    sites = [
        Site("resid_mid", layer, norm, INPUT),
        Site("ln2", layer, norm, OUTPUT),
        Site("mlp_in", layer, mlp, INPUT),
        *_router_sites(mlp, layer),
    ]
    down = first_child(mlp, layout.mlp_output)
    if down is not None:
        sites.append(Site("mlp_post", layer, down, INPUT))
    sites.append(Site("mlp_out", layer, mlp, OUTPUT))
    return sites


def _head(model: Any) -> Any:
    """The module that makes logits, of the outermost module that has one; else None."""
    for module in model.modules():
        embeddings = getattr(module, "get_output_embeddings", None)
        try:
            head = embeddings() if embeddings is not None else None
        except (AttributeError, NotImplementedError):
            head = None
        if head is not None:
            return head
    return None


def _entrances(model: Any, parts: Parts) -> tuple[Any, ...]:
    """The attached module and, below it, the language model that generation would call."""
    for module in model.modules():
        if module is not parts.base and parts.base in module.children():
            return (model,) if module is model else (model, module)
    return (model,)


def _model_name(config: Any, model: Any) -> str:
    name = getattr(config, "_name_or_path", "") or type(model).__name__
    return os.path.basename(os.path.normpath(name)) if os.path.isdir(name) else name


def _number(config: Any, *names: str) -> int:
    """The first of these fields that says a number; 0 when none does."""
    values = (getattr(config, name, None) for name in names)
    return next((value for value in values if isinstance(value, int) and value > 0), 0)


def describe(model: Any, hooks_layers: int, config: Any = None) -> dict[str, object]:
    """The MODEL record's body without its hooks; 0 for what the model does not say."""
    if config is None:
        config = getattr(model, "config", None)
    count = _number(config, "num_attention_heads")
    hidden = _number(config, "hidden_size")
    experts = _number(config, "num_experts", "num_local_experts", "n_routed_experts")
    parameter = next(model.parameters(), None)
    return {
        "name": _model_name(config, model),
        "revision": getattr(config, "_commit_hash", None) or "",
        "engine": "transformers" if getattr(config, "model_type", None) else "torch",
        "dtype": str(parameter.dtype).removeprefix("torch.") if parameter is not None else "",
        "layers": _number(config, "num_hidden_layers") or hooks_layers,
        "heads": count,
        "kv_heads": _number(config, "num_key_value_heads") or count,
        "head_dim": _number(config, "head_dim") or (hidden // count if count else 0),
        "hidden": hidden,
        "vocabulary": _number(config, "vocab_size"),
        "experts": experts,
        "top_k": _number(config, "num_experts_per_tok") if experts else 0,
    }


def hugging_face(model: Any) -> Structure | None:
    """The structure of a Hugging Face model of a known layout; None when it is none."""
    parts = _families.find_parts(model)
    if parts is None:
        return None
    layout, base = parts.layout, parts.base
    sites = [Site("embed", -1, child(base, layout.embed), OUTPUT)]
    if layout.positions is not None:
        sites.append(Site("pos_embed", -1, child(base, layout.positions), OUTPUT))
    for layer, block in enumerate(parts.blocks):
        sites.extend(_attention_sites(parts, block, layer))
        sites.extend(_mlp_sites(parts, block, layer))
    final_norm = child(base, layout.final_norm)
    sites.append(Site("resid_final", -1, final_norm, INPUT))
    sites.append(Site("final_ln", -1, final_norm, OUTPUT))
    head = _head(model)
    if head is not None:
        sites.append(Site("final_logits", -1, head, OUTPUT))
    count = len(parts.blocks)
    info = describe(model, count, parts.config)
    return Structure(
        tuple(sites), count, info, True, _entrances(model, parts), parts.config
    )


def find_structure(model: Any) -> Structure:
    """The structure of ``model`` with its HookPoints, which win over a site of the same name."""
    from .hook_point import HookPoint

    points = [module for module in model.modules() if isinstance(module, HookPoint)]
    known = hugging_face(model)
    if known is None and not points:
        raise _families.unknown(model)
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
        return Structure(tuple(own), count, describe(model, count), False, (model,))
    rest = tuple(site for site in known.sites if (site.hook, site.layer) not in places)
    return known._replace(
        sites=(*own, *rest), captures_token_ids=("token_ids", -1) not in places
    )


__all__ = [
    "INPUT", "OUTPUT", "SCORES", "WEIGHTS", "Site", "Structure", "View", "describe",
    "find_structure", "hugging_face",
]
