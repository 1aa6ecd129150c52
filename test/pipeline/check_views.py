"""Compares the explorer's answers with what the model itself held, in float64.

    python check_views.py FACTS

FACTS is a JSON file: {model, reference, prompt, tokens, alternatives: [], norms, patterns: []}, of which
the last four are answers of the API. Prints {"worst": {name: largest difference}, "wrong": [...]}.
Differences of numbers are relative to the larger of 1e-3 and the value.
"""

import json
import os
import sys

import numpy
import torch
from tokenizers import Tokenizer

worst: dict[str, float] = {}
wrong: list[str] = []


def close(name: str, got, want: float) -> None:
    if got is None or not numpy.isfinite(want):
        wrong.append(f"{name}: {got} for {want}")
        return
    difference = abs(got - want) / max(1e-3, abs(want))
    worst[name] = max(worst.get(name, 0.0), float(difference))


def same(name: str, got, want) -> None:
    if got != want:
        wrong.append(f"{name}: {got!r} for {want!r}")


def text_of(tokenizer: Tokenizer, token: int) -> str:
    """What the id decodes to; its piece where that is part of a character."""
    text = tokenizer.decode([token], skip_special_tokens=False)
    return tokenizer.id_to_token(token) if "\ufffd" in text else text


def check_tokens(facts: dict, reference, tokenizer: Tokenizer) -> None:
    ids = reference["token_ids"].tolist()
    tokens = facts["tokens"]["tokens"]
    logits = torch.from_numpy(reference["final_logits"]).double()
    same("total", facts["tokens"]["total"], len(ids))
    same("positions", [one["position"] for one in tokens], list(range(len(ids))))
    same("ids", [one["id"] for one in tokens], ids)
    texts = [text_of(tokenizer, token) for token in ids]
    same("texts", [one["text"] for one in tokens], texts)
    for one in tokens:
        row = one["position"] - facts["prompt"]
        same("phase", one["phase"], "decode" if row >= 0 else "prefill")
        same("has_alternatives", one["has_alternatives"], row >= 0)
        if row < 0:
            same("prefill", [one["entropy"], one["surprisal"], one["confidence"]], [None] * 3)
            continue
        log_p = torch.log_softmax(logits[row], 0)
        top = logits[row].topk(2).values
        close("entropy", one["entropy"], float(-(log_p.exp() * log_p).sum()))
        close("surprisal", one["surprisal"], float(-log_p[one["id"]]))
        close("confidence", one["confidence"], float(log_p.max().exp()))
        close("margin", one["margin"], float(top[0] - top[1]))


def check_alternatives(facts: dict, reference, tokenizer: Tokenizer) -> None:
    logits = torch.from_numpy(reference["final_logits"]).double()
    ids = reference["token_ids"].tolist()
    for answer in facts["alternatives"]:
        row = logits[answer["position"] - facts["prompt"]]
        p = torch.softmax(row, 0)
        top = p.topk(len(answer["alternatives"]))
        same("top ids", [one["id"] for one in answer["alternatives"]], top.indices.tolist())
        for one, probability in zip(answer["alternatives"], top.values.tolist()):
            close("probability", one["probability"], probability)
            close("logit", one["logit"], float(row[one["id"]]))
            same("alternative text", one["text"], text_of(tokenizer, one["id"]))
        if answer["position"] < len(ids):
            chosen = ids[answer["position"]]
            same("chosen_rank", answer["chosen_rank"], int((row > row[chosen]).sum()))
        else:
            same("chosen_rank", answer["chosen_rank"], None)


def check_norms(facts: dict, reference) -> None:
    size = facts["norms"]["tokens_per_cell"]
    for row in facts["norms"]["rows"]:
        hidden = reference[f"resid_pre.{row['layer']}"].astype(numpy.float64)
        norms = numpy.linalg.norm(hidden, axis=1)
        for cell in range(len(row["mean"])):
            part = norms[cell * size:(cell + 1) * size]
            close("norm mean", row["mean"][cell], part.mean())
            close("norm max", row["max"][cell], part.max())


def check_pattern(answer: dict, prompt: int, reference) -> None:
    whole = reference[f"pattern.{answer['layer']}"].astype(numpy.float64)
    p = whole.mean(axis=0) if answer["head"] == "mean" else whole[answer["head"]]
    (q0, q1), (k0, k1) = answer["queries"], answer["keys"]
    size, columns = answer["tokens_per_cell"], answer["columns"]
    for row in range(answer["rows"]):
        queries = range(q0 + row * size, min(q1, q0 + (row + 1) * size))
        for column in range(columns):
            keys = range(k0 + column * size, min(k1, k0 + (column + 1) * size))
            seen = [p[query, key] for query in queries for key in keys if key <= query]
            got = answer["cells"][row * columns + column]
            if seen:
                close("cell", got, max(seen))
            else:
                same("masked cell", got, None)
        decoded = [query for query in queries if query >= prompt]
        if decoded:
            mass = sum(p[query, :query + 1].sum() for query in decoded)
            back = sum(p[query, :prompt].sum() for query in decoded)
            close("lookback", answer["lookback"][row], back / mass)
        else:
            same("lookback of the prompt", answer["lookback"][row], None)
    shown = p[q0:q1]
    close("first_key", answer["sink"]["first_key"], shown[:, 0].mean())
    for column in range(columns):
        keys = slice(k0 + column * size, min(k1, k0 + (column + 1) * size))
        close("key_mass", answer["sink"]["key_mass"][column], shown[:, keys].sum(axis=1).mean())


def main() -> None:
    with open(sys.argv[1], encoding="utf-8") as file:
        facts = json.load(file)
    reference = numpy.load(facts["reference"])
    tokenizer = Tokenizer.from_file(os.path.join(facts["model"], "tokenizer.json"))
    check_tokens(facts, reference, tokenizer)
    check_alternatives(facts, reference, tokenizer)
    check_norms(facts, reference)
    for answer in facts["patterns"]:
        check_pattern(answer, facts["prompt"], reference)
    print(json.dumps({"worst": worst, "wrong": wrong}))


if __name__ == "__main__":
    main()
