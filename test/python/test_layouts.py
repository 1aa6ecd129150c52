"""Models whose type is not in the table: taken by their modules, or refused with what was found."""

import pytest
import torch

import ring2
from ring2 import Ring2Error
from tiny_models import LAYERS, VOCABULARY, facts


def build(family, **changes):
    import transformers

    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(family, **{**facts("llama"), **changes})
    return transformers.AutoModelForCausalLM.from_config(config).eval()


def run(model, attach, hooks="full"):
    attached = attach(model, hooks, payload_mb=4)
    with torch.no_grad(), ring2.request("one"):
        out = model(input_ids=torch.randint(3, VOCABULARY, (1, 6)))
    return attached.finish(), out.logits[0]


@pytest.mark.parametrize(
    "family", ["olmo", "gemma", "smollm3", "starcoder2", "stablelm", "nemotron", "qwen3_moe"]
)
def test_a_model_with_the_same_modules_is_captured_as_one_of_its_layout(family, attach):
    records, logits = run(build(family), attach)

    def part(hook, layer=-1):
        return records.tensor(hook, layer).torch()

    stream = part("embed")
    for layer in range(LAYERS):
        assert torch.equal(part("resid_pre", layer), stream)
        stream = stream + part("attn_out", layer)
        assert torch.equal(part("resid_mid", layer), stream)
        stream = stream + part("mlp_out", layer)
    assert torch.equal(part("resid_final"), stream)
    assert torch.equal(part("final_logits"), logits)
    sparse = family == "qwen3_moe"
    hooks = {tensor.hook for tensor in records.tensors}
    assert {"mlp_post": not sparse, "topk_ids": sparse}.items() <= {
        name: name in hooks for name in ("mlp_post", "topk_ids")
    }.items()


@pytest.mark.parametrize(
    ("family", "changes", "found"),
    [
        ("gemma2", {}, r"unknown modules model.layers.\*.pre_feedforward_layernorm"),
        ("granite", {"residual_multiplier": 0.5}, "residual_multiplier=0.5"),
        ("cohere", {}, r"missing model.layers.\*.post_attention_layernorm"),
        ("phi3", {}, r"missing model.layers.\*.self_attn.q_proj"),
        ("stablelm", {"use_parallel_residual": True}, "post_attention_layernorm"),
        ("gpt_bigcode", {}, r"missing transformer.h.\*.attn.c_attn in a known order"),
        ("olmo", {"clip_qkv": 0.1}, "clip_qkv=0.1"),
        ("opt", {}, "found model.decoder.layers .3."),
        ("mamba", {}, "missing backbone.norm"),
    ],
)
def test_a_model_that_computes_otherwise_is_refused_with_what_was_found(
    family, changes, found, attach
):
    model = build(family, **changes)
    with pytest.raises(Ring2Error, match=found) as caught:
        attach(model, "resid_pre")
    assert caught.value.code == "RING2_E_MODEL"
    assert type(model).__name__ in caught.value.actual and repr(family) in caught.value.actual
    assert "HookPoint" in caught.value.action


def test_a_module_without_blocks_is_refused_with_its_modules(attach):
    model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.ReLU())
    with pytest.raises(Ring2Error, match=r"modules: 0 \(Linear\), 1 \(ReLU\)"):
        attach(model, "resid_pre")


def test_a_fine_tune_with_a_model_type_of_its_own_is_captured(tiny, attach):
    model = tiny("gpt2")
    model.config.model_type = "my-gpt"
    records, logits = run(model, attach, "q,pos_embed,final_logits")
    assert torch.equal(records.tensor("final_logits").torch(), logits)
    assert records.models[0]["engine"] == "transformers"


def test_two_language_models_in_one_module_are_not_guessed_at(tiny, attach):
    pair = torch.nn.ModuleDict({"draft": tiny("llama"), "target": tiny("llama")})
    with pytest.raises(Ring2Error, match="several language models"):
        attach(pair, "resid_pre")
