"""From a vLLM model to its sites: which module has which hook of the catalogue on its way.

vLLM's norms of Llama-like models add the residual themselves and return (normed, sum); GPT-2's take the
stream and return the normed one. Both say the residual stream. Only architectures that were looked
at are named here: another one may use the same names for something else.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from ring2._sites import Heads

INPUT = "input"
OUTPUT = "output"
STREAM = "stream"  # the residual stream at a norm
WEIGHTS = "weights"  # what a router of experts chose: it is no module, and is wrapped
EXPERTS = "experts"

# The method of a router that returns (weights, experts) by their numbers in the model.
CHOOSE = "_compute_routing"


class Site(NamedTuple):
    """Where one hook of one layer is: a side of a module, and the heads of it that are meant."""

    hook: str
    layer: int
    module: Any
    side: str
    view: Heads | None = None


class Layout(NamedTuple):
    """Names of modules in one style of architecture."""

    base: str
    blocks: str
    embed: str
    positions: str
    final_norm: str
    attention_norm: str
    attention: str
    qkv: str
    attention_output: str
    mlp_norm: str
    mlp: str
    mlp_output: str


LLAMA = Layout(
    "model", "layers", "embed_tokens", "", "norm", "input_layernorm", "self_attn", "qkv_proj",
    "o_proj", "post_attention_layernorm", "mlp", "down_proj",
)
GPT2 = Layout(
    "transformer", "h", "wte", "wpe", "ln_f", "ln_1", "attn", "c_attn", "c_proj", "ln_2", "mlp",
    "c_proj",
)
LAYOUTS = {
    "LlamaForCausalLM": LLAMA,
    "MistralForCausalLM": LLAMA,
    "Qwen2ForCausalLM": LLAMA,
    "Qwen3ForCausalLM": LLAMA,
    "Qwen2MoeForCausalLM": LLAMA,
    "Qwen3MoeForCausalLM": LLAMA,
    "MixtralForCausalLM": LLAMA._replace(mlp="block_sparse_moe"),
    "GPT2LMHeadModel": GPT2,
}


def _attention_sites(layout: Layout, block: Any, layer: int) -> list[Site]:
    norm, attention = getattr(block, layout.attention_norm), getattr(block, layout.attention)
    operation = attention.attn
    size = operation.head_size
    queries, keys = operation.num_heads, operation.num_kv_heads
    qkv = getattr(attention, layout.qkv)
    sites = [
        Site("resid_pre", layer, norm, STREAM),
        Site("ln1", layer, norm, OUTPUT),
        Site("v", layer, qkv, OUTPUT, Heads(size, queries + keys, keys)),
        Site("z", layer, getattr(attention, layout.attention_output), INPUT, Heads(size)),
        Site("attn_out", layer, attention, OUTPUT),
    ]
    # Queries and keys that have a norm of their own are what it returns, as in Transformers.
    for hook, name, view in (
        ("q", "q_norm", Heads(size, 0, queries)),
        ("k", "k_norm", Heads(size, queries, keys)),
    ):
        head_norm = getattr(attention, name, None)
        if head_norm is None:
            sites.append(Site(hook, layer, qkv, OUTPUT, view))
        else:
            sites.append(Site(hook, layer, head_norm, OUTPUT))
    return sites


def _mlp_sites(layout: Layout, block: Any, layer: int) -> list[Site]:
    norm, mlp = getattr(block, layout.mlp_norm), getattr(block, layout.mlp)
    sites = [
        Site("resid_mid", layer, norm, STREAM),
        Site("ln2", layer, norm, OUTPUT),
        Site("mlp_in", layer, mlp, INPUT),
        Site("mlp_out", layer, mlp, OUTPUT),
    ]
    down = getattr(mlp, layout.mlp_output, None)
    if down is not None:
        sites.append(Site("mlp_post", layer, down, INPUT))
    elif hasattr(mlp, "gate") and hasattr(mlp, "experts"):
        sites.append(Site("router_logits", layer, mlp.gate, OUTPUT))
        router = _router(mlp.experts)
        if router is not None:
            sites.append(Site("topk_ids", layer, router, EXPERTS))
            sites.append(Site("topk_weights", layer, router, WEIGHTS))
    return sites


def _router(experts: Any) -> Any:
    """What chooses experts in Python, for the rows of this rank; None where a kernel does it."""
    router, runs = getattr(experts, "router", None), getattr(experts, "routed_experts", None)
    kernel = getattr(getattr(runs, "quant_method", None), "is_monolithic", True)
    config = getattr(experts, "moe_config", None)
    # Beside other ranks' requests, or with parts of them, rows are not those of the step.
    own = all(getattr(config, size, 0) == 1 for size in ("dp_size", "pcp_size", "sp_size"))
    return router if own and not kernel and hasattr(router, CHOOSE) else None


def _present(module: Any) -> bool:
    # A pipeline rank has an empty layer in the place of what another rank runs.
    return module is not None and type(module).__name__ != "PPMissingLayer"


def find_sites(model: Any) -> list[Site]:
    """Sites of the layers that this rank runs; none for an architecture that is not known."""
    layout = LAYOUTS.get(type(model).__name__)
    if layout is None:
        return []
    base = getattr(model, layout.base)
    sites: list[Site] = []
    for hook, name in (("embed", layout.embed), ("pos_embed", layout.positions)):
        if base.start_layer == 0 and name and _present(getattr(base, name, None)):
            sites.append(Site(hook, -1, getattr(base, name), OUTPUT))
    blocks = getattr(base, layout.blocks)
    for layer in range(base.start_layer, base.end_layer):
        sites += _attention_sites(layout, blocks[layer], layer)
        sites += _mlp_sites(layout, blocks[layer], layer)
    final_norm = getattr(base, layout.final_norm, None)
    if base.end_layer == len(blocks) and _present(final_norm):
        sites.append(Site("resid_final", -1, final_norm, STREAM))
        sites.append(Site("final_ln", -1, final_norm, OUTPUT))
    return sites


def tensor_at(site: Site) -> Callable[[tuple, Any], Any]:
    """A function of a module's positional inputs and its output that picks the site's tensor.

    A compiler traces it: it must stay free of anything but indexing.
    """
    side = site.side

    def pick(inputs: tuple, output: Any) -> Any:
        if side == STREAM:
            return output[1] if isinstance(output, tuple) else inputs[0]
        if side == INPUT:
            return inputs[0]
        if side == EXPERTS:
            return output[1]
        return output[0] if isinstance(output, tuple) else output

    return pick
