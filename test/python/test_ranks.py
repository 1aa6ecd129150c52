"""Ranks: who captures what, what attach is told, and what every record then carries."""

import pytest
import torch

import ring2
from ring2._ranks import Place, find_place
from ring2._shards import Parallel, check_ranks, join_shards, shard_ranks


def hooks_of(records):
    return {(tensor.hook, tensor.layer) for tensor in records.tensors}


@pytest.mark.parametrize("rank", [0, 1])
def test_a_tensor_parallel_rank_captures_its_shards_and_rank_0_the_rest(tiny, attach, rank):
    attached = attach(
        tiny("llama"), "resid_pre,q,pattern,token_ids,final_logits",
        ranks=ring2.Ranks(tp=rank), world=ring2.World(tp=2),
    )
    with torch.no_grad(), ring2.request("one"):
        attached.probe.model(torch.arange(1, 6)[None])
    records = attached.finish()
    shards = {("q", 0), ("q", 1), ("pattern", 0), ("pattern", 1)}
    rest = {("resid_pre", 0), ("resid_pre", 1), ("token_ids", -1), ("final_logits", -1)}
    assert hooks_of(records) == (shards | rest if rank == 0 else shards)
    (model,) = records.models
    assert model["ranks"] == {"tp": rank, "pp": 0, "dp": 0, "ep": 0}
    assert model["world"] == {"tp": 2, "pp": 1, "dp": 1, "ep": 1}
    assert set(model["hooks"]) == {hook for hook, _ in hooks_of(records)}
    assert attached.probe.losses() == {}


def test_a_rank_that_captures_nothing_still_says_that_it_was_there(tiny, attach):
    attached = attach(
        tiny("llama"), "resid_pre", ranks=ring2.Ranks(tp=1), world=ring2.World(tp=2)
    )
    with torch.no_grad(), ring2.request("one"):
        attached.probe.model(torch.arange(1, 6)[None])
    records = attached.finish()
    assert records.tensors == []
    assert [one["request_id"] for one in records.requests] == ["one"]
    assert [one["steps"] for one in records.ends] == [1]


def test_a_model_in_one_process_says_nothing_of_ranks(tiny, attach):
    records = attach(tiny("llama"), "resid_pre").finish()
    assert not {"ranks", "world"} & set(records.models[0])


class Stage(torch.nn.Module):
    """Layer 2 of a model of four, of which this stage has the last two."""

    def __init__(self):
        super().__init__()
        self.config = type("Config", (), {"num_hidden_layers": 4})()
        self.taps = torch.nn.ModuleList(ring2.HookPoint("resid_pre", layer) for layer in (2, 3))
        self.norm = ring2.HookPoint("final_ln")

    def forward(self, x):
        for tap in self.taps:
            x = tap(x)
        return self.norm(x)


def test_a_stage_takes_its_own_of_what_is_wanted_of_the_whole_model(attach):
    attached = attach(
        Stage(), "resid_pre[0,3],token_ids,final_ln",
        ranks=ring2.Ranks(pp=1), world=ring2.World(pp=2),
    )
    assert attached.probe.hooks == {"resid_pre": (3,), "final_ln": (-1,)}
    with ring2.request("one"):
        attached.probe.model(torch.zeros(1, 3, 8))
    assert hooks_of(attached.finish()) == {("resid_pre", 3), ("final_ln", -1)}


@pytest.mark.parametrize(
    ("ranks", "world"),
    [
        (ring2.Ranks(tp=2), ring2.World(tp=2)),
        (ring2.Ranks(tp=-1), ring2.World(tp=2)),
        (ring2.Ranks(tp=1), None),
        (None, ring2.World(tp=2)),
        (ring2.Ranks(), ring2.World(tp=0)),
    ],
)
def test_a_place_that_cannot_be_is_an_error(ranks, world):
    with pytest.raises(ring2.Ring2Error) as caught:
        find_place(torch.nn.Linear(1, 1), ranks, world)
    assert caught.value.code == "RING2_E_ARGUMENT"


def test_without_a_mesh_no_place_is_guessed():
    assert find_place(torch.nn.Linear(1, 1), None, None) == Place()


def test_copies_of_key_heads_are_left_out_of_the_whole():
    four = Parallel(4, 2, frozenset())
    assert shard_ranks("k", four, {}) == [0, 2]
    assert shard_ranks("q", four, {}) == [0, 1, 2, 3]
    assert shard_ranks("q", four, {"tp_rank": 1}) is None
    assert shard_ranks("resid_pre", four, {}) is None
    assert shard_ranks("q", None, {}) is None


def test_shards_are_joined_where_all_have_the_token():
    import numpy
    first = (numpy.arange(6.0).reshape(3, 2), [(0, 3)])
    second = (10 + numpy.arange(4.0).reshape(2, 2), [(1, 3)])
    whole, held = join_shards([first, second], "token", None)
    assert held == [(1, 3)]
    assert whole.tolist() == [[2, 3, 10, 11], [4, 5, 12, 13]]
    with pytest.raises(ring2.Ring2Error) as caught:
        join_shards([first, (second[0], [(7, 9)])], "token", None)
    assert caught.value.code == "RING2_E_INCOMPLETE"
    with pytest.raises(ring2.Ring2Error) as caught:
        check_ranks([0, 1], [0])
    assert caught.value.code == "RING2_E_INCOMPLETE"
