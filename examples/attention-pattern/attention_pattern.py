"""Prints where each token of a prompt looks, for one head of a model.

The tensors take the usual way: shared memory, a running exporter, Parquet, back by the trace id.
"""

import argparse
import json
import os
import secrets
import sys
import time

import ring2
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

SHADES = " ░▒▓█"
TEXT_WIDTH = 14


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("prompt", nargs="?", default="The cat sat on the mat because the cat was")
    parser.add_argument("--layer", type=int, default=-1, help="from 0, or from the end with -1")
    parser.add_argument("--head", type=int, default=0)
    parser.add_argument("--url", default=os.environ.get("RING2_URL", "http://127.0.0.1:9464"))
    parser.add_argument("--directory", default=os.environ.get("RING2_SEGMENTS_DIRECTORY"))
    parser.add_argument("--model", default=os.environ.get(
        "RING2_MODEL_DIR", "HuggingFaceTB/SmolLM2-135M-Instruct"))
    parser.add_argument("--wait", type=float, default=60, help="seconds for the exporter")
    parser.add_argument("--json", action="store_true", help="one JSON document and nothing else")
    return parser.parse_args()


def read(options: argparse.Namespace) -> tuple[str, list[str], int]:
    """Lets the model read the prompt with ring2 attached: trace id, tokens' texts, the layer."""
    tokenizer = AutoTokenizer.from_pretrained(options.model)
    model = AutoModelForCausalLM.from_pretrained(options.model).eval()
    prompt = tokenizer(options.prompt, return_tensors="pt")
    layer = options.layer % model.config.num_hidden_layers
    trace_id = secrets.token_hex(16)
    with (
        ring2.attach(model, f"pattern[{layer}],token_ids", directory=options.directory),
        ring2.request("attention-pattern",
                      traceparent=f"00-{trace_id}-{secrets.token_hex(8)}-01"),
        torch.no_grad(),
    ):
        model(**prompt)
    return trace_id, [tokenizer.decode([token]) for token in prompt["input_ids"][0]], layer


def fetch(options: argparse.Namespace, trace_id: str) -> ring2.Trace:
    """The trace, once the exporter has all of it; else the program ends and says why."""
    print(f"waiting at most {options.wait:g} s until {options.url} has trace {trace_id} …",
          file=sys.stderr)
    until = time.monotonic() + options.wait
    while True:
        try:
            trace = ring2.open(options.url).trace(trace_id)
            if trace.complete:
                return trace
            states = ", ".join(request["completeness"] for request in trace.requests)
            why = f"it is there, but {states}: look for losses with `npx ring2-exporter rings`"
        except ring2.Ring2Error as error:
            if error.code != "RING2_E_TRACE_UNKNOWN":
                raise SystemExit(str(error)) from None
            why = ("the exporter has nothing of it: run `npx ring2-exporter run` on this machine, as "
                   "this user, with the same RING2_SEGMENTS_DIRECTORY")
        if time.monotonic() > until:
            raise SystemExit(f"trace {trace_id} is not complete after {options.wait:g} s; {why}")
        time.sleep(0.2)


def main() -> None:
    options = parse()
    torch.set_num_threads(1)
    trace_id, texts, layer = read(options)
    head = fetch(options, trace_id).tensor("pattern", layer=layer, heads=str(options.head))
    pattern = head.numpy()[0]  # [queries, keys]
    if options.json:
        json.dump({"trace_id": trace_id, "layer": layer, "head": options.head, "tokens": texts,
                   "pattern": pattern.tolist()}, sys.stdout)
        return
    print(f"layer {layer}, head {options.head}: row = a token, column = what it looks at")
    for position, (text, row) in enumerate(zip(texts, pattern, strict=True)):
        cells = "".join(SHADES[min(int(mass * len(SHADES)), len(SHADES) - 1)] * 2
                        for mass in row[: position + 1])
        print(f"{text!r:>{TEXT_WIDTH}} {cells}")
    print(f"mean mass on the first key: {pattern[1:, 0].mean():.2f}")
    print(f"{options.url}/t/{trace_id}")


if __name__ == "__main__":
    main()
