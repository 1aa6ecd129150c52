"""What Transformers computes for the same tokens: every hook of a Llama model, by hooks of the tests' own."""

from typing import Any

import torch

Tensors = dict[tuple[str, int], torch.Tensor]


def reference(model: Any, tokens: list[int]) -> Tensors:
    """Hook and layer → tensor of all tokens, from one forward pass without a cache."""
    found: Tensors = {("token_ids", -1): torch.tensor(tokens)}
    handles = []
    size = model.config.head_dim

    def keep(name: str, layer: int, module: Any, side: str = "output", heads: bool = False) -> None:
        def hook(_module: Any, inputs: tuple, given: dict, output: Any) -> None:
            if side == "input":
                tensor = inputs[0] if inputs else given["hidden_states"]
            else:
                tensor = output[0] if isinstance(output, tuple) else output
            found[name, layer] = tensor[0].unflatten(-1, (-1, size)) if heads else tensor[0]

        handles.append(module.register_forward_hook(hook, with_kwargs=True))

    base = model.model
    keep("embed", -1, base.embed_tokens)
    for layer, block in enumerate(base.layers):
        attention, mlp = block.self_attn, block.mlp
        keep("resid_pre", layer, block.input_layernorm, "input")
        keep("ln1", layer, block.input_layernorm)
        keep("q", layer, attention.q_proj, heads=True)
        keep("k", layer, attention.k_proj, heads=True)
        keep("v", layer, attention.v_proj, heads=True)
        keep("z", layer, attention.o_proj, "input", heads=True)
        keep("attn_out", layer, attention)
        keep("resid_mid", layer, block.post_attention_layernorm, "input")
        keep("ln2", layer, block.post_attention_layernorm)
        keep("mlp_in", layer, mlp, "input")
        keep("mlp_post", layer, mlp.down_proj, "input")
        keep("mlp_out", layer, mlp)
    keep("resid_final", -1, base.norm, "input")
    keep("final_ln", -1, base.norm)
    with torch.no_grad():
        output = model(torch.tensor([tokens]), use_cache=False, output_attentions=True)
    for handle in handles:
        handle.remove()
    found["final_logits", -1] = output.logits[0]
    for layer, weights in enumerate(output.attentions):
        found["pattern", layer] = weights[0]
    return found


def expected(tensors: Tensors, hook: str, layer: int, start: int, end: int) -> torch.Tensor:
    """The part of the reference that a captured tensor of these tokens must equal."""
    whole = tensors[hook, layer]
    if hook in ("attn_scores", "pattern"):
        return whole[:, start:end, :end]
    if hook == "final_logits":
        return whole[end - 1 : end]
    return whole[start:end]
