"""vLLM engines in this process, one after the other, for tests: each serves a fixed load, and what came out
is printed as JSON.

    python engine_run.py MODEL '[["eager", {"RING2_VLLM_SEGMENT": "one"}], ["compiled", {}]]'

Greedy requests with log probabilities: prompts longer than a step's tokens (chunked prefill), one
prompt again (prefix cache), samples of one prompt, and more tokens than the cache holds (preemption).
"""

import gc
import json
import os
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "python"))
os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"

LONG = "Why is the sky blue on a clear summer day, and red in the evening? " * 6
PROMPTS = [LONG, "Hi", "Name three colors of the rainbow."]


def answers(outputs) -> list[dict]:
    return [
        {
            "id": output.request_id,
            "prompt": list(output.prompt_token_ids),
            "cached": output.num_cached_tokens,
            "tokens": list(completion.token_ids),
            "logprobs": [
                next(iter(step.values())).logprob for step in completion.logprobs or []
            ],
        }
        for output in outputs
        for completion in output.outputs
    ]


def hooks_of(model: Any) -> int:
    """How many forward hooks its modules have: vLLM puts none on any."""
    return sum(len(module._forward_hooks) for module in model.modules())


def watched(llm: Any, parameters: Any, segment: str) -> tuple[list[int], list[dict]]:
    """Forward hooks of the model while all is wanted, nothing, and all again; and what was answered
    while all was."""
    from ring_reader import Reader

    counts, found = [], []
    reader = Reader(segment)
    for share in (1, 0, 1):
        reader.control(share=share)
        served = answers(llm.generate(PROMPTS[2:], parameters, use_tqdm=False))
        found += served if share else []
        counts += llm.apply_model(hooks_of)
    reader.close()
    return counts, found


def serve(folder: str, mode: str) -> dict[str, Any]:
    from ring2 import _producer
    from vllm import LLM, SamplingParams

    llm = LLM(
        folder, dtype="float32", enforce_eager=mode == "eager", max_model_len=256, seed=0,
        max_num_batched_tokens=64, max_num_seqs=8, block_size=32, num_gpu_blocks_override=10,
        disable_log_stats=False,
    )
    greedy = SamplingParams(
        temperature=0, max_tokens=4, logprobs=1, ignore_eos=True,
        extra_args={"ring2": {"attributes": {"route": "/test"}}},
    )
    result: dict[str, Any] = {"first": answers(llm.generate(PROMPTS, greedy, use_tqdm=False))}
    result["again"] = answers(llm.generate(PROMPTS[:1], greedy, use_tqdm=False))
    samples = SamplingParams(temperature=0.5, n=2, max_tokens=2, ignore_eos=True, seed=7)
    result["samples"] = answers(llm.generate(PROMPTS[1:2], samples, use_tqdm=False))
    long = SamplingParams(temperature=0, max_tokens=70, ignore_eos=True)
    crowd = [f"{number}: {PROMPTS[2]}" for number in range(5)]
    result["crowd"] = answers(llm.generate(crowd, long, use_tqdm=False))
    result["preemptions"] = sum(
        metric.value for metric in llm.get_metrics() if metric.name == "vllm:num_preemptions"
    )
    # The engine and its worker are in this process.
    alive = [producer for producer in _producer._live if producer.alive]
    result["losses"] = [producer.losses() for producer in alive]
    if mode == "eager":
        result["hooks"], result["watched"] = watched(llm, greedy, alive[0].path)
    llm.llm_engine.engine_core.shutdown()
    return result


def main() -> None:
    folder, runs = sys.argv[1:3]
    results = []
    for mode, settings in json.loads(runs):
        os.environ.update(settings)
        results.append(serve(folder, mode))
        for name in settings:
            del os.environ[name]
        gc.collect()
    print("RESULT " + json.dumps(results))


if __name__ == "__main__":
    main()
