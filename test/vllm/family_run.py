"""vLLM engines in this process, one after the other, that serve small random models of the stock families.

    python family_run.py FOLDER PREFIX FAMILY[:RANKS] …

Each family's model is in FOLDER/FAMILY, what is captured goes to the segment PREFIX-FAMILY. Prints the
tokens of each family's answers as JSON. One request more, "left", is aborted before it is answered.
"""

import gc
import json
import os
import sys
from typing import Any

os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"

# The second prompt comes in chunks: a step takes 32 tokens at most.
STEPS_LATER = 3
PROMPTS = ([3, 14, 15, 92, 65], [(7 * number) % 89 + 3 for number in range(40)])


def abort_one(engine: Any, parameters: Any) -> None:
    """Has a request begin, aborts it, and goes on until the workers know."""
    engine.add_request("left", {"prompt_token_ids": list(PROMPTS[0])}, parameters)
    engine.step()
    engine.abort_request(["left"])
    for _ in range(STEPS_LATER):
        engine.step()


def serve(folder: str, ranks: int) -> list[list[int]]:
    from vllm import LLM, ModelRegistry, SamplingParams

    with open(os.path.join(folder, "config.json"), encoding="utf-8") as file:
        (architecture,) = json.load(file)["architectures"]
    # Otherwise vLLM looks at the class in a process of its own, which takes half a minute.
    found = ModelRegistry.models[architecture].load_model_cls()
    ModelRegistry.register_model(architecture, found)
    llm = LLM(
        folder, dtype="float32", enforce_eager=True, max_model_len=64, seed=0, block_size=32,
        max_num_batched_tokens=32, max_num_seqs=4, num_gpu_blocks_override=16,
        skip_tokenizer_init=True, tensor_parallel_size=ranks,
    )
    greedy = SamplingParams(temperature=0, max_tokens=3, ignore_eos=True, detokenize=False)
    prompts = [{"prompt_token_ids": list(prompt)} for prompt in PROMPTS]
    outputs = llm.generate(prompts, greedy, use_tqdm=False)
    abort_one(llm.llm_engine, SamplingParams(max_tokens=20, ignore_eos=True, detokenize=False))
    llm.llm_engine.engine_core.shutdown()
    return [[*output.prompt_token_ids, *output.outputs[0].token_ids] for output in outputs]


def main() -> None:
    folder, prefix, *families = sys.argv[1:]
    answers = {}
    for family in families:
        name, _, ranks = family.partition(":")
        os.environ["RING2_VLLM_SEGMENT"] = f"{prefix}-{name}"
        answers[family] = serve(os.path.join(folder, name), int(ranks or 1))
        gc.collect()
    print("RESULT " + json.dumps(answers))


if __name__ == "__main__":
    main()
