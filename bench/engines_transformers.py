"""How much slower a stock Transformers model runs while it is captured, and while others capture it.

    python bench/engines_transformers.py --model FOLDER [--rounds 12] [--steps 100] [--prefill 256]

Every way runs on modules of its own over the same weights, each beside a pass without capture that
comes before it in one round and behind it in the next. A ratio to no capture is that pair's; one to
another way is of the two ways' ratios in a round. Ours: nothing wanted, the hidden states of all
layers, everything but attention matrices, everything. Others, each with the hidden states of all
layers: output_hidden_states, forward hooks that clone, and the packages of requirements-peers.txt.
Times are CPU time of the thread that runs the model (torch has one), so that
a busy machine adds less noise and what a package does in threads of its own is not held against it.
The rings are drained between rounds, as an exporter on another core would. Prints one JSON document
{"results": [{name, unit, ours, peers, ratios}]}; progress goes to stderr.
"""

import argparse
import copy
import gc
import json
import mmap
import os
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import ring2  # noqa: E402
import torch  # noqa: E402
from peers import PEERS  # noqa: E402
from ring_drain import Drain  # noqa: E402
from transformers import AutoModelForCausalLM, DynamicCache  # noqa: E402

WARM_UP_ROUNDS = 3
COLLECT_EVERY = 8  # rounds between garbage collections, which are kept out of the timing
PROMPT_TOKENS = 16
HIDDEN = "ring2, hidden states"
NONE = "no capture"
# Name of a way → (selection, MiB of payload for one token, MiB for a prefill, budget against none).
SELECTIONS = {
    "ring2, nothing wanted": ("full", 16, 16, 1.01),
    HIDDEN: ("resid_pre", 16, 64, 1.02),
    "ring2, everything but attention matrices": ("vllm-full", 32, 512, 1.05),
    "ring2, everything": ("full", 32, 1024, 1.05),
}

Forward = Callable[..., Any]


def twin(model: Any) -> Any:
    """The same weights under modules of their own, so that hooks are not shared."""
    weights = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    return copy.deepcopy(model, weights)


def populate(path: str) -> None:
    """Gives the segment its pages now, so that no timed copy meets a fresh one."""
    with open(path, "r+b") as file:
        size = os.fstat(file.fileno()).st_size
        with mmap.mmap(file.fileno(), size) as view:
            for offset in range(0, size, mmap.PAGESIZE):
                view[offset] = view[offset]


class Captured:
    """A twin with ring2 attached, and the consumer of its segment."""

    def __init__(self, model: Any, name: str, selection: str, payload_mib: int) -> None:
        self.model = twin(model)
        plain = "".join(letter if letter.isalnum() else "-" for letter in name)
        self.probe = ring2.attach(
            self.model, selection, segment=f"{plain}-{os.getpid()}", payload_mb=payload_mib
        )
        populate(self.probe.path)
        self.drain = Drain(self.probe.path)
        if name.endswith("nothing wanted"):
            self.drain.want_nothing()

    def close(self) -> None:
        losses = self.probe.losses()
        self.probe.detach()
        self.drain.close()
        if losses:
            raise SystemExit(f"expected no losses in the benchmark, got {losses}")


class Ways:
    """All ways to run one model: name → a function that runs a forward pass, captured."""

    def __init__(self, folder: str, prefill: bool) -> None:
        plain = AutoModelForCausalLM.from_pretrained(folder).eval()
        self.config = plain.config
        self._captured: list[Captured] = []
        self._contexts: list[Any] = []
        self.forwards: dict[str, Forward] = {}
        for name, (selection, one, many, _) in SELECTIONS.items():
            captured = Captured(plain, name, selection, many if prefill else one)
            self._captured.append(captured)
            self.forwards[name] = captured.model
        for name, make in PEERS.items():
            self._contexts.append(make(twin(plain), folder))
            self.forwards[name] = self._contexts[-1].__enter__()
        # As seldom run as the way itself, so that caches are as cold for both.
        for name in list(self.forwards):
            self.forwards[beside(name)] = twin(plain)

    def drain(self) -> None:
        for captured in self._captured:
            captured.drain()

    def close(self) -> None:
        for context in self._contexts:
            context.__exit__(None, None, None)
        for captured in self._captured:
            captured.close()


def beside(name: str) -> str:
    """The pass without capture that a way is compared with."""
    return f"{NONE}, beside {name}"


