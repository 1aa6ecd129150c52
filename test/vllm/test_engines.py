"""Real engines in process, eager and compiled, with every hook, against Transformers and against themselves
without the plugin."""

import importlib.metadata
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
import torch
from cut_model import LAYERS
from reference import expected, reference

from conftest import Engines, Run

# Relative to the largest number of a tensor; float32, other kernels and another order of sums.
TOLERANCE = 5e-5
SAMPLED_QUERIES = 3
HOOKS = {
    "resid_pre", "ln1", "attn_out", "resid_mid", "pattern", "q", "k", "v", "z", "ln2", "mlp_in",
    "mlp_out", "resid_final", "embed", "final_ln", "token_ids", "final_logits", "mlp_post",
}


MODES = ("eager", "compiled")


def settings(folder: Path, segment: str, **others: str) -> dict[str, str]:
    return {
        "RING2_VLLM_SEGMENT": segment, "RING2_VLLM_DIRECTORY": str(folder),
        "RING2_VLLM_HOOKS": "vllm-full,pattern", "RING2_VLLM_PAYLOAD_MB": "512",
        "RING2_VLLM_PATTERN_QUERIES": str(SAMPLED_QUERIES), **others,
    }


@pytest.fixture(scope="module")
def runs(engines: Engines, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Run, Run]]:
    """By mode: without capture, and with it. All in one process.

    Without: eager, with a ring that is full and nobody empties; compiled, first of all, where no compiler
    can have seen a tap, with hooks that are none, so that nothing is tapped.
    """
    folder = tmp_path_factory.mktemp("segments")
    compiled_bare, compiled, eager_bare, eager = engines.run(
        ("compiled", settings(folder, "none", RING2_VLLM_HOOKS="no-such-hook")),
        ("compiled", settings(folder, "compiled")),
        ("eager", settings(folder, "full", RING2_VLLM_PAYLOAD_MB="1")),
        ("eager", settings(folder, "eager")),
    )
    return {"eager": (eager_bare, eager), "compiled": (compiled_bare, compiled)}


