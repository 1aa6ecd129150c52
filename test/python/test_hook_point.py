"""HookPoint in a model of one's own."""

import pickle

import pytest
import torch

import ring2
import tiny_models
from ring2 import Ring2Error


class Block(torch.nn.Module):
    def __init__(self, layer: int) -> None:
        super().__init__()
        self.tap = ring2.HookPoint("resid_pre", layer=layer)
        self.linear = torch.nn.Linear(8, 8)

    def forward(self, x):
        return x + self.linear(self.tap(x))


class Own(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = torch.nn.Sequential(Block(0), Block(1), Block(2))
        self.out = ring2.HookPoint("resid_final")

    def forward(self, x):
        return self.out(self.blocks(x))


def test_hook_points_of_ones_own_model_are_captured(attach):
    model, x = Own(), torch.randn(2, 5, 8)
    before = model(x)
    attached = attach(model, "full")
    with ring2.batch([ring2.RequestInfo("a"), ring2.RequestInfo("b")]):
        assert torch.equal(model(x), before)
    records = attached.finish()
    assert records.models[0]["engine"] == "torch"
    assert records.models[0]["hooks"] == {"resid_pre": [0, 1, 2], "resid_final": [-1]}
    assert torch.equal(records.tensor("resid_pre", 0, key=2).torch(), x[1])
    assert torch.equal(records.tensor("resid_final", key=1).torch(), before[0])


def test_packed_rows_belong_to_one_request(attach):
    model, x = Own(), torch.randn(5, 8)
    attached = attach(model, "resid_pre[::2]")
    with ring2.request("packed"):
        model(x)
    records = attached.finish()
    assert records.steps[0].rows == ((1, 0, 5, 0, 0, 0),)
    assert [tensor.layer for tensor in records.tensors] == [0, 2]
    assert torch.equal(records.tensor("resid_pre", 0).torch(), x)


@pytest.mark.parametrize("stock", [False, True])
def test_a_hook_point_of_token_ids_is_all_that_captures_them(attach, stock):
    class Embedding(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.ids = ring2.HookPoint("token_ids")
            self.table = torch.nn.Embedding(96, 8)

        def forward(self, x):
            return self.table(self.ids(x))

    model, ids = Embedding(), torch.tensor([[5, 17, 3]])
    if stock:
        model = tiny_models.make("llama")
        model.model.embed_tokens = torch.nn.Sequential(
            ring2.HookPoint("token_ids"), model.model.embed_tokens
        )
    attached = attach(model, "token_ids")
    with ring2.request("once"):
        model(ids)
    records = attached.finish()
    assert [tensor.hook for tensor in records.tensors] == ["token_ids"]
    assert torch.equal(records.tensor("token_ids").torch(), ids[0])


def test_strided_tensors_are_gathered(attach):
    class Strided(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.tap = ring2.HookPoint("k", layer=0)

        def forward(self, x):
            return self.tap(x.transpose(1, 2)[:, ::2])

    model, x = Strided(), torch.randn(2, 3, 8, 4)
    model.eval()
    attached = attach(model, "k")
    ids = torch.zeros(2, 4, dtype=torch.int64)
    model.forward, plain = (lambda input_ids, x: plain(x)), model.forward
    attached.probe.detach()
    attached = attach(model, "k", segment="strided")
    with ring2.batch([ring2.RequestInfo("a"), ring2.RequestInfo("b")]):
        out = model(ids, x)
    records = attached.finish()
    assert not out.is_contiguous()
    assert torch.equal(records.tensor("k", 0, key=2).torch(), out[1])


def test_an_attached_model_can_be_saved_and_copied(attach):
    model = Own()
    attach(model, "resid_pre")
    copy = pickle.loads(pickle.dumps(model.blocks[0]))
    assert copy.tap._tap is None and model.blocks[0].tap._tap is not None


@pytest.mark.parametrize("arguments", [("nothing",), ("resid_pre",), ("resid_pre", -1),
                                       ("resid_pre", 256), ("final_ln", 3)])
def test_a_hook_point_that_fits_no_hook_is_refused(arguments):
    with pytest.raises(Ring2Error, match="RING2_E_HOOK"):
        ring2.HookPoint(*arguments)


def test_two_hook_points_of_one_name_are_refused(attach):
    model = torch.nn.Sequential(Block(1), Block(1))
    with pytest.raises(Ring2Error, match="resid_pre .layer 1."):
        attach(model, "resid_pre")


def test_a_hook_point_takes_the_place_of_a_models_own_site(tiny, attach):
    model = tiny("llama")
    model.model.norm = torch.nn.Sequential(ring2.HookPoint("resid_final"), model.model.norm)
    attached = attach(model, "resid_final")
    with torch.no_grad(), ring2.request("one"):
        model(input_ids=torch.tensor([[4, 5, 6]]))
    assert len(attached.finish().tensors) == 1