class Times(NamedTuple):
    """CPU seconds of one way in every round, and of the passes without capture beside them."""

    own: list[float]
    alone: list[float]

    def ratios(self) -> list[float]:
        return [own / alone for own, alone in zip(self.own, self.alone, strict=True)]


def measure(ways: Ways, rounds: int, run: Callable[[str], float]) -> dict[str, Times]:
    """Every way in every round, each round in another order, with a pass without capture beside it."""
    names = [name for name in ways.forwards if beside(name) in ways.forwards]
    times = {name: Times([], []) for name in names}
    gc.collect()
    gc.disable()
    for index in range(WARM_UP_ROUNDS + rounds):
        first = index % len(names)
        for name in names[first:] + names[:first]:
            pair = (beside(name), name) if index % 2 else (name, beside(name))
            spent = {one: run(one) for one in pair}
            if index >= WARM_UP_ROUNDS:
                times[name].own.append(spent[name])
                times[name].alone.append(spent[beside(name)])
        if index % COLLECT_EVERY == 0:
            gc.collect()
    gc.enable()
    return times


def measure_prefill(ways: Ways, tokens: int, rounds: int) -> dict[str, Times]:
    ids = torch.randint(3, 1000, (1, tokens))

    def run(name: str) -> float:
        cache = DynamicCache(config=ways.config)
        with ring2.request("benchmark"):
            start = time.thread_time()
            ways.forwards[name](input_ids=ids, past_key_values=cache, logits_to_keep=1)
            spent = time.thread_time() - start
        ways.drain()
        return spent

    return measure(ways, rounds, run)


def measure_decode(ways: Ways, steps: int) -> dict[str, Times]:
    ids = torch.randint(3, 1000, (1, PROMPT_TOKENS))
    caches = {name: DynamicCache(config=ways.config) for name in ways.forwards}
    for name, forward in ways.forwards.items():
        forward(input_ids=ids, past_key_values=caches[name], logits_to_keep=1)
    token = ids[:, :1]

    def run(name: str) -> float:
        with ring2.request("benchmark"):
            start = time.thread_time()
            ways.forwards[name](input_ids=token, past_key_values=caches[name])
            spent = time.thread_time() - start
        caches[name].crop(PROMPT_TOKENS)  # every step of every way sees as many keys
        ways.drain()
        return spent

    return measure(ways, steps, run)


def ratio(name: str, pairs: list[float]) -> dict[str, Any]:
    return {"vs": name, "median": statistics.median(pairs), "min": min(pairs), "max": max(pairs),
            "pairs": len(pairs)}


def results(label: str, times: dict[str, Times]) -> list[dict[str, Any]]:
    """Each of our ways against no capture, and our hidden states against everybody's."""
    found = []
    for name, (_, _, _, budget) in SELECTIONS.items():
        ours = times[name]
        peers = {NONE: statistics.median(ours.alone)}
        ratios = [ratio(NONE, ours.ratios())]
        for other in times if name == HIDDEN else ():
            if other not in SELECTIONS:
                theirs = times[other]
                pairs = zip(ours.ratios(), theirs.ratios(), strict=True)
                peers[other] = statistics.median(theirs.own)
                ratios.append(ratio(other, [one / another for one, another in pairs]))
        found.append({
            "name": f"Transformers, {label}: {name.removeprefix('ring2, ')}", "unit": "s",
            "ours": statistics.median(ours.own), "peers": peers, "ratios": ratios,
            "budget": budget,
        })
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    parser.add_argument("--rounds", type=int, default=12, help="prefills of each way")
    parser.add_argument("--steps", type=int, default=100, help="decode steps of each way")
    parser.add_argument("--prefill", type=int, default=256, help="tokens per prefill")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    document: list[dict[str, Any]] = []
    with torch.no_grad():
        print(f"engines: {arguments.rounds} rounds of prefill, Transformers", file=sys.stderr)
        ways = Ways(arguments.model, prefill=True)
        times = measure_prefill(ways, arguments.prefill, arguments.rounds)
        ways.close()
        document += results(f"prefill of {arguments.prefill} tokens", times)
        print(f"engines: {arguments.steps} rounds of one decode step", file=sys.stderr)
        ways = Ways(arguments.model, prefill=False)
        times = measure_decode(ways, arguments.steps)
        ways.close()
        document += results("decode step", times)
    print(json.dumps({"results": document}))


if __name__ == "__main__":
    main()
