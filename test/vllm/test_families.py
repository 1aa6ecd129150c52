"""The other architectures that are known, as small random models, eager and in process: every hook that
each has, against what the same weights give in Transformers."""

from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
import ring2
import tiny_models
import torch
from reference import expected

from conftest import Engines

FAMILIES = ("mistral", "qwen2", "qwen3", "gpt2", "qwen2_moe", "mixtral")
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
# Computed by the plugin for all queries of a step, whose tokens are fewer.
QUERIES = 64
EVERYWHERE = {
    "resid_pre", "ln1", "attn_out", "resid_mid", "pattern", "q", "k", "v", "z", "ln2", "mlp_in",
    "mlp_out", "resid_final", "embed", "final_ln", "token_ids", "final_logits",
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
def served(engines: Engines, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Answers and records of each family, of engines that one process runs in turn."""
    folder = tmp_path_factory.mktemp("families")
    for family in FAMILIES:
        model(family).save_pretrained(folder / family)
    return engines.run_families(folder, FAMILIES, QUERIES)


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


@pytest.mark.parametrize("family", FAMILIES)
def test_every_row_of_every_hook_is_what_transformers_computes(
    served: dict[str, Any], family: str, tmp_path: Path
) -> None:
    answers, records = served[family]
    assert not records.gaps and len(records.requests) == len(answers) == len(records.ends)
    parts = defaultdict(list)
    for tensor in records.tensors:
        parts[tensor.key].append(tensor)
    for request, tokens in zip(sorted(records.requests, key=lambda one: one["key"]), answers):
        wanted = truth(family, tokens[:-1], tmp_path)
        experts = {
            (one.layer, one.tokens): one.torch() for one in parts[request["key"]]
            if one.hook == "topk_ids"
        }
        covered = defaultdict(int)
        for one in parts[request["key"]]:
            got, right = one.torch(), expected(wanted, one.hook, one.layer, *one.tokens)
            if one.hook in ("topk_ids", "topk_weights"):
                own = expected(wanted, "topk_ids", one.layer, *one.tokens)
                got = by_expert(got, experts[one.layer, one.tokens])
                right = by_expert(right, own)
            right = right.double()
            error = (got.double() - right).abs().max() / right.abs().max().clamp(min=1e-9)
            assert error <= TOLERANCE, (one.hook, one.layer, one.tokens)
            covered[one.hook] += one.tokens[1] - one.tokens[0]
        assert set(covered) == HOOKS[family]
        assert covered["resid_pre"] == LAYERS * (len(tokens) - 1)
