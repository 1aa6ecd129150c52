"""What is captured is what the model computed, bit for bit."""

import pytest
import torch

import ring2

ALL = "resid_pre,resid_final,final_ln,pattern,q,k,v,final_logits,token_ids"


@pytest.fixture(scope="module")
def prompt(chat):
    return chat("What is the capital of France?")


@pytest.fixture(scope="module")
def reference(eager_model, prompt):
    """A forward pass of the same weights with eager attention."""
    with torch.no_grad():
        return eager_model(**prompt, output_attentions=True)


def test_hidden_states_and_logits_equal_the_models_own(model, prompt, attach):
    attached = attach(model, ALL)
    with torch.no_grad(), ring2.request("one"):
        own = model(**prompt, output_hidden_states=True)
    records = attached.finish()
    layers = model.config.num_hidden_layers
    for layer in range(layers):
        assert torch.equal(records.tensor("resid_pre", layer).torch(), own.hidden_states[layer][0])
    assert torch.equal(records.tensor("final_ln").torch(), own.hidden_states[layers][0])
    assert torch.equal(records.tensor("final_logits").torch(), own.logits[0])
    assert torch.equal(records.tensor("token_ids").torch(), prompt["input_ids"][0])
    final = records.tensor("resid_final").torch()
    assert torch.equal(model.model.norm(final), records.tensor("final_ln").torch())


def test_queries_keys_and_values_equal_independent_hooks(model, prompt, attach):
    seen = {}
    handles = [
        getattr(model.model.layers[7].self_attn, f"{name}_proj").register_forward_hook(
            lambda _module, _args, output, name=name: seen.__setitem__(name, output.clone())
        )
        for name in "qkv"
    ]
    attached = attach(model, "q,k,v", layers=[7])
    with torch.no_grad(), ring2.request("one"):
        model(**prompt)
    for handle in handles:
        handle.remove()
    records = attached.finish()
    tokens = prompt["input_ids"].shape[1]
    for name, heads in (("q", 9), ("k", 3), ("v", 3)):
        captured = records.tensor(name, 7).torch()
        assert captured.shape == (tokens, heads, 64)
        assert torch.equal(captured.reshape(tokens, -1), seen[name][0])


def test_patterns_are_within_1e_5_of_eager_attention(model, prompt, reference, attach):
    attached = attach(model, "pattern")
    with torch.no_grad(), ring2.request("one"):
        model(**prompt)
    records = attached.finish()
    for layer, weights in enumerate(reference.attentions):
        captured = records.tensor("pattern", layer).torch()
        assert captured.shape == weights[0].shape
        assert (captured - weights[0]).abs().max() < 1e-5


def test_eager_patterns_are_the_models_own_weights(eager_model, prompt, reference, attach):
    attached = attach(eager_model, "pattern")
    with torch.no_grad(), ring2.request("one"):
        eager_model(**prompt)
    records = attached.finish()
    for layer, weights in enumerate(reference.attentions):
        assert torch.equal(records.tensor("pattern", layer).torch(), weights[0])


@pytest.mark.parametrize("cache", ["dynamic", "static"])
@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3", "gpt2"])
def test_patterns_of_generation_equal_a_full_eager_pass(family, cache, tiny, attach):
    model = tiny(family)
    eager = tiny(family, attn_implementation="eager")
    eager.load_state_dict(model.state_dict())
    ids = torch.randint(3, 97, (2, 7))
    mask = torch.ones_like(ids)
    mask[0, :3] = 0
    attached = attach(model, "pattern,token_ids")
    with ring2.batch([ring2.RequestInfo("a"), ring2.RequestInfo("b")]):
        out = model.generate(
            input_ids=ids, attention_mask=mask, max_new_tokens=5, min_new_tokens=5,
            do_sample=False, cache_implementation=cache,
        )
    records = attached.finish()
    for key, pad in ((1, 3), (2, 0)):
        whole = out[key - 1 : key, pad:]
        with torch.no_grad():
            weights = eager(input_ids=whole, output_attentions=True).attentions
        for layer in range(2):
            for tensor in records.tensors:
                if (tensor.hook, tensor.layer, tensor.key) != ("pattern", layer, key):
                    continue
                first, last = tensor.tokens
                expected = weights[layer][0][:, first:last, :last]
                assert tensor.shape == tuple(expected.shape)
                assert (tensor.torch() - expected).abs().max() < 1e-5


def test_a_prompt_longer_than_the_window_is_captured_whole(tiny, attach):
    model = tiny("mistral", sliding_window=6)
    eager = tiny("mistral", sliding_window=6, attn_implementation="eager")
    eager.load_state_dict(model.state_dict())
    ids = torch.randint(3, 97, (1, 8))
    attached = attach(model, "resid_pre,pattern")
    with ring2.request("one"):
        model.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=2, do_sample=False,
            cache_implementation="static", disable_compile=True,
        )
    with torch.no_grad():
        weights = eager(input_ids=ids, output_attentions=True).attentions
    records = attached.finish()
    assert records.tensor("resid_pre", 0).tokens == (0, 8)
    for layer in range(2):
        found = records.tensor("pattern", layer).torch()
        assert (found - weights[layer][0]).abs().max() < 1e-5


