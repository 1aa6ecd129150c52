"""Fixed cost of capturing one small tensor: from C, and from PyTorch eager.

    python bench/fixed_cost.py [--rounds 40]

From C: ring2_write_tensor of 64 bytes in a loop; asking for and writing 2 KiB, less the copy; and a
step that nobody wants. From PyTorch: a module with a forward hook's worth
of Python and the operator, minus the same module without it, in alternating pairs. Prints one JSON
document {"results": [{name, unit, ours, peers, ratios}]}; progress goes to stderr.
"""

import argparse
import gc
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")

import ring2  # noqa: E402
import torch  # noqa: E402
from ring_drain import ROOT, Drain, library_path  # noqa: E402

CALLS = 2000  # per timed round; fewer than the ring has descriptors


def from_c(rounds: int) -> dict[str, list[float]]:
    """Nanoseconds of each measurement of write_cost.c, one value per round."""
    source = os.path.join(ROOT, "native", "hookpoint", "python", "bench", "write_cost.c")
    library = os.path.abspath(library_path())
    with tempfile.TemporaryDirectory() as folder:
        program = os.path.join(folder, "write_cost")
        include = os.path.join(ROOT, "native", "include")
        subprocess.run(
            ["cc", "-O2", f"-I{include}", source, library, f"-Wl,-rpath,{os.path.dirname(library)}",
             "-o", program],
            check=True,
        )
        return {
            what: [float(line) for line in subprocess.run(
                [program, str(rounds), what], check=True, capture_output=True, text=True
            ).stdout.split()]
            for what in ("small", "vector", "control")
        }


class Chain(torch.nn.Module):
    """Calls one submodule many times, like a model calls its blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.point = ring2.HookPoint("resid_pre", layer=0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        point = self.point
        for _ in range(CALLS):
            point(x)
        return x


def _timed(model: Chain, x: torch.Tensor) -> float:
    start = time.perf_counter_ns()
    model(x)
    return (time.perf_counter_ns() - start) / CALLS


def from_torch(rounds: int) -> tuple[list[float], list[float]]:
    """Nanoseconds per call with a probe and without, in pairs; the first pairs warm up."""
    captured, plain = Chain(), Chain()
    x = torch.ones(1, 1, 16)
    probe = ring2.attach(captured, "resid_pre", segment=f"fixed-cost-{os.getpid()}", payload_mb=4)
    drain = Drain(probe.path)
    with_probe, without = [], []
    gc.disable()
    with torch.no_grad(), ring2.request("bench"):
        for index in range(rounds + 40):
            pair = [(captured, with_probe), (plain, without)]
            for model, values in pair if index % 2 else pair[::-1]:
                value = _timed(model, x)
                if index >= 40:
                    values.append(value)
            drain()
    if probe.losses():
        raise SystemExit(f"expected no losses in the benchmark, got {probe.losses()}")
    probe.detach()
    drain.close()
    return with_probe, without


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=40)
    rounds = parser.parse_args().rounds
    print("fixed cost: from C", file=sys.stderr)
    c = from_c(rounds)
    print("fixed cost: from PyTorch eager", file=sys.stderr)
    with_probe, without = from_torch(rounds)
    extra = [a - b for a, b in zip(with_probe, without, strict=True)]
    ratios = [a / b for a, b in zip(with_probe, without, strict=True)]
    results = [
        *(
            {
                "name": name, "unit": "ns", "ours": statistics.median(c[what]), "peers": {},
                "ratios": [], "budget": 300,
                "spread": {"min": min(c[what]), "max": max(c[what]), "rounds": len(c[what])},
            }
            for what, name in (
                ("small", "fixed cost per tensor, C"),
                ("vector", "fixed cost per tensor of 2 KiB without the copy, C"),
                ("control", "step that nobody wants, C"),
            )
        ),
        {
            "name": "fixed cost per tensor, PyTorch eager", "unit": "ns",
            "ours": statistics.median(extra),
            "peers": {"module call without a probe": statistics.median(without)},
            "ratios": [{
                "vs": "module call without a probe", "median": statistics.median(ratios),
                "min": min(ratios), "max": max(ratios), "pairs": len(ratios),
            }],
            "spread": {"min": min(extra), "max": max(extra), "rounds": len(extra)},
            "budget": 3000,
        },
    ]
    print(json.dumps({"results": results}))


if __name__ == "__main__":
    main()
