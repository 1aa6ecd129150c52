"""Runs a model on two prompts and writes what DMI would store of it: rows.json and a file per row.

The tensors are the model's own (hidden states, attention weights, logits), taken without ring2.
"""

import json
import pathlib
import sys

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

MODEL_ID = "dmi-hf"
PROMPTS = {
    "4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7": "The capital of France is",
    "group:1": "Water boils at",
}
NEW_TOKENS = 3
NAMES = {torch.float32: "torch.float", torch.bfloat16: "torch.bfloat16", torch.int64: "torch.long"}


def main():
    folder = pathlib.Path(sys.argv[1])
    tokenizer = AutoTokenizer.from_pretrained(sys.argv[2])
    model = AutoModelForCausalLM.from_pretrained(
        sys.argv[2], dtype=torch.bfloat16, attn_implementation="eager"
    )
    model.eval()
    rows = []

    def row(request, act, layer, start, end, tensor):
        tensor = tensor.detach().contiguous()
        name = f"{len(rows)}.bin"
        (folder / name).write_bytes(tensor.view(torch.uint8).numpy().tobytes())
        shape = list(tensor.shape)
        rows.append([MODEL_ID, request, act, layer, 0, start, end, NAMES[tensor.dtype], shape, name])

    for request, prompt in PROMPTS.items():
        tokens = tokenizer(prompt, return_tensors="pt").input_ids
        cache, start = None, 0
        for _ in range(1 + NEW_TOKENS):
            with torch.no_grad():
                out = model(
                    tokens, past_key_values=cache, use_cache=True, output_hidden_states=True,
                    output_attentions=True, logits_to_keep=1,
                )
            end = start + tokens.shape[1]
            row(request, "token_ids", -1, start, end, tokens[0])
            for layer, hidden in enumerate(out.hidden_states[:-1]):
                row(request, "blocks.hook_resid_pre", layer, start, end, hidden[0])
            for layer in (0, len(out.attentions) - 1):
                row(request, "blocks.attn.hook_pattern", layer, start, end, out.attentions[layer][0])
            row(request, "final_logits", -1, end - 1, end, out.logits[0])
            tokens = out.logits[:, -1:].argmax(-1)
            cache, start = out.past_key_values, end
    (folder / "rows.json").write_text(json.dumps(rows))
    print(json.dumps({"rows": len(rows)}))


if __name__ == "__main__":
    main()
