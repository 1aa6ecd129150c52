"""Compares what an exporter kept of requests to a vLLM server with what Transformers computes.

    python compare.py EXPORTER MODEL TRACE …

Prints, for each trace, its request ids, how many tensors were compared, the largest relative error, the
first token position that was computed, and the token ids.
"""

import json
import sys
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM

import ring2

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "vllm"))
from reference import reference  # noqa: E402

torch.set_num_threads(1)


def main() -> None:
    exporter, folder, *traces = sys.argv[1:]
    model = AutoModelForCausalLM.from_pretrained(
        folder, attn_implementation="eager", dtype=torch.float32
    ).eval()
    source = ring2.open(exporter)
    prompts: dict[int, list[int]] = {}
    answers = []
    for trace_id in traces:
        trace = source.trace(trace_id)
        tensors = {(one.hook, one.layer): one.torch() for one in trace if one.hook != "pattern"}
        ids = tensors["token_ids", -1].tolist()
        start = int(trace.tensor("token_ids").tokens[0])
        # A prompt from the cache begins with the tokens of the trace before it.
        whole = prompts.get(0, [])[:start] + ids
        prompts.setdefault(0, whole)
        truth = reference(model, whole)
        worst = 0.0
        for (hook, layer), tensor in tensors.items():
            rows = len(tensor) if hook == "final_logits" else len(ids)
            if hook == "final_logits":
                # The last rows are those of the answer; chunks of a prompt have one each, too.
                rows = 4
            wanted = truth[hook, layer][-rows:].double()
            error = (tensor[-rows:].double() - wanted).abs().max() / wanted.abs().max()
            worst = max(worst, float(error))
        answers.append({
            "requests": [one["request_id"] for one in trace.requests], "compared": len(tensors),
            "worst": worst, "start": start, "ids": whole, "complete": trace.complete,
        })
    print(json.dumps(answers))


if __name__ == "__main__":
    main()
