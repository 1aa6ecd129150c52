"""The other architectures that are known, as small random models, eager and in process, one of them also
on two ranks: every hook that each has, against what the same weights give in Transformers."""

from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy
import pytest
import ring2
import tiny_models
import torch
from reference import expected
from ring2._selection import HOOKS_BY_NAME
from ring2._shards import Parallel, join_shards, shard_ranks

from conftest import Engines, Family

FAMILIES = ("mistral", "qwen2", "qwen3", "gpt2", "qwen2_moe", "mixtral")
SHARED = "qwen2:2"
LAYERS = 2
# vLLM's kernels for CPUs want heads of 32 elements.
SIZES = {
    "gpt2": dict(n_embd=128, n_layer=LAYERS),
    "qwen2_moe": dict(moe_intermediate_size=32, shared_expert_intermediate_size=32),
    "mistral": dict(sliding_window=None),
}
LLAMA_SIZES = dict(hidden_size=128, intermediate_size=64, num_hidden_layers=LAYERS, head_dim=32)
# Relative to the largest number of a tensor; float32, other kernels and another order of sums.
TOLERANCE = 5e-5
MASKED = -1e30  # or lower: an attention score that does not count
# Computed by the plugin for all queries of a step, whose tokens are fewer.
QUERIES = 64
EVERYWHERE = {
    "resid_pre", "ln1", "attn_out", "resid_mid", "pattern", "attn_scores", "q", "k", "v", "z", "ln2",
    "mlp_in", "mlp_out", "resid_final", "embed", "final_ln", "token_ids", "final_logits",
}
ROUTED = {"router_logits", "topk_ids", "topk_weights"}
HOOKS = {
    **dict.fromkeys(FAMILIES, EVERYWHERE | {"mlp_post"}),
    "gpt2": EVERYWHERE | {"mlp_post", "pos_embed"},
    "qwen2_moe": EVERYWHERE | {"mlp_post"} | ROUTED,  # its first layer is dense
    "mixtral": EVERYWHERE | ROUTED,
}


def model(family: str) -> Any:
    sizes = SIZES[family] if family == "gpt2" else {**LLAMA_SIZES, **SIZES.get(family, {})}
    return tiny_models.make(family, attn_implementation="eager", **sizes)


@pytest.fixture(scope="module")
def served(engines: Engines, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Family]:
    """What each family gave, of engines that one process runs in turn."""
    folder = tmp_path_factory.mktemp("families")
    for family in FAMILIES:
        model(family).save_pretrained(folder / family)
    return engines.run_families(folder, (*FAMILIES, SHARED), QUERIES)


def truth(family: str, tokens: list[int], folder: Path) -> dict[tuple[str, int], torch.Tensor]:
    """What Transformers computes, by this project's own probe, which is tested by itself."""
    from ring_reader import Reader

    own = model(family)
    probe = ring2.attach(own, "full", segment=family, directory=str(folder), payload_mb=32)
    with probe, torch.no_grad():
        own(torch.tensor([tokens]), use_cache=False)
    reader = Reader(probe.path)
    found = {(one.hook, one.layer): one.torch() for one in reader.drain().tensors}
    reader.close(remove=True)
    return found


def by_expert(tensor: torch.Tensor, experts: torch.Tensor) -> torch.Tensor:
    """Columns in the order of the experts' numbers: a kernel may choose in any order."""
    return tensor.gather(1, experts.long().argsort(dim=1))


