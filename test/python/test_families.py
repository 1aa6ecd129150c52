"""Every hook of every stock family: bit for bit the model's own tensor, and nothing is changed.

One generation (a ragged left-padded prompt, then decoding) of each family, attention and dtype is
watched by forward hooks of the test's own; the same generation is captured by ring2.
"""

import sys
from contextlib import contextmanager
from functools import cache

import pytest
import torch

import ring2
from ring2 import Ring2Error
from ring2._catalogue import HOOKS
from ring_reader import Reader
from tiny_models import EXPERTS, FAMILIES, HEAD_DIM, LAYERS, PADS, TOP_K, make, ragged_batch

NAMES = tuple(hook.name for hook in HOOKS)
VARIANTS = [(attention, dtype) for attention in ("sdpa", "eager")
            for dtype in (torch.float32, torch.bfloat16)]
NEW_TOKENS = 3

# hook -> (module, side, index into a tuple of arguments or outputs), by hand for each layout.
LLAMA = {
    "embed": ("model.embed_tokens", "out", 0),
    "resid_pre": ("model.layers.{}", "in", 0),
    "ln1": ("model.layers.{}.input_layernorm", "out", 0),
    "q": ("model.layers.{}.self_attn.q_proj", "out", 0),
    "k": ("model.layers.{}.self_attn.k_proj", "out", 0),
    "v": ("model.layers.{}.self_attn.v_proj", "out", 0),
    "z": ("model.layers.{}.self_attn.o_proj", "in", 0),
    "attn_out": ("model.layers.{}.self_attn", "out", 0),
    "pattern": ("model.layers.{}.self_attn", "out", 1),
    "resid_mid": ("model.layers.{}.post_attention_layernorm", "in", 0),
    "ln2": ("model.layers.{}.post_attention_layernorm", "out", 0),
    "mlp_in": ("model.layers.{}.mlp", "in", 0),
    "mlp_post": ("model.layers.{}.mlp.down_proj", "in", 0),
    "mlp_out": ("model.layers.{}.mlp", "out", 0),
    "resid_final": ("model.norm", "in", 0),
    "final_ln": ("model.norm", "out", 0),
    "token_ids": ("model.embed_tokens", "in", 0),
    "final_logits": ("lm_head", "out", 0),
}
QWEN3 = {**LLAMA, "q": ("model.layers.{}.self_attn.q_norm", "out", 0),
         "k": ("model.layers.{}.self_attn.k_norm", "out", 0)}
SPARSE = {
    **LLAMA,
    "router_logits": ("model.layers.{}.mlp.gate", "out", 0),
    "topk_ids": ("model.layers.{}.mlp.gate", "out", 2),
    "topk_weights": ("model.layers.{}.mlp.gate", "out", 1),
}
GPT2 = {
    "embed": ("transformer.wte", "out", 0),
    "pos_embed": ("transformer.wpe", "out", 0),
    "resid_pre": ("transformer.h.{}", "in", 0),
    "ln1": ("transformer.h.{}.ln_1", "out", 0),
    "q": ("transformer.h.{}.attn.c_attn", "out", 0),
    "k": ("transformer.h.{}.attn.c_attn", "out", 0),
    "v": ("transformer.h.{}.attn.c_attn", "out", 0),
    "z": ("transformer.h.{}.attn.c_proj", "in", 0),
    "attn_out": ("transformer.h.{}.attn", "out", 0),
    "pattern": ("transformer.h.{}.attn", "out", 1),
    "resid_mid": ("transformer.h.{}.ln_2", "in", 0),
    "ln2": ("transformer.h.{}.ln_2", "out", 0),
    "mlp_in": ("transformer.h.{}.mlp", "in", 0),
    "mlp_post": ("transformer.h.{}.mlp.c_proj", "in", 0),
    "mlp_out": ("transformer.h.{}.mlp", "out", 0),
    "resid_final": ("transformer.ln_f", "in", 0),
    "final_ln": ("transformer.ln_f", "out", 0),
    "token_ids": ("transformer.wte", "in", 0),
    "final_logits": ("lm_head", "out", 0),
}
PLACES = {"gpt2": GPT2, "qwen3": QWEN3, "mixtral": SPARSE, "qwen2_moe": SPARSE}
SPARSE_LAYERS = {"mixtral": range(LAYERS), "qwen2_moe": [1]}
ROUTER = ("router_logits", "topk_ids", "topk_weights")


