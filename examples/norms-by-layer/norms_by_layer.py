"""Prints how long the residual stream is before each layer, for one answer of a model.

The tensors take the usual way: shared memory, a running exporter, Parquet, back by the trace id.
"""

import argparse
import json
import os
import secrets
import sys
import time

import numpy
import ring2
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

BAR_WIDTH = 50


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("prompt", nargs="?", default="Name three colors of the rainbow.")
    parser.add_argument("--url", default=os.environ.get("RING2_URL", "http://127.0.0.1:9464"))
    parser.add_argument("--directory", default=os.environ.get("RING2_SEGMENTS_DIRECTORY"))
    parser.add_argument("--model", default=os.environ.get(
        "RING2_MODEL_DIR", "HuggingFaceTB/SmolLM2-135M-Instruct"))
    parser.add_argument("--tokens", type=int, default=16)
    parser.add_argument("--wait", type=float, default=60, help="seconds for the exporter")
    parser.add_argument("--json", action="store_true", help="one JSON document and nothing else")
    return parser.parse_args()


def answer(options: argparse.Namespace) -> str:
    """Lets the model answer with ring2 attached; returns the trace id."""
    tokenizer = AutoTokenizer.from_pretrained(options.model)
    model = AutoModelForCausalLM.from_pretrained(options.model).eval()
    question = tokenizer.apply_chat_template(
        [{"role": "user", "content": options.prompt}],
        add_generation_prompt=True, return_tensors="pt", return_dict=True,
    )
    trace_id = secrets.token_hex(16)
    with (
        ring2.attach(model, "resid_pre,resid_final,token_ids", directory=options.directory),
        ring2.request("norms-by-layer",
                      traceparent=f"00-{trace_id}-{secrets.token_hex(8)}-01"),
    ):
        model.generate(**question, max_new_tokens=options.tokens, do_sample=False)
    return trace_id


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


def norms(trace: ring2.Trace) -> list[dict[str, object]]:
    """Of each layer: L2 norms of the tokens that enter it; the first token is an outlier."""
    rows = []
    layers = sorted({row["layer"] for row in trace.tensors(hook="resid_pre")})
    for name, tensor in [
        *((str(layer), trace.tensor("resid_pre", layer=layer)) for layer in layers),
        ("end", trace.tensor("resid_final")),
    ]:
        lengths = numpy.linalg.norm(tensor.numpy().astype(numpy.float64), axis=-1)
        rows.append({"layer": name, "first": lengths[0], "median": float(numpy.median(lengths[1:])),
                     "tokens": len(lengths)})
    return rows


def main() -> None:
    options = parse()
    torch.set_num_threads(1)
    trace_id = answer(options)
    rows = norms(fetch(options, trace_id))
    if options.json:
        json.dump({"trace_id": trace_id, "layers": rows}, sys.stdout)
        return
    longest = max(row["median"] for row in rows)
    print(f"{'layer':>5} {'median':>9} {'first':>9}")
    for row in rows:
        bar = "█" * round(BAR_WIDTH * row["median"] / longest)
        print(f"{row['layer']:>5} {row['median']:9.1f} {row['first']:9.1f} {bar}")
    print(f"{options.url}/t/{trace_id}")


if __name__ == "__main__":
    main()