def error_of(got: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """The largest difference, relative to the largest number. What is masked must be so in both."""
    masked = right <= MASKED
    assert got[masked].isneginf().all()
    got, right = (one.double().masked_fill(masked, 0) for one in (got, right))
    return (got - right).abs().max() / right.abs().max().clamp(min=1e-9)


def compare(family: str, tokens: list[int], parts: list[Any], folder: Path) -> None:
    """Holds one request's tensors against the same weights in Transformers."""
    wanted = truth(family, tokens[:-1], folder)
    experts = {(one.layer, one.tokens): one.torch() for one in parts if one.hook == "topk_ids"}
    covered: dict[str, int] = defaultdict(int)
    for one in parts:
        got, right = one.torch(), expected(wanted, one.hook, one.layer, *one.tokens)
        if one.hook in ("topk_ids", "topk_weights"):
            own = expected(wanted, "topk_ids", one.layer, *one.tokens)
            got = by_expert(got, experts[one.layer, one.tokens])
            right = by_expert(right, own)
        assert error_of(got, right) <= TOLERANCE, (one.hook, one.layer, one.tokens)
        covered[one.hook] += one.tokens[1] - one.tokens[0]
    assert set(covered) == HOOKS[family]
    assert covered["resid_pre"] == LAYERS * (len(tokens) - 1)


def compare_all(family: str, answers: list[list[int]], records: Any, parts: list[Any], folder: Path) -> None:
    """The same of every request that has an answer."""
    assert not records.gaps and len(records.requests) == len(answers) + 1 == len(records.ends)
    requests = sorted(records.requests, key=lambda one: one["key"])
    for request, tokens in zip(requests, answers):
        compare(family, tokens, [one for one in parts if one.key == request["key"]], folder)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_row_of_every_hook_is_what_transformers_computes(
    served: dict[str, Family], family: str, tmp_path: Path
) -> None:
    answers, (records,), _ = served[family]
    assert records.models[0]["computed"] == ["attn_scores", "pattern"]
    compare_all(family, answers, records, records.tensors, tmp_path)


def joined(first: Any, second: Any) -> list[Any]:
    """Tensors of a model on two ranks, whole."""
    parallel = Parallel(2, tiny_models.KEY_HEADS, frozenset())
    shards = {(one.key, one.hook, one.layer, one.tokens): one for one in second.tensors}
    whole = []
    for one in first.tensors:
        if shard_ranks(one.hook, parallel, {}) is None:
            whole.append(one)
            continue
        kind, other = HOOKS_BY_NAME[one.hook], shards.pop((one.key, one.hook, one.layer, one.tokens))
        heads = [axis for axis, name in enumerate(kind.dims) if name in ("heads", "kv_heads")]
        parts = [(part.numpy(), [part.tokens]) for part in (one, other)]
        values, held = join_shards(parts, kind.shape, heads[0] if heads else None)
        assert held == [one.tokens]
        data = numpy.ascontiguousarray(values).tobytes()
        whole.append(one._replace(shape=values.shape, data=data))
    assert shards == {}  # the second rank has shards alone
    return whole


def test_the_shards_of_two_ranks_are_the_tensors_of_the_whole_model(
    served: dict[str, Family], tmp_path: Path
) -> None:
    answers, (first, second), ranks = served[SHARED]
    assert answers == served["qwen2"].answers
    assert ranks == [{(0, 0, 0, 0)}, {(1, 0, 0, 0)}]  # by tensor, pipeline, data and experts
    names = [[one["request_id"] for one in records.requests] for records in (first, second)]
    assert names[0] == names[1] and not second.gaps
    for rank, records in enumerate((first, second)):
        (model,) = records.models
        assert model["ranks"] == {"tp": rank, "pp": 0, "dp": 0, "ep": 0}
        assert model["world"] == {"tp": 2, "pp": 1, "dp": 1, "ep": 1}
    compare_all("qwen2", answers, first, joined(first, second), tmp_path)


@pytest.mark.parametrize("family", [FAMILIES[0], SHARED])
def test_every_worker_knows_which_request_was_aborted(served: dict[str, Family], family: str) -> None:
    for records in served[family].records:
        *others, last = sorted(records.ends, key=lambda one: one["key"])
        assert [one["outcome"] for one in others] == ["ok"] * len(others)
        assert last["outcome"] == "aborted"
        (request,) = [one for one in records.requests if one["key"] == last["key"]]
        assert request["request_id"].startswith("left")
