"""Attention scores and patterns computed beside vLLM's kernel, for the last queries of each request and step.

The kernel keeps neither, so they are computed again from the query and the keys in the KV
cache (rotary step applied, prefix-cached ones included): the scaled product under the causal mask,
each head with its group's keys, in float32, and the softmax of it. The keys read are compared with those of
this very step before they are believed, because how a cache lays them out is the kernel's own
business. Layers with another mask or bias are not offered.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ring2 import _native
from ring2._producer import Producer
from ring2._selection import HOOKS_BY_NAME
from ring2._trouble import Trouble

COMPUTED = ("attn_scores", "pattern")
STEP_EXTRA = 1
TOKENS_TOGETHER = 16  # in one tile of a matrix unit


def is_plain(impl: Any) -> bool:
    """Whether a layer's attention is a causal softmax of the scaled product, and nothing more."""
    window = getattr(impl, "sliding_window", None)
    window = window if isinstance(window, (tuple, list)) else (window,)
    return (
        all(side in (None, -1) for side in window)
        and getattr(impl, "alibi_slopes", None) is None
        and getattr(impl, "sinks", None) is None
        and not getattr(impl, "logits_soft_cap", None)
        and getattr(impl, "attn_type", "decoder") == "decoder"
        and not getattr(impl, "is_fp8_kv_cache", False)
        and hasattr(impl, "scale")
        and type(impl).__name__ == "CPUAttentionBackendImpl"
    )


def pattern_layers(config: Any) -> dict[int, Any]:
    """Layer → attention implementation, of those whose pattern can be computed."""
    from vllm.model_executor.models.utils import extract_layer_index

    layers: dict[int, Any] = {}
    for name, layer in config.compilation_config.static_forward_context.items():
        impl = getattr(layer, "impl", None)
        if impl is not None and is_plain(impl):
            layers[extract_layer_index(name)] = impl
    return layers


def _plain(blocks: Any) -> Any:
    return blocks


def _columns(blocks: Any) -> Any:
    """[…, block, size] whose memory holds an element of every token of a block, then the next."""
    *outer, block, size = blocks.shape
    return blocks.reshape(*outer, size, block).transpose(-1, -2)


