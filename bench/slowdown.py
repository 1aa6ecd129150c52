"""How much slower a model runs while its hidden states of all layers are captured.

    python bench/slowdown.py --model FOLDER [--rounds 12] [--steps 100] [--prefill 256]

Four ways, on copies of the modules over the same weights, one after the other in every round and in
another order each time: nothing, ring2, forward hooks that clone, and
output_hidden_states=True. The ring is drained between rounds, as an exporter on another core would.
Times are CPU time of this process (torch runs one thread), so that a busy machine adds less noise.
Prints one JSON document {"results": [{name, unit, ours, peers, ratios}]}; progress goes to stderr.
"""

import argparse
import copy
import gc
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import ring2  # noqa: E402
import torch  # noqa: E402
from ring_drain import Drain  # noqa: E402
from transformers import AutoModelForCausalLM, DynamicCache  # noqa: E402

PAYLOAD_MIB = 64  # small enough that the warm-up touches every page of it
WARM_UP_ROUNDS = 4
COLLECT_EVERY = 8  # rounds between garbage collections, which are kept out of the timing
PROMPT_TOKENS = 16

Run = Callable[..., None]


def twin(model: Any) -> Any:
    """The same weights under modules of their own, so that hooks are not shared."""
    weights = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    return copy.deepcopy(model, weights)


def prefill(model: Any, ids: torch.Tensor, **options: Any) -> None:
    model(input_ids=ids, past_key_values=DynamicCache(config=model.config), logits_to_keep=1,
          **options)


class Decoder:
    """Greedy decoding, one step per call, with a cache for each model that is asked."""

    def __init__(self, ids: torch.Tensor) -> None:
        self._ids = ids
        self._caches: dict[str, DynamicCache] = {}
        self._tokens: dict[str, torch.Tensor] = {}

    def begin(self, name: str, model: Any) -> None:
        """Fills the cache; not part of what is timed."""
        self._caches[name] = DynamicCache(config=model.config)
        out = model(input_ids=self._ids, past_key_values=self._caches[name], logits_to_keep=1)
        self._tokens[name] = out.logits[:, -1:].argmax(-1)

    def step(self, model: Any, name: str, **options: Any) -> None:
        token = self._tokens[name]
        out = model(input_ids=token, past_key_values=self._caches[name], **options)
        self._tokens[name] = out.logits[:, -1:].argmax(-1)


class Ways:
    """The four ways to run the model."""

    def __init__(self, folder: str) -> None:
        plain = AutoModelForCausalLM.from_pretrained(folder).eval()
        cloning, captured = twin(plain), twin(plain)
        self.kept: list[torch.Tensor] = []
        for block in cloning.model.layers:
            block.register_forward_pre_hook(lambda _m, args: self.kept.append(args[0].clone()))
        self.probe = ring2.attach(
            captured, "resid_pre", segment=f"slowdown-{os.getpid()}", payload_mb=PAYLOAD_MIB
        )
        self.drain = Drain(self.probe.path)
        self.models: dict[str, tuple[Any, dict[str, Any]]] = {
            "no capture": (plain, {}),
            "ring2": (captured, {}),
            "forward hooks that clone": (cloning, {}),
            "output_hidden_states=True": (plain, {"output_hidden_states": True}),
        }

    def time(self, name: str, run: Run, *arguments: Any) -> float:
        """CPU seconds of one run."""
        model, options = self.models[name]
        with ring2.request(f"bench-{name.split()[0]}"):
            start = time.process_time()
            run(model, *arguments, **options)
            spent = time.process_time() - start
        self.kept.clear()
        self.drain()
        return spent


def measure(ways: Ways, rounds: int, run: Callable[[str], float]) -> dict[str, list[float]]:
    """CPU seconds of every way in every round, each round in another order."""
    names = list(ways.models)
    times: dict[str, list[float]] = {name: [] for name in names}
    gc.collect()
    gc.disable()
    for index in range(WARM_UP_ROUNDS + rounds):
        order = names[index % len(names) :] + names[: index % len(names)]
        spent = {name: run(name) for name in order}
        if index % COLLECT_EVERY == 0:
            gc.collect()
        if index >= WARM_UP_ROUNDS:
            for name in names:
                times[name].append(spent[name])
    gc.enable()
    if ways.probe.losses():
        raise SystemExit(f"expected no losses in the benchmark, got {ways.probe.losses()}")
    return times


def result(label: str, times: dict[str, list[float]]) -> dict[str, Any]:
    """Medians, and ratios taken within a round."""
    ours = times["ring2"]
    peers = {name: values for name, values in times.items() if name != "ring2"}
    ratios = []
    for name, values in peers.items():
        pairs = sorted(a / b for a, b in zip(ours, values, strict=True))
        ratios.append({
            "vs": name, "median": statistics.median(pairs), "min": pairs[0], "max": pairs[-1],
            "pairs": len(pairs),
        })
    return {
        "name": f"model slowdown, hidden states of all layers, {label}", "unit": "s",
        "ours": statistics.median(ours),
        "peers": {name: statistics.median(values) for name, values in peers.items()},
        "ratios": ratios, "budget": 1.02,
    }


def measure_decode(ways: Ways, steps: int) -> dict[str, list[float]]:
    decoder = Decoder(torch.randint(3, 1000, (1, PROMPT_TOKENS)))
    for name, (model, _) in ways.models.items():
        decoder.begin(name, model)
    ways.kept.clear()
    ways.drain()
    return measure(ways, steps, lambda name: ways.time(name, decoder.step, name))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    parser.add_argument("--rounds", type=int, default=12, help="prefills of each way")
    parser.add_argument("--steps", type=int, default=100, help="decode steps of each way")
    parser.add_argument("--prefill", type=int, default=256, help="tokens per prefill")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    ways = Ways(arguments.model)
    ids = torch.randint(3, 1000, (1, arguments.prefill))
    with torch.no_grad():
        print(f"slowdown: {arguments.rounds} rounds of prefill", file=sys.stderr)
        prefills = measure(ways, arguments.rounds, lambda name: ways.time(name, prefill, ids))
        print(f"slowdown: {arguments.steps} rounds of one decode step", file=sys.stderr)
        decodes = measure_decode(ways, arguments.steps)
    ways.probe.detach()
    ways.drain.close()
    results = [
        result(f"prefill of {arguments.prefill} tokens", prefills),
        result("decode step", decodes),
    ]
    print(json.dumps({"results": results}))


if __name__ == "__main__":
    main()
