"""What capturing costs vLLM per generated token, in process, in pairs against vLLM without the plugin.

    python bench/vllm_slowdown.py --model FOLDER [--rounds 12] [--tokens 32]

Three engines stand side by side: one with the plugin, which captures everything, and two without. They
answer in turn, in another order each round, and ratios are taken within a round to the first without;
the second is the control, whose ratio says how far the others can be trusted. What the plugin's engine
writes is switched between rounds by the control words, as an exporter does. A time is the CPU time of the
engine's process per token, prompt of a few tokens included, so that a busy machine adds less noise. The
ring is drained between rounds, as an exporter on another core would. Prints one JSON document
{"results": [{name, unit, ours, peers, ratios}]}; progress goes to stderr.
"""

import argparse
import json
import mmap
import os
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any

from ring_drain import HOOKS_MAX, Drain

WARM_UP_ROUNDS = 2
PAYLOAD_MIB = 256
PROMPT = "Once upon a time there was a small town by the sea"
NONE = "without the plugin"
CONTROL = "control, without the plugin too"
RESID_PRE = 0  # its number in native/hooks.json
# What is wanted of the engine with the plugin: numbers of hooks.
WANTED = {
    "nothing wanted": (),
    "hidden states": (RESID_PRE,),
    "everything": tuple(range(HOOKS_MAX)),
}


def serve(folder: str) -> None:
    """The engine's process: for each line with a number of tokens, the CPU seconds they took."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what vLLM prints is not an answer
    from vllm import LLM, SamplingParams

    llm = LLM(folder, dtype="float32", enforce_eager=True, max_model_len=512, max_num_seqs=1,
              enable_prefix_caching=False)
    print("ready", file=answers, flush=True)
    for line in sys.stdin:
        greedy = SamplingParams(temperature=0, max_tokens=int(line), ignore_eos=True)
        start = time.process_time()
        llm.generate([PROMPT], greedy, use_tqdm=False)
        print(time.process_time() - start, file=answers, flush=True)


class Engine:
    """A process that serves a model."""

    def __init__(self, folder: str, settings: dict[str, str]) -> None:
        environment = {
            **os.environ, "VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_CPU_KVCACHE_SPACE": "1",
            "VLLM_CPU_OMP_THREADS_BIND": "nobind", "VLLM_NO_USAGE_STATS": "1",
            "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", **settings,
        }
        self.process = subprocess.Popen(
            [sys.executable, __file__, "--model", folder, "--serve"], env=environment, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )

    def _line(self) -> str:
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"an engine ended with {self.process.wait()}; its log is above")
        return line

    def wait(self) -> None:
        """Until the model is loaded."""
        self._line()

    def token_seconds(self, tokens: int) -> float:
        self.process.stdin.write(f"{tokens}\n")
        self.process.stdin.flush()
        return float(self._line()) / tokens

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait()


def populate(path: str) -> None:
    """Gives the segment its pages now, so that no timed copy meets a fresh one."""
    with open(path, "r+b") as file:
        size = os.fstat(file.fileno()).st_size
        with mmap.mmap(file.fileno(), size) as view:
            for offset in range(0, size, mmap.PAGESIZE):
                view[offset] = view[offset]


def want(drain: Drain, hooks: tuple[int, ...]) -> None:
    for hook in range(HOOKS_MAX):
        drain.want(hook, hook in hooks)


def measure(
    plain: dict[str, Engine], captured: Engine, drain: Drain, rounds: int, tokens: int
) -> Any:
    """Seconds per token of every way in every round, and the slices that each way wrote."""
    names = [*plain, *WANTED]
    times: dict[str, list[float]] = {name: [] for name in names}
    written = dict.fromkeys(WANTED, 0)
    for index in range(WARM_UP_ROUNDS + rounds):
        first = index % len(names)
        for name in names[first:] + names[:first]:
            if name in plain:
                spent = plain[name].token_seconds(tokens)
            else:
                want(drain, WANTED[name])
                spent = captured.token_seconds(tokens)
                written[name] += drain()
            if index >= WARM_UP_ROUNDS:
                times[name].append(spent)
        print(f"vLLM: round {index + 1}", file=sys.stderr)
    return times, written


def result(name: str, times: dict[str, list[float]]) -> dict[str, Any]:
    pairs = sorted(a / b for a, b in zip(times[name], times[NONE], strict=True))
    ratio = {"vs": NONE, "median": statistics.median(pairs), "min": pairs[0], "max": pairs[-1],
             "pairs": len(pairs)}
    return {
        "name": f"vLLM, CPU time per token: {name}", "unit": "s",
        "ours": statistics.median(times[name]), "peers": {NONE: statistics.median(times[NONE])},
        "ratios": [ratio],
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--tokens", type=int, default=32, help="tokens of an answer")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        serve(arguments.model)
        return
    with tempfile.TemporaryDirectory(dir="/dev/shm") as segments:
        settings = {
            "RING2_VLLM_DIRECTORY": segments, "RING2_VLLM_SEGMENT": "bench",
            "RING2_VLLM_HOOKS": "full", "RING2_VLLM_PAYLOAD_MB": str(PAYLOAD_MIB),
        }
        plain = {name: Engine(arguments.model, {"RING2_VLLM": "off"}) for name in (NONE, CONTROL)}
        captured = Engine(arguments.model, settings)
        engines = [*plain.values(), captured]
        for engine in engines:
            engine.wait()
        path = os.path.join(segments, "ring2.bench")
        populate(path)
        drain = Drain(path)
        times, written = measure(plain, captured, drain, arguments.rounds, arguments.tokens)
        for engine in engines:
            engine.close()
        drain.close()
    if written["nothing wanted"] > written["hidden states"] or not written["everything"]:
        raise SystemExit(f"expected slices by what was wanted, got {written}")
    print(json.dumps({"results": [result(name, times) for name in (*WANTED, CONTROL)]}))


if __name__ == "__main__":
    main()
