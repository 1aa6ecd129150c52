"""Random models of stock families, small enough for a matrix: three layers, four heads of 8."""

from typing import Any

import torch

FAMILIES = ("gpt2", "llama", "mistral", "qwen2", "qwen3", "qwen2_moe", "mixtral")
VOCABULARY, HEADS, KEY_HEADS, HEAD_DIM, LAYERS, EXPERTS, TOP_K = 97, 4, 2, 8, 3, 6, 2
HIDDEN = HEADS * HEAD_DIM


def facts(family: str) -> dict[str, Any]:
    """The configuration of a family's small model."""
    ids = dict(vocab_size=VOCABULARY, bos_token_id=1, eos_token_id=2, pad_token_id=0)
    if family == "gpt2":
        return dict(n_embd=HIDDEN, n_layer=LAYERS, n_head=HEADS, n_positions=128, **ids)
    common = dict(
        hidden_size=HIDDEN, intermediate_size=48, num_hidden_layers=LAYERS,
        num_attention_heads=HEADS, num_key_value_heads=KEY_HEADS, head_dim=HEAD_DIM,
        max_position_embeddings=128, **ids,
    )
    if family == "mixtral":
        return dict(common, num_local_experts=EXPERTS, num_experts_per_tok=TOP_K)
    if family == "qwen2_moe":
        # Layers 0 and 2 are dense: one by the step between sparse layers, as layer 2 is.
        return dict(
            common, num_experts=EXPERTS, num_experts_per_tok=TOP_K, moe_intermediate_size=24,
            shared_expert_intermediate_size=24, decoder_sparse_step=2, norm_topk_prob=True,
        )
    return common


def make(family: str, **changes: Any) -> Any:
    """A random model of the family in eval mode; the same weights each time."""
    import transformers

    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(family, **{**facts(family), **changes})
    return transformers.AutoModelForCausalLM.from_config(config).eval()


def ragged_batch() -> dict[str, torch.Tensor]:
    """Two prompts of 4 and 7 tokens, padded on the left."""
    ids = torch.randint(3, VOCABULARY, (2, 7), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    mask[0, :PADS[0]] = 0
    return dict(input_ids=ids, attention_mask=mask)


PADS = (3, 0)
