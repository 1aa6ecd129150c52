"""What the model returns is what it returned without ring2."""

import pytest
import torch

import ring2

PROMPTS = ("What is the capital of France?", "Name three colours.", "Hi")
EVERYTHING = "resid_pre,resid_final,final_ln,pattern,q,k,v,final_logits,token_ids"


def _generate(model, inputs, **options):
    options = {"max_new_tokens": 12, "do_sample": False, **options}
    return model.generate(**inputs, return_dict_in_generate=True, output_logits=True, **options)


def _same(one, other) -> bool:
    equal = torch.equal(one.sequences, other.sequences)
    return equal and all(torch.equal(a, b) for a, b in zip(one.logits, other.logits, strict=True))


def test_one_request_has_the_same_tokens_and_logits(model, chat, attach):
    inputs = chat(PROMPTS[0])
    before = _generate(model, inputs)
    attach(model, EVERYTHING)
    with ring2.request("one"):
        assert _same(before, _generate(model, inputs))


def test_a_left_padded_batch_has_the_same_tokens_and_logits(model, chat, attach):
    inputs = chat(*PROMPTS)
    assert inputs["attention_mask"][2, 0] == 0
    before = _generate(model, inputs)
    attach(model, EVERYTHING)
    with ring2.batch([ring2.RequestInfo(f"r{i}") for i in range(3)]):
        assert _same(before, _generate(model, inputs))


def test_sampling_with_a_fixed_seed_has_the_same_tokens(model, chat, attach):
    inputs = chat(PROMPTS[1])
    torch.manual_seed(7)
    before = _generate(model, inputs, do_sample=True, temperature=0.9)
    attach(model, EVERYTHING)
    torch.manual_seed(7)
    assert _same(before, _generate(model, inputs, do_sample=True, temperature=0.9))


def test_a_static_cache_has_the_same_tokens_and_logits(model, chat, attach):
    inputs = chat(*PROMPTS[:2])
    options = {"cache_implementation": "static", "max_new_tokens": 4}
    before = _generate(model, inputs, **options)
    attach(model, EVERYTHING)
    with ring2.batch([ring2.RequestInfo("a"), ring2.RequestInfo("b")]):
        assert _same(before, _generate(model, inputs, **options))


@pytest.mark.parametrize("family", ["llama", "mistral", "qwen2", "qwen3", "gpt2"])
def test_every_family_has_the_same_logits_for_a_padded_batch(family, tiny, attach):
    model = tiny(family)
    ids = torch.randint(3, 97, (2, 9))
    mask = torch.ones_like(ids)
    mask[0, :4] = 0
    with torch.no_grad():
        before = model(input_ids=ids, attention_mask=mask).logits
        attach(model, EVERYTHING)
        after = model(input_ids=ids, attention_mask=mask).logits
    assert torch.equal(before, after)


def test_a_compiled_model_goes_on_and_is_captured(tiny, attach):
    model = tiny("llama")
    ids = torch.randint(3, 97, (1, 6))
    with torch.no_grad():
        before = torch.compile(model, backend="eager")(input_ids=ids).logits
        torch._dynamo.reset()
        attached = attach(model, EVERYTHING)
        compiled = torch.compile(model, backend="eager")
        with ring2.request("compiled"):
            assert torch.equal(compiled(input_ids=ids).logits, before)
            assert torch.equal(compiled(input_ids=ids).logits, before)
    torch._dynamo.reset()
    records = attached.finish()
    assert len(records.tensors) == 2 * (2 * 5 + 4)
    assert torch.equal(records.tensor("final_logits").torch(), before[0])


def test_gradients_are_the_same(tiny, attach):
    model = tiny("llama")
    ids = torch.randint(3, 97, (1, 6))
    model(input_ids=ids, labels=ids).loss.backward()
    before = [parameter.grad.clone() for parameter in model.parameters()]
    model.zero_grad()
    attached = attach(model, EVERYTHING)
    model(input_ids=ids, labels=ids).loss.backward()
    pairs = zip(before, model.parameters(), strict=True)
    assert all(torch.equal(a, b.grad) for a, b in pairs)
    assert attached.probe.active
