"""Captures every hook that a stock model gives, for bench/codecs.ts, and answers for its peers.

    python bench/codecs_capture.py capture MODEL DTYPE DIRECTORY SEGMENT
        runs the prompts below in one dtype (float32, float16, bfloat16), and leaves a closed segment

    python bench/codecs_capture.py peer FILE
        FILE holds float32 elements. For each line "lz4" or "zstd" on standard input: what STRAP-LLM
        does to them (to float16, then that codec at its level) and answers with one line, the GB/s
        of float32 and the ratio to them
"""

import os
import sys
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

PROMPTS = (
    "List the planets of the solar system with one fact about each of them, and say which of them "
    "have rings, which have moons, and which could be seen by people without a telescope.",
    "Write a short story about a lighthouse keeper who finds a letter in a bottle. The letter is "
    "from her own grandmother, and it is dated tomorrow.",
    "def quicksort(items):\n    if len(items) <= 1:\n        return items\n    pivot = items[0]\n"
    "    left = [x for x in items[1:] if x < pivot]\n    right = [x for x in items[1:] if x >= pivot]\n"
    "    return quicksort(left) + [pivot] + quicksort(right)\n# What is wrong with this function?",
    "Übersetze ins Deutsche: The committee will meet on 14 March at 09:30 in room 207, unless the "
    "chair, Dr. O'Neill, postpones it. 3.14159 is not 22/7; 1,000,000 is 10^6.",
)
REPEATS = 2  # of each prompt's text, so that a prefill has some 100 tokens
NEW_TOKENS = 6
LAYERS = "::12"  # three of thirty: the first, a middle and a late one
LEVELS = {"lz4": None, "zstd": 3}


def capture(folder: str, dtype: str, directory: str, segment: str) -> None:
    import ring2
    import torch
    from tokenizers import Tokenizer
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(1)
    tokenizer = Tokenizer.from_file(os.path.join(folder, "tokenizer.json"))
    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=getattr(torch, dtype), attn_implementation="eager"
    ).eval()
    probe = ring2.attach(
        model, "full", layers=LAYERS, segment=segment, directory=directory, payload_mb=512
    )
    for number, prompt in enumerate(PROMPTS):
        ids = torch.tensor([tokenizer.encode(" ".join([prompt] * REPEATS)).ids])
        with ring2.request(f"prompt-{number}"), torch.inference_mode():
            model.generate(
                ids, attention_mask=torch.ones_like(ids), max_new_tokens=NEW_TOKENS, do_sample=False,
                pad_token_id=0,
            )
    probe.detach()


def peer(path: str) -> None:
    import numpy
    import pyarrow

    values = numpy.fromfile(path, dtype=numpy.float32)
    for line in sys.stdin:
        name = line.strip()
        level = LEVELS[name]
        codec = pyarrow.Codec(name) if level is None else pyarrow.Codec(name, level)
        start = time.perf_counter()
        with numpy.errstate(over="ignore"):
            packed = codec.compress(values.astype(numpy.float16).tobytes(), asbytes=True)
        taken = time.perf_counter() - start
        print(values.nbytes / taken / 1e9, values.nbytes / len(packed), flush=True)


if __name__ == "__main__":
    {"capture": capture, "peer": peer}[sys.argv[1]](*sys.argv[2:])
