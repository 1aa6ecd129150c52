"""Attention beside the kernels of Transformers: scores and probabilities that they do not return.

Transformers chooses kernels by name from two registries, one of functions and one of masks. For
each kernel a twin ``ring2_<kernel>`` is registered in both: it runs the kernel itself for the
output (bitwise the same) and hands query, key and mask to the module's tap. Without the twin in the
mask registry Transformers would build no mask, and padded batches would be silently wrong.

Eager attention is in no registry: each model file has a function of its own. Its probabilities are
returned by the module, so only scores need more: the file's function is replaced by one that calls
it and then the module's tap. The configuration goes on saying "eager".
"""

import sys
import threading
from collections.abc import Callable, Iterable
from typing import Any

from ._sites import SCORES, WEIGHTS, Site

PREFIX = "ring2_"
TAP = "_ring2_attention_tap"
EAGER = "eager_attention_forward"
UNKNOWN_MASK = False  # no tensor: scores under it are refused and counted
PREPARED_AXES = 4  # of a mask [batch, 1, queries, keys], which has the window in it

_eager_lock = threading.Lock()
_eager_users: dict[str, list[Any]] = {}  # file -> [its function, how many replace it]


def implementation(config: Any) -> str:
    """The name of the attention kernel that a model of this configuration uses."""
    # A copy of an attached model names the twin: what it runs is the kernel.
    return (getattr(config, "_attn_implementation", None) or "eager").removeprefix(PREFIX)


def computed(config: Any, sites: Iterable[Site]) -> list[str]:
    """The hooks of these sites that are computed beside the model, not taken from it."""
    eager = implementation(config) == "eager"
    sides = (SCORES,) if eager else (SCORES, WEIGHTS)
    return sorted({site.hook for site in sites if site.side in sides})


def scorable(config: Any, attention: Any) -> bool:
    """Whether scores can be computed beside this attention module."""
    if implementation(config) != "eager":
        return True
    own = getattr(sys.modules.get(type(attention).__module__), EAGER, None)
    # GPT-2 has a second way through its attention, which calls no function that could be replaced.
    return callable(own) and not getattr(attention, "reorder_and_upcast_attn", False)


def _tapped(module: Any, query: Any, key: Any, mask: Any, kwargs: dict[str, Any]) -> None:
    tap = module.__dict__.get(TAP)
    if tap is not None:
        causal = kwargs.get("is_causal")
        if causal is None:
            causal = getattr(module, "is_causal", True)
        known = _is_all_in_mask(mask, key.shape[-2], kwargs)
        tap(query, key, mask if known else UNKNOWN_MASK, kwargs.get("scaling"), causal)


def _is_all_in_mask(mask: Any, keys: int, kwargs: dict[str, Any]) -> bool:
    """Whether the mask says all that a kernel does to the scores.

    Some kernels are given a window, a cap or sinks beside it; what they make of them is not known.
    """
    if any(kwargs.get(name) is not None for name in ("softcap", "s_aux")):
        return False
    window = kwargs.get("sliding_window")
    prepared = getattr(mask, "ndim", 0) == PREPARED_AXES
    return not window or prepared or keys <= window


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
        _tapped(module, query, key, attention_mask, kwargs)
        return result

    AttentionInterface.register(twin, attend)
    if kernel in ALL_MASK_ATTENTION_FUNCTIONS:
        AttentionMaskInterface.register(twin, ALL_MASK_ATTENTION_FUNCTIONS[kernel])
    return twin


def interpose_eager(attention: Any) -> Callable[[], None]:
    """Has the eager function of the module's file call taps; returns what undoes it."""
    name = type(attention).__module__
    file = sys.modules[name]
    with _eager_lock:
        if name in _eager_users:
            _eager_users[name][1] += 1
        else:
            own = getattr(file, EAGER)
            _eager_users[name] = [own, 1]

            def attend(module, query, key, value, attention_mask, *args, **kwargs):
                result = own(module, query, key, value, attention_mask, *args, **kwargs)
                _tapped(module, query, key, attention_mask, kwargs)
                return result

            setattr(file, EAGER, attend)

    def restore() -> None:
        with _eager_lock:
            users = _eager_users[name]
            users[1] -= 1
            if users[1] == 0:
                setattr(file, EAGER, users[0])
                del _eager_users[name]

    return restore


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


def scores(
    query: Any, key: Any, mask: Any, scaling: float | None, causal: bool, keys: int
) -> Any:
    """query · keyᵀ · scaling + mask as eager attention computes it, before its softmax.

    query [batch, heads, queries, head_dim]; key [batch, kv heads, ≥ keys, head_dim], of which the
    first ``keys`` are filled (a static cache has more); the result [batch, heads, queries, keys] in
    query's dtype. What a boolean mask hides is the lowest finite number of that dtype.
    """
    import torch

    batch, heads, queries, width = query.shape
    kv_heads = key.shape[1]
    key = key[:, :, :keys]
    # Grouped queries are rows of one product per key head: no key is repeated in memory.
    grouped = query.reshape(batch, kv_heads, heads // kv_heads * queries, width)
    found = torch.matmul(grouped, key.transpose(-1, -2))
    found = found.view(batch, heads, queries, keys)
    found = found.mul_(width**-0.5 if scaling is None else scaling)
    return _apply_mask(found, mask, causal)


def probabilities(found: Any) -> Any:
    """softmax of scores in float32, in the scores' dtype."""
    import torch

    return torch.softmax(found, dim=-1, dtype=torch.float32).to(found.dtype)
