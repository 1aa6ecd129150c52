"""Compares what an exporter kept of requests to a vLLM server with what Transformers computes.

    python compare.py EXPORTER MODEL ANSWER_TOKENS TRACE …

Prints, for each trace, its request ids, the tensors that were compared, the largest relative error, the
first token position that was computed, and the token ids. A trace of which vLLM had the first tokens in
its prefix cache must follow the one that put them there, which is the first.
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
    exporter, folder, answer_tokens, *traces = sys.argv[1:]
    model = AutoModelForCausalLM.from_pretrained(
        folder, attn_implementation="eager", dtype=torch.float32
    ).eval()
    source = ring2.open(exporter)
    first: list[int] = []
    answers = []
    for trace_id in traces:
        trace = source.trace(trace_id)
        fetched = {(one.hook, one.layer): one for one in trace}
        token_ids = fetched["token_ids", -1]
        start = token_ids.tokens[0][0]
        whole = first[:start] + token_ids.torch().tolist()
        first = first or whole
        truth = reference(model, whole)
        worst = 0.0
        for (hook, layer), one in fetched.items():
            tensor, wanted = one.torch(), truth[hook, layer]
            positions = [at for begin, end in one.tokens for at in range(begin, end)]
            if hook == "final_logits":
                # Every chunk of a prompt has a row, too; the last rows are those of the answer.
                rows = int(answer_tokens)
                tensor, wanted = tensor[-rows:], wanted[-rows:]
            elif hook == "pattern":
                wanted = wanted[:, positions]
            else:
                wanted = wanted[positions]
            assert tensor.shape == wanted.shape, (hook, layer, tensor.shape, wanted.shape)
            error = (tensor.double() - wanted.double()).abs().max() / wanted.double().abs().max()
            worst = max(worst, float(error))
        answers.append({
            "requests": [one["request_id"] for one in trace.requests],
            "tensors": sorted({hook for hook, _ in fetched}), "compared": len(fetched),
            "worst": worst, "start": start, "ids": whole,
        })
    print(json.dumps(answers))


if __name__ == "__main__":
    main()