@pytest.fixture(scope="module", params=MODES)
def mode(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def captured(runs: dict[str, tuple[Run, Run]], mode: str) -> Run:
    return runs[mode][1]


@pytest.fixture(scope="module")
def bare(runs: dict[str, tuple[Run, Run]], mode: str) -> Run:
    return runs[mode][0]


def answers(run: Run) -> dict[str, dict[str, Any]]:
    """Answer of each request by its id in the records: `n_` stands before one of several samples."""
    found: dict[str, dict[str, Any]] = {}
    for part in ("first", "again", "samples", "crowd", "watched"):
        for answer in run.result.get(part, []):
            name = answer["id"]
            if part == "samples":
                name = f"{sum(key.endswith('_' + name) for key in found)}_{name}"
            found[name] = answer
    return found


def name_of(request: dict[str, Any]) -> str:
    return request["internal_request_id"].rsplit("-", 1)[0]


def ranges(run: Run, key: int, hook: str = "resid_pre", layer: int = 0) -> list[tuple[int, int]]:
    return [
        t.tokens for t in run.records.tensors if (t.key, t.hook, t.layer) == (key, hook, layer)
    ]


def test_the_package_is_a_plugin_of_vllm() -> None:
    found = importlib.metadata.entry_points(group="vllm.general_plugins")
    assert "ring2_vllm:register" in [point.value for point in found]


def test_tokens_and_log_probabilities_are_those_of_an_engine_without_capture(
    captured: Run, bare: Run, mode: str
) -> None:
    assert (bare.records is None) == (mode == "compiled")
    for part in ("first", "again", "crowd"):
        ours = [(a["tokens"], a["logprobs"]) for a in captured.result[part]]
        assert ours == [(a["tokens"], a["logprobs"]) for a in bare.result[part]], part


def test_a_full_ring_loses_and_counts_tensors_and_nothing_else(
    captured: Run, bare: Run, mode: str
) -> None:
    assert captured.result["losses"] == [{}]
    if mode == "compiled":
        assert bare.result["losses"] == []
        return
    (losses,) = bare.result["losses"]
    # What found no room, and what belongs to steps that found none.
    assert set(losses) == {"payload_full", "step_lost"}
    kept, whole = (run.records.kinds.count("TENSOR") for run in (bare, captured))
    assert 0 < kept < whole


def test_an_eager_model_has_hooks_while_something_is_wanted_and_no_others(
    runs: dict[str, tuple[Run, Run]],
) -> None:
    before, meanwhile, after = runs["eager"][1].result["hooks"]
    # What is captured otherwise: the tokens, the logits and the patterns.
    assert before == after == 12 * LAYERS + 3
    assert meanwhile == 0


def test_every_row_of_every_hook_is_what_transformers_computes(
    captured: Run, reference_model: Any
) -> None:
    by_name = answers(captured)
    parts = defaultdict(list)
    for tensor in captured.records.tensors:
        parts[tensor.key].append(tensor)
    assert len(captured.records.requests) == len(by_name)
    for request in captured.records.requests:
        answer = by_name[name_of(request)]
        truth = reference(reference_model, answer["prompt"] + answer["tokens"][:-1])
        seen = set()
        for tensor in parts[request["key"]]:
            seen.add(tensor.hook)
            wanted = expected(truth, tensor.hook, tensor.layer, *tensor.tokens).double()
            error = (tensor.torch().double() - wanted).abs().max() / wanted.abs().max()
            assert error <= TOLERANCE, (tensor.hook, tensor.layer, tensor.tokens)
        assert seen == HOOKS


def test_a_step_holds_the_tokens_it_computed_and_no_cached_ones(captured: Run) -> None:
    keys = {name_of(r): r["key"] for r in captured.records.requests}
    long, again = captured.result["first"][0], captured.result["again"][0]
    count = len(long["prompt"])
    # A step takes 64 tokens at most, so the prompt comes in chunks.
    assert ranges(captured, keys[long["id"]])[:2] == [(0, 64), (64, count)]
    # The same prompt again is in the cache but for its last block.
    assert again["cached"] > 0
    assert ranges(captured, keys[again["id"]])[0] == (again["cached"], count)


def test_a_preempted_request_says_what_was_computed_again(captured: Run) -> None:
    assert captured.result["preemptions"] > 0
    repeated = 0
    for request in captured.records.requests:
        steps = ranges(captured, request["key"])
        repeated += sum(after[0] < before[1] for before, after in zip(steps, steps[1:]))
        covered = set()
        for start, end in steps:
            covered |= set(range(start, end))
        answer = answers(captured)[name_of(request)]
        total = len(answer["prompt"]) + len(answer["tokens"]) - 1
        assert covered == set(range(min(covered), total))
    assert repeated > 0


def test_every_request_ends_with_its_counts_and_says_who_it_is(captured: Run) -> None:
    ends = {end["key"]: end for end in captured.records.ends}
    assert len(ends) == len(captured.records.ends) == len(captured.records.requests)
    for request in captured.records.requests:
        answer, end = answers(captured)[name_of(request)], ends[request["key"]]
        assert end["prompt_tokens"] == len(answer["prompt"])
        assert end["tokens"] == len(answer["prompt"]) + len(answer["tokens"]) - 1
        assert end["steps"] == len(ranges(captured, request["key"]))
        # Of the last ones too, which no step has told the worker of.
        assert end["outcome"] == "ok"
        # LLM numbers its requests from 0 in every process: vLLM's own id is the unique one.
        assert request["request_id"] == request["internal_request_id"]
        assert request["attributes"]["gen_ai.request.max_tokens"] > 0
    first = captured.records.requests[0]
    assert first["attributes"]["route"] == "/test"


def test_logits_are_one_row_per_request_and_step_and_patterns_the_last_queries(
    captured: Run,
) -> None:
    for request in captured.records.requests:
        steps = ranges(captured, request["key"])
        last = [(end - 1, end) for _, end in steps]
        assert ranges(captured, request["key"], "final_logits", -1) == last
        sampled = [(max(start, end - SAMPLED_QUERIES), end) for start, end in steps]
        assert ranges(captured, request["key"], "pattern", 0) == sampled
    assert not captured.records.gaps


def test_the_model_record_names_the_engine_and_what_is_computed(captured: Run) -> None:
    (model,) = captured.records.models
    assert (model["engine"], model["engine_version"]) == ("vllm", "0.32.0")
    assert model["computed"] == ["pattern"]
    assert set(model["hooks"]) == HOOKS
    assert torch.tensor(model["hooks"]["pattern"]).tolist() == list(range(model["layers"]))
