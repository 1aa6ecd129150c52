"""Prints which experts the tokens of a mixture-of-experts model were sent to, layer by layer.

Without --model it is a small Mixtral of random weights, whose routing means nothing but is real.
The tensors take the usual way: shared memory, a running exporter, Parquet, back by the trace id.
"""

import argparse
import json
import os
import secrets
import sys
import time
from typing import Any

import numpy
import ring2
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, MixtralConfig

BAR_WIDTH = 40
RANDOM = MixtralConfig(
    vocab_size=512, hidden_size=64, intermediate_size=96, num_hidden_layers=4,
    num_attention_heads=4, num_key_value_heads=2, num_local_experts=8, num_experts_per_tok=2,
)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("prompt", nargs="?", default="Which experts will these tokens be sent to?")
    parser.add_argument("--url", default=os.environ.get("RING2_URL", "http://127.0.0.1:9464"))
    parser.add_argument("--directory", default=os.environ.get("RING2_SEGMENTS_DIRECTORY"))
    parser.add_argument("--model", help="folder or name of a mixture-of-experts model")
    parser.add_argument("--tokens", type=int, default=16)
    parser.add_argument("--wait", type=float, default=60, help="seconds for the exporter")
    parser.add_argument("--json", action="store_true", help="one JSON document and nothing else")
    return parser.parse_args()


def load(options: argparse.Namespace) -> tuple[Any, torch.Tensor]:
    """The model and the ids of the prompt."""
    if options.model is not None:
        model = AutoModelForCausalLM.from_pretrained(options.model)
        ids = AutoTokenizer.from_pretrained(options.model)(options.prompt, return_tensors="pt")
        return model.eval(), ids["input_ids"]
    torch.manual_seed(0)
    # Without a tokenizer, bytes are tokens.
    return (AutoModelForCausalLM.from_config(RANDOM).eval(),
            torch.tensor([list(options.prompt.encode())]))


def generate(options: argparse.Namespace) -> str:
    """Generates with ring2 attached; returns the trace id."""
    model, ids = load(options)
    trace_id = secrets.token_hex(16)
    with (
        ring2.attach(model, "router_logits,topk_ids,topk_weights,token_ids",
                     directory=options.directory),
        ring2.request("moe-routing", traceparent=f"00-{trace_id}-{secrets.token_hex(8)}-01"),
    ):
        model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=options.tokens,
                       do_sample=False)
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


def routing(trace: ring2.Trace) -> list[dict[str, Any]]:
    """Of each sparse layer: choices per expert, and how undecided its router was (0 … 1)."""
    rows = []
    for layer in sorted({row["layer"] for row in trace.tensors(hook="topk_ids")}):
        logits = trace.tensor("router_logits", layer=layer).numpy().astype(numpy.float64)
        chosen = trace.tensor("topk_ids", layer=layer).numpy()
        p = numpy.exp(logits - logits.max(axis=-1, keepdims=True))
        p /= p.sum(axis=-1, keepdims=True)
        entropy = -(p * numpy.log(p, where=p > 0, out=numpy.zeros_like(p))).sum(axis=-1)
        rows.append({
            "layer": layer, "tokens": len(chosen),
            "load": numpy.bincount(chosen.ravel(), minlength=logits.shape[1]).tolist(),
            "entropy": float(entropy.mean() / numpy.log(logits.shape[1])),
            "top_weight": float(trace.tensor("topk_weights", layer=layer).numpy()[:, 0].mean()),
        })
    return rows


def main() -> None:
    options = parse()
    torch.set_num_threads(1)
    trace_id = generate(options)
    rows = routing(fetch(options, trace_id))
    if options.json:
        json.dump({"trace_id": trace_id, "layers": rows}, sys.stdout)
        return
    for row in rows:
        print(f"layer {row['layer']}: router entropy {row['entropy']:.2f}, "
              f"weight of the first choice {row['top_weight']:.2f}")
        for expert, count in enumerate(row["load"]):
            bar = "█" * round(BAR_WIDTH * count / max(row["load"]))
            print(f"  expert {expert:3} {count:5} {bar}")
    print(f"{options.url}/t/{trace_id}")


if __name__ == "__main__":
    main()