def layers_of(family: str, hook: str) -> list[int]:
    """The layers that have the hook, [-1] for a global one, [] where the family has none."""
    places = PLACES.get(family, LLAMA)
    if hook == "attn_scores":
        return list(range(LAYERS))
    if hook not in places:
        return []
    if "{}" not in places[hook][0]:
        return [-1]
    sparse = SPARSE_LAYERS.get(family, [])
    if hook in ROUTER:
        return list(sparse)
    if hook == "mlp_post":
        return [layer for layer in range(LAYERS) if layer not in sparse]
    return list(range(LAYERS))


@cache
def model_of(family, attention, dtype):
    return make(family, attn_implementation=attention).to(dtype)


def generate(model, **options):
    options = {"max_new_tokens": NEW_TOKENS, "min_new_tokens": NEW_TOKENS, **options}
    return model.generate(**ragged_batch(), do_sample=False, return_dict_in_generate=True,
                          output_logits=True, **options)


def _watch(model, family):
    """Forward hooks that keep a copy of what passes: (hook, layer) -> a tensor per step."""
    seen, handles = {}, []
    for hook, (path, side, index) in PLACES.get(family, LLAMA).items():
        for layer in layers_of(family, hook):
            module = model.get_submodule(path.format(layer))
            kept = seen.setdefault((hook, layer), [])

            def keep(_module, args, kwargs, output=None, kept=kept, side=side, index=index):
                values = (*args, *kwargs.values()) if side == "in" else output
                value = values if isinstance(values, torch.Tensor) else values[index]
                kept.append(None if value is None else value.detach().clone())

            register = (module.register_forward_pre_hook if side == "in"
                        else module.register_forward_hook)
            handles.append(register(keep, with_kwargs=True))
    return seen, handles


