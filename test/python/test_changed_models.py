"""Models that are changed, or wrapped, around a probe: the capture follows, or says one line."""

import logging

import pytest
import torch

import ring2
from ring2 import Ring2Error
from tiny_models import HEAD_DIM, HEADS, HIDDEN, LAYERS, VOCABULARY, make

IDS = torch.randint(3, VOCABULARY, (1, 6), generator=torch.Generator().manual_seed(2))


class Adapter(torch.nn.Module):
    """A projection with something added, as low-rank adapters do."""

    def __init__(self, base_layer):
        super().__init__()
        self.base_layer = base_layer
        self.extra = torch.nn.Linear(base_layer.in_features, base_layer.out_features, bias=False)

    def forward(self, x):
        return self.base_layer(x) + self.extra(x)


class Int8Linear(torch.nn.Module):
    """A linear with weights of eight bits, as quantisation puts in a linear's place."""

    def __init__(self, linear):
        super().__init__()
        self.scale = linear.weight.detach().abs().amax(dim=1, keepdim=True) / 127
        self.weight = torch.nn.Parameter(
            (linear.weight.detach() / self.scale).round().to(torch.int8), requires_grad=False
        )

    def forward(self, x):
        return torch.nn.functional.linear(x, self.weight.to(x.dtype) * self.scale)


class Tuner(torch.nn.Module):
    """A wrapper that calls its model's forward directly, as adapter libraries do."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, *args, **kwargs):
        return self.model.forward(*args, **kwargs)

    def generate(self, *args, **kwargs):
        return self.model.generate(*args, **kwargs)


def run(model, name):
    with torch.no_grad(), ring2.request(name):
        return model(input_ids=IDS).logits


def test_a_projection_that_is_replaced_is_captured_in_its_place(attach, caplog):
    model = make("llama")
    attached = attach(model, "full", payload_mb=4)
    run(model, "before")
    attention = model.model.layers[1].self_attn
    attention.q_proj = Adapter(attention.q_proj)
    seen = []
    attention.q_proj.register_forward_hook(lambda _module, _args, output: seen.append(output))
    with caplog.at_level(logging.WARNING, "ring2"):
        run(model, "after")
        run(model, "later")
    records = attached.finish()
    own = seen[0].view(6, HEADS, HEAD_DIM)
    assert torch.equal(records.tensor("q", 1, key=2).torch(), own)
    assert torch.equal(records.tensor("q", 1, key=3).torch(), own)
    lines = [record.message for record in caplog.records]
    assert len(lines) == 1 and "layers.1.self_attn.q_proj (Adapter)" in lines[0]
    counts = {key: sum(tensor.key == key for tensor in records.tensors) for key in (1, 2, 3)}
    assert counts[1] == counts[2] == counts[3]


def test_linears_that_are_quantised_in_place_are_captured(attach, caplog):
    model = make("llama")
    attached = attach(model, "q,mlp_post,final_logits", payload_mb=4)
    run(model, "before")
    for block in model.model.layers:
        for parent in (block.self_attn, block.mlp):
            for name, linear in list(parent.named_children()):
                if isinstance(linear, torch.nn.Linear):
                    setattr(parent, name, Int8Linear(linear))
    seen = {}
    for name in ("self_attn.q_proj", "mlp.down_proj"):
        model.model.layers[2].get_submodule(name).register_forward_hook(
            lambda _module, args, output, name=name: seen.__setitem__(name, (args[0], output))
        )
    with caplog.at_level(logging.WARNING, "ring2"):
        logits = run(model, "after")
    records = attached.finish()
    queries = records.tensor("q", 2, key=2).torch().reshape(6, HIDDEN)
    assert torch.equal(queries, seen["self_attn.q_proj"][1][0])
    assert torch.equal(records.tensor("mlp_post", 2, key=2).torch(), seen["mlp.down_proj"][0][0])
    assert torch.equal(records.tensor("final_logits", key=2).torch(), logits[0])
    assert len(caplog.records) == 1 and "(Int8Linear) and more" in caplog.records[0].message


def test_a_block_that_is_replaced_by_another_kind_is_said_and_the_rest_goes_on(attach, caplog):
    class Plain(torch.nn.Module):
        def forward(self, hidden_states, **_kwargs):
            return hidden_states

    model = make("llama")
    attached = attach(model, "resid_pre,final_logits", payload_mb=4)
    run(model, "before")
    model.model.layers[1] = Plain()
    with caplog.at_level(logging.WARNING, "ring2"):
        logits = run(model, "after")
        run(model, "later")
    records = attached.finish()
    assert len(caplog.records) == 1 and "not known any more" in caplog.records[0].message
    assert torch.equal(records.tensor("final_logits", key=2).torch(), logits[0])
    layers = [tensor.layer for tensor in records.tensors
              if tensor.key == 2 and tensor.hook == "resid_pre"]
    assert layers == [0, 2]


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_a_wrapper_is_captured_whether_it_is_called_or_generates(family, attach):
    inner = make(family)
    before = inner(input_ids=IDS).logits
    model = Tuner(Tuner(inner))
    attached = attach(model, "full", payload_mb=8)
    assert torch.equal(run(model, "called"), before)
    with ring2.request("generated"):
        model.generate(input_ids=IDS, max_new_tokens=2, min_new_tokens=2, do_sample=False)
    records = attached.finish()
    assert records.models[0]["engine"] == "transformers"
    assert records.models[0]["hidden"] == HIDDEN
    assert [end["steps"] for end in records.ends] == [1, 2]
    assert len(records.steps) == 3 and not records.gaps
    assert torch.equal(records.tensor("final_logits", key=1).torch(), before[0])
    pattern = records.tensor("pattern", LAYERS - 1, key=2)
    assert pattern.shape == (HEADS, 6, 6)


def test_a_wrapper_around_an_attached_model_cannot_be_attached_too(attach):
    model = make("llama")
    attach(model, "resid_pre", payload_mb=4)
    with pytest.raises(Ring2Error, match="attached to segment"):
        attach(Tuner(model), "resid_pre", payload_mb=4)
