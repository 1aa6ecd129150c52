"""Attention probabilities beside an attention kernel that does not return them.

Transformers chooses kernels by name from two registries, one of functions and one of masks. For
each kernel a twin ``ring2_<kernel>`` is registered in both: it runs the kernel itself for the
output (bitwise the same) and hands query, key and mask to the module's tap. Without the twin in the
mask registry Transformers would build no mask, and padded batches would be silently wrong.
"""

from typing import Any

PREFIX = "ring2_"
TAP = "_ring2_pattern_tap"


def implementation(model: Any) -> str:
    """The name of the attention kernel that the model uses."""
    return getattr(model.config, "_attn_implementation", None) or "eager"


def register_twin(kernel: str) -> str:
    """Registers ``ring2_<kernel>`` in both registries and returns its name."""
    from transformers import AttentionInterface
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, AttentionMaskInterface
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    twin = PREFIX + kernel

    def attend(module, query, key, value, attention_mask, **kwargs):
        # Looked up on every call: a kernel that is registered anew must be used.
        kernel_function = ALL_ATTENTION_FUNCTIONS[kernel]
        result = kernel_function(module, query, key, value, attention_mask, **kwargs)
        tap = module.__dict__.get(TAP)
        if tap is not None:
            tap(module, query, key, attention_mask, kwargs)
        return result

    AttentionInterface.register(twin, attend)
    if kernel in ALL_MASK_ATTENTION_FUNCTIONS:
        AttentionMaskInterface.register(twin, ALL_MASK_ATTENTION_FUNCTIONS[kernel])
    return twin


def _apply_mask(scores: Any, mask: Any, causal: bool) -> Any:
    import torch

    queries, keys = scores.shape[-2:]
    lowest = torch.finfo(scores.dtype).min
    if mask is None:
        if not causal or queries == 1:
            return scores
        hidden = torch.ones(queries, keys, dtype=torch.bool, device=scores.device).triu_(1)
        return scores.masked_fill_(hidden, lowest)
    if mask.ndim == 2:
        mask = mask[:, None, None, :].to(torch.bool)
        scores = _apply_mask(scores, None, causal)
    mask = mask[..., :keys]
    if mask.dtype == torch.bool:
        return scores.masked_fill_(~mask, lowest)
    return scores.add_(mask)


def probabilities(
    query: Any, key: Any, mask: Any, scaling: float | None, causal: bool, keys: int
) -> Any:
    """softmax(query · keyᵀ · scaling + mask) as eager attention computes it.

    query [batch, heads, queries, head_dim]; key [batch, kv heads, ≥ keys, head_dim], of which the
    first ``keys`` are filled (a static cache has more); the result [batch, heads, queries, keys] in
    query's dtype, from a softmax in float32.
    """
    import torch

    batch, heads, queries, width = query.shape
    kv_heads = key.shape[1]
    key = key[:, :, :keys]
    # Grouped queries are rows of one product per key head: no key is repeated in memory.
    grouped = query.reshape(batch, kv_heads, heads // kv_heads * queries, width)
    scores = torch.matmul(grouped, key.transpose(-1, -2))
    scores = scores.view(batch, heads, queries, keys)
    scores = scores.mul_(width**-0.5 if scaling is None else scaling)
    scores = _apply_mask(scores, mask, causal)
    return torch.softmax(scores, dim=-1, dtype=torch.float32).to(query.dtype)