def _pairs(blocks: Any) -> Any:
    """The same by some tokens and by pairs of elements, as matrix units take 16-bit numbers."""
    *outer, block, size = blocks.shape
    groups = blocks.reshape(*outer, block // TOKENS_TOGETHER, size // 2, TOKENS_TOGETHER, 2)
    return groups.transpose(-2, -3).reshape(*outer, block, size)


CACHE_LAYOUTS: tuple[Callable[[Any], Any], ...] = (_columns, _plain, _pairs)


def read_keys(kv_cache: Any, layout: Callable[[Any], Any], blocks: Any, count: int) -> Any:
    """Keys [kv_heads, count, size] of a request, from its blocks of the cache."""
    number, heads, block, _ = kv_cache.shape
    keys = kv_cache.view(number, heads, block * 2, -1).chunk(2, dim=2)[0]
    used = keys[blocks[: (count + block - 1) // block].long()]
    return layout(used).transpose(0, 1).flatten(1, 2)[:, :count]


def masked_scores(query: Any, keys: Any, scale: float) -> Any:
    """[heads, queries, keys] of the last queries of a request: scaled, −inf behind each query, in float32.

    query: [queries, heads, size]; keys: [kv_heads, keys, size], the last one the last query's own.
    """
    import torch

    queries, heads, size = query.shape
    kv_heads, count, _ = keys.shape
    grouped = query.float().reshape(queries, kv_heads, heads // kv_heads, size)
    scores = torch.einsum("qhgd,hkd->hgqk", grouped, keys.float()) * scale
    if queries > 1:
        seen = torch.ones(queries, count, dtype=torch.bool).tril(count - queries)
        scores = scores.masked_fill(~seen, float("-inf"))
    return scores.reshape(heads, queries, count)


class Patterns:
    """Computes and writes the scores and patterns of one worker's steps."""

    def __init__(self, producer: Producer, trouble: Trouble, queries: int) -> None:
        import torch

        self.token = torch.zeros(1, dtype=torch.uint8)
        self._producer = producer
        self._trouble = trouble
        self._queries = queries
        self._native = _native.library()
        self._operator = _native.register_operator()
        self._layouts: dict[int, Callable[[Any], Any]] = {}
        self._rows: Sequence[Any] = ()
        self._steps: dict[int, int] = {}
        self._restore_runs: Callable[[], object] = lambda: None
        self._step = self._sequence = -1

    def install(self, impls: Mapping[int, Any], chosen: Mapping[str, Sequence[int]]) -> None:
        """Wraps the attention of the layers of which ``chosen`` names what is computed here."""
        for layer, impl in impls.items():
            names = [name for name in COMPUTED if layer in chosen.get(name, ())]
            if names:
                impl.forward = self._around(layer, impl, impl.forward, names)

    def begin(
        self, rows: Sequence[Any], step: int, sequence: int, restore_runs: Callable[[], object]
    ) -> None:
        """A step has opened with these rows. ``restore_runs``: chooses its rows again."""
        self._rows, self._step, self._sequence = rows, step, sequence
        self._restore_runs = restore_runs
        self._steps = {}

    def end(self) -> None:
        """The step is over."""
        self._rows = ()

    def _around(
        self, layer: int, impl: Any, forward: Callable[..., Any], names: Sequence[str]
    ) -> Callable[..., Any]:
        working = True
        hooks = {name: HOOKS_BY_NAME[name].id for name in names}
        wants, slot = self._native.ring2_torch_wants, self._producer.slot

        def attention(
            module: Any, query: Any, key: Any, value: Any, kv_cache: Any, metadata: Any,
            *args: Any, **kwargs: Any,
        ) -> Any:
            nonlocal working
            result = forward(module, query, key, value, kv_cache, metadata, *args, **kwargs)
            if self._rows and working and metadata is not None:
                try:
                    wanted = [name for name, hook in hooks.items() if wants(slot, hook, layer)]
                    if wanted:
                        self._write(layer, impl, query, key, kv_cache, metadata, wanted)
                except Exception as error:  # noqa: BLE001  the model must go on
                    working = False
                    self._refuse(layer, repr(error), len(hooks))
            return result

        return attention

    def _refuse(self, layer: int, reason: str, tensors: int) -> None:
        self._producer.count_loss("unsupported", tensors)
        self._trouble.warn_once(
            f"attention {layer}", f"the attention of layer {layer} is not computed: {reason}"
        )

    def _write(
        self, layer: int, impl: Any, query: Any, key: Any, kv_cache: Any, metadata: Any,
        wanted: Sequence[str],
    ) -> None:
        slot, native = self._producer.slot, self._native
        computed = []
        for row in self._rows:
            count = row.token_end
            own = key[row.offset : row.offset + count - row.token_start]
            keys = self._keys(layer, kv_cache, metadata.block_table[row.index], count, own)
            if keys is None or int(metadata.seq_lens[row.index]) != count:
                reason = "the keys in the cache are not where they were looked for"
                self._refuse(layer, reason, len(wanted))
                continue
            queries = min(self._queries, len(own))
            last = row.offset + len(own)
            computed.append((row, queries, masked_scores(
                query[last - queries : last].reshape(queries, impl.num_heads, -1), keys, impl.scale
            )))
        # The samples are a step of their own, whole and batched; then the forward's goes on.
        try:
            native.ring2_torch_set_batch(slot, 1)
            native.ring2_torch_set_runs(slot, 0, 0, None)
            for row, queries, scores in computed:
                step = self._extra_step(row, queries)
                if step >= 0:
                    native.ring2_torch_set_step(slot, step)
                    self._put(layer, scores, wanted)
        finally:
            native.ring2_torch_set_batch(slot, 0)
            native.ring2_torch_set_step(slot, self._step)
            self._restore_runs()

    def _put(self, layer: int, scores: Any, wanted: Sequence[str]) -> None:
        for name in wanted:
            values = scores.softmax(dim=-1) if name == "pattern" else scores
            self._operator(
                self.token, values.unsqueeze(0), self._producer.slot, HOOKS_BY_NAME[name].id, layer
            )

    def _extra_step(self, row: Any, queries: int) -> int:
        """The STEP of this request's samples in this forward pass, written with the first."""
        step = self._steps.get(row.index)
        if step is None:
            first = row.token_end - queries
            values = ((row.session.key, first, row.token_end, 0, 0, 0, row.phase),)
            step = self._producer.write_step(
                _native.LAYOUT_BATCHED, queries, values, 1, self._sequence, STEP_EXTRA
            )
            self._steps[row.index] = step
        return step

    def _keys(self, layer: int, kv_cache: Any, blocks: Any, count: int, own: Any) -> Any:
        """The request's keys; None unless this step's own are found among them."""
        known = self._layouts.get(layer)
        expected = own.reshape(len(own), kv_cache.shape[1], -1).transpose(0, 1)
        for layout in CACHE_LAYOUTS if known is None else (known,):
            keys = read_keys(kv_cache, layout, blocks, count)
            if keys.shape[0] == expected.shape[0] and keys[:, -len(own) :].equal(expected):
                self._layouts[layer] = layout
                return keys
        return None