@pytest.mark.parametrize("beside", [{"sliding_window": 4}, {"softcap": 30.0}, {"s_aux": 1}])
def test_what_a_kernel_is_told_beside_the_mask_is_refused_and_counted(beside, tiny, attach):
    from transformers import AttentionInterface
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    def kernel(module, query, key, value, _mask, **kwargs):
        return sdpa_attention_forward(module, query, key, value, None, is_causal=True)

    AttentionInterface.register("beside", kernel)
    model = tiny("llama")
    model.set_attn_implementation("beside")
    attached = attach(model, "pattern,resid_pre")
    attention = model.model.layers[1].self_attn
    own = attention.forward
    attention.forward = lambda *args, **kwargs: own(*args, **kwargs, **beside)
    with torch.no_grad(), ring2.request("one"):
        model(input_ids=torch.randint(3, 97, (1, 8)))
    assert attached.probe.losses()["unsupported"][0] == 1
    assert [t.layer for t in attached.finish().tensors if t.hook == "pattern"] == [0]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_other_dtypes_are_kept_as_they_are(dtype, tiny, attach):
    model = tiny("llama").to(dtype)
    ids = torch.randint(3, 97, (1, 6))
    attached = attach(model, ALL)
    with torch.no_grad(), ring2.request("one"):
        own = model(input_ids=ids, output_hidden_states=True)
    records = attached.finish()
    captured = records.tensor("resid_pre", 1)
    assert captured.dtype == str(dtype).removeprefix("torch.")
    assert torch.equal(captured.torch(), own.hidden_states[1][0])
    assert records.tensor("pattern", 0).dtype == captured.dtype
    assert records.models[0]["dtype"] == captured.dtype


def test_queries_of_qwen3_are_taken_after_their_norm(tiny, attach):
    model = tiny("qwen3")
    seen = []
    handle = model.model.layers[1].self_attn.q_norm.register_forward_hook(
        lambda _module, _args, output: seen.append(output.clone())
    )
    attached = attach(model, "q[1]")
    with torch.no_grad(), ring2.request("one"):
        model(input_ids=torch.randint(3, 97, (1, 6)))
    handle.remove()
    assert torch.equal(attached.finish().tensor("q", 1).torch(), seen[0][0])


def test_gpt2_queries_keys_and_values_are_parts_of_its_projection(tiny, attach):
    model = tiny("gpt2")
    seen = []
    handle = model.transformer.h[0].attn.c_attn.register_forward_hook(
        lambda _module, _args, output: seen.append(output.clone())
    )
    attached = attach(model, "q,k,v")
    with torch.no_grad(), ring2.request("one"):
        model(input_ids=torch.randint(3, 97, (1, 6)))
    handle.remove()
    records = attached.finish()
    for part, name in enumerate("qkv"):
        captured = records.tensor(name, 0).torch()
        assert captured.shape == (6, 4, 8)
        assert torch.equal(captured.reshape(6, 32), seen[0][0][:, part * 32 : part * 32 + 32])


def test_a_generation_stitches_to_one_forward_pass(model, chat, attach):
    inputs = chat("Name three colours.", "Hi")
    attached = attach(model, "resid_pre[0,29],token_ids")
    with ring2.batch([ring2.RequestInfo("a"), ring2.RequestInfo("b")]):
        out = model.generate(**inputs, max_new_tokens=5, min_new_tokens=5, do_sample=False)
    records = attached.finish()
    for key in (1, 2):
        pad = int((inputs["attention_mask"][key - 1] == 0).sum())
        whole = out[key - 1, pad:-1]
        assert torch.equal(records.stitched("token_ids", -1, key), whole)
        with torch.no_grad():
            own = model(input_ids=whole[None], output_hidden_states=True).hidden_states
        assert torch.allclose(records.stitched("resid_pre", 29, key), own[29][0], atol=1e-2)
        assert torch.equal(records.stitched("resid_pre", 0, key), own[0][0])


def test_every_hook_of_the_trained_model_fits_its_neighbours(model, prompt, attach):
    with torch.no_grad():
        before = model(**prompt).logits
        attached = attach(model, "full", layers=[0, 14, 29])
        with ring2.request("one"):
            assert torch.equal(model(**prompt).logits, before)
        records = attached.finish()

        def part(hook, layer=-1):
            return records.tensor(hook, layer).torch()

        tokens = prompt["input_ids"].shape[1]
        assert torch.equal(part("embed"), part("resid_pre", 0))
        for layer in (0, 14, 29):
            block = model.model.layers[layer]
            middle = part("resid_pre", layer) + part("attn_out", layer)
            assert torch.equal(part("resid_mid", layer), middle)
            assert torch.equal(part("ln1", layer), block.input_layernorm(part("resid_pre", layer)))
            assert torch.equal(part("ln2", layer), block.post_attention_layernorm(middle))
            assert torch.equal(part("mlp_in", layer), part("ln2", layer))
            z = part("z", layer)
            assert z.shape == (tokens, 9, 64)
            assert torch.equal(block.self_attn.o_proj(z.reshape(1, tokens, -1))[0],
                               part("attn_out", layer))
            assert torch.equal(block.mlp.down_proj(part("mlp_post", layer)[None])[0],
                               part("mlp_out", layer))
        assert torch.equal(part("resid_final"), part("resid_mid", 29) + part("mlp_out", 29))
        assert torch.equal(part("final_logits"), before[0])
