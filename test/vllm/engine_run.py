"""One vLLM engine in this process, for tests: serves a fixed load and prints what came out as JSON.

    python engine_run.py MODEL eager|compiled

Greedy requests with log probabilities: prompts longer than a step's tokens (chunked prefill), one
prompt again (prefix cache), samples of one prompt, and more tokens than the cache holds (preemption).
"""

import json
import os
import sys

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


def main() -> None:
    from ring2 import _producer
    from vllm import LLM, SamplingParams

    folder, mode = sys.argv[1:3]
    llm = LLM(
        folder, dtype="float32", enforce_eager=mode == "eager", max_model_len=256, seed=0,
        max_num_batched_tokens=64, max_num_seqs=8, block_size=32, num_gpu_blocks_override=10,
        disable_log_stats=False,
    )
    greedy = SamplingParams(
        temperature=0, max_tokens=4, logprobs=1, ignore_eos=True,
        extra_args={"ring2": {"attributes": {"route": "/test"}}},
    )
    result = {"first": answers(llm.generate(PROMPTS, greedy, use_tqdm=False))}
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
    result["losses"] = [producer.losses() for producer in _producer._live]
    print("RESULT " + json.dumps(result))


if __name__ == "__main__":
    main()