@contextmanager
def _scores_kept(model, seen):
    """Has eager attention, written out here, tell its scores: scaled, masked, before softmax."""
    base = getattr(model, model.base_model_prefix)
    file = sys.modules[type(base).__module__]
    own = file.eager_attention_forward

    def attend(module, query, key, value, attention_mask, **kwargs):
        repeated = key.repeat_interleave(query.shape[1] // key.shape[1], dim=1)
        scores = torch.matmul(query, repeated.transpose(2, 3)) * kwargs["scaling"]
        if attention_mask is not None:
            scores = scores + attention_mask
        seen.setdefault(("attn_scores", module.layer_idx), []).append(scores)
        return own(module, query, key, value, attention_mask, **kwargs)

    file.eager_attention_forward = attend
    yield
    file.eager_attention_forward = own


@cache
def reference(family, attention, dtype):
    """(what the model's modules computed, what it returned) without ring2."""
    model = model_of(family, attention, dtype)
    seen, handles = _watch(model, family)
    with _scores_kept(model, seen):
        out = generate(model)
    for handle in handles:
        handle.remove()
    return seen, out


@pytest.fixture(scope="module")
def captured(tmp_path_factory):
    folder = tmp_path_factory.mktemp("families")

    @cache
    def run(family, attention, dtype):
        model = model_of(family, attention, dtype)
        name = f"{family}-{attention}-{str(dtype)[6:]}"
        with ring2.attach(model, "full", directory=str(folder), segment=name,
                          payload_mb=16) as probe:
            reader = Reader(probe.path)
            with ring2.batch([ring2.RequestInfo("a"), ring2.RequestInfo("b")]):
                out = generate(model)
        records = reader.drain()
        reader.close(remove=True)
        return probe, records, out

    return run


def same(one, other) -> bool:
    equal = torch.equal(one.sequences, other.sequences)
    return equal and all(torch.equal(a, b) for a, b in zip(one.logits, other.logits, strict=True))


def own_part(family, hook, whole, row, step):
    """One request's part of a tensor of the whole batch, in the catalogue's axes."""
    pad = PADS[row] if step == 0 else 0
    if hook in ("pattern", "attn_scores"):
        return whole[row, :, pad:, PADS[row]:]
    if hook == "final_logits":
        return whole[row]
    if hook in ROUTER:
        whole = whole.view(2, -1, whole.shape[-1])
        kind = {"topk_ids": torch.int32, "topk_weights": torch.float32}
        return whole[row, pad:].to(kind.get(hook, whole.dtype))
    if hook in "qkv" and family == "gpt2":
        whole = whole.chunk(3, dim=-1)["qkv".index(hook)]
    part = whole.expand(2, *whole.shape[1:])[row, pad:]
    if hook in ("q", "k", "v", "z"):
        part = part.reshape(part.shape[0], -1, HEAD_DIM)
    return part


NEAR = {torch.float32: 1e-5, torch.bfloat16: 0.02}


def near(mine, theirs, dtype) -> bool:
    """Equal within rounding, and hidden where the other is: by the type's lowest number."""
    lowest = torch.finfo(dtype).min / 2
    hidden = theirs <= lowest
    seen = torch.allclose(mine[~hidden].float(), theirs[~hidden].float(),
                          atol=NEAR[dtype], rtol=NEAR[dtype])
    return seen and torch.equal(hidden, mine <= lowest)


@pytest.mark.parametrize("hook", NAMES)
@pytest.mark.parametrize("family", FAMILIES)
def test_every_hook_is_the_models_own_tensor(family, hook, captured):
    for attention, dtype in VARIANTS:
        seen, _ = reference(family, attention, dtype)
        probe, records, _ = captured(family, attention, dtype)
        layers = layers_of(family, hook)
        assert probe.hooks.get(hook, ()) == tuple(layers)
        for layer in layers:
            for step in range(NEW_TOKENS):
                for row in range(2):
                    if attention == "sdpa" and hook in ("pattern", "attn_scores"):
                        # Such a kernel has neither: they are compared below with eager ones.
                        continue
                    whole = seen[hook, layer][step]
                    expected = own_part(family, hook, whole, row, step)
                    tensor = records.tensor(hook, layer, row + 1, step)
                    assert tensor.shape == tuple(expected.shape), (layer, step, row)
                    if hook == "attn_scores":
                        # Computed beside the model's own product, which may round otherwise.
                        assert near(tensor.torch(), expected, dtype), (layer, step, row)
                    else:
                        assert torch.equal(tensor.torch(), expected), (layer, step, row)


@pytest.mark.parametrize("hook", ["pattern", "attn_scores"])
@pytest.mark.parametrize("family", FAMILIES)
def test_attention_beside_another_kernel_is_that_of_eager_attention(family, hook, captured):
    # In bfloat16 the two kernels need not choose the same tokens.
    _, ours, out = captured(family, "sdpa", torch.float32)
    _, eager, same_out = captured(family, "eager", torch.float32)
    assert torch.equal(out.sequences, same_out.sequences)
    for one, other in zip(
        (t for t in ours.tensors if t.hook == hook),
        (t for t in eager.tensors if t.hook == hook), strict=True,
    ):
        assert (one.layer, one.key, one.step) == (other.layer, other.key, other.step)
        assert near(one.torch(), other.torch(), torch.float32)


@pytest.mark.parametrize("family", FAMILIES)
def test_everything_at_once_changes_nothing(family, captured):
    for attention, dtype in VARIANTS:
        _, records, out = captured(family, attention, dtype)
        assert same(out, reference(family, attention, dtype)[1])
        assert not records.gaps


@pytest.mark.parametrize("hook", NAMES)
@pytest.mark.parametrize("family", FAMILIES)
def test_each_hook_alone_changes_nothing(family, hook, attach):
    model = model_of(family, "sdpa", torch.float32)
    if not layers_of(family, hook):
        with pytest.raises(Ring2Error, match=f"{hook} is not captured from"):
            attach(model, hook, payload_mb=4)
        return
    attached = attach(model, hook, payload_mb=4)
    with ring2.batch([ring2.RequestInfo("a"), ring2.RequestInfo("b")]):
        out = generate(model)
    records = attached.finish()
    assert same(out, reference(family, "sdpa", torch.float32)[1])
    assert {tensor.hook for tensor in records.tensors} == {hook}


@pytest.mark.parametrize("family", FAMILIES)
def test_the_residual_stream_is_the_sum_of_its_parts(family, captured):
    for dtype in (torch.float32, torch.bfloat16):
        _, records, _ = captured(family, "eager", dtype)

        def part(hook, layer=-1, records=records):
            return records.tensor(hook, layer).torch()

        stream = part("embed") + part("pos_embed") if family == "gpt2" else part("embed")
        for layer in range(LAYERS):
            assert torch.equal(part("resid_pre", layer), stream)
            stream = part("attn_out", layer) + stream
            assert torch.equal(part("resid_mid", layer), stream)
            stream = stream + part("mlp_out", layer)
        assert torch.equal(part("resid_final"), stream)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_model_is_described_by_its_configuration(family, captured):
    _, records, _ = captured(family, "sdpa", torch.float32)
    body = records.models[0]
    sparse = family in SPARSE_LAYERS
    assert body["head_dim"] == HEAD_DIM and body["layers"] == LAYERS
    assert (body["experts"], body["top_k"]) == ((EXPERTS, TOP_K) if sparse else (0, 0))
    assert body["hooks"]["resid_pre"] == list(range(LAYERS))
