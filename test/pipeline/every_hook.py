"""Captures every hook of two small models through a real exporter and checks what comes back.

    python every_hook.py URL SEGMENTS

A random Mixtral and a random GPT-2 have every hook of the catalogue between them. What is fetched
must be what forward hooks of the tests' own saw, bit for bit; statistics are recomputed with NumPy
in float64 by the definitions of docs/statistics.md. Prints what was found as JSON.
"""

import json
import os
import sys
import time

import numpy
import ring2
import torch

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(__file__)), "python"))

import test_families as families  # noqa: E402

TRACES = {"mixtral": "1" * 32, "gpt2": "2" * 32}
WAIT_SECONDS = 60
# Steps of different widths are stitched into one tensor; values are compared in other tests.
ATTENTION = ("pattern", "attn_scores")
# Hooks whose rows have norms and moments of every element.
PLAIN = ("z", "mlp_post", "mlp_in", "ln1", "pos_embed", "embed", "router_logits", "topk_weights")


def capture(family: str, segments: str) -> ring2.Probe:
    model = families.model_of(family, "eager", torch.float32)
    with ring2.attach(model, "full", directory=segments, segment=family, payload_mb=16,
                      model_name=family) as probe:
        parent = f"00-{TRACES[family]}-{7:016x}-01"
        with ring2.batch([
            ring2.RequestInfo(f"{family}-{row}", traceparent=parent) for row in range(2)
        ]):
            families.generate(model)
    return probe


def fetch(url: str, family: str) -> ring2.Trace:
    until = time.monotonic() + WAIT_SECONDS
    while True:
        try:
            trace = ring2.open(url).trace(TRACES[family])
            if trace.complete and len(trace.requests) == 2:
                return trace
        except ring2.Ring2Error as error:
            if error.code != "RING2_E_TRACE_UNKNOWN":
                raise
        if time.monotonic() > until:
            raise TimeoutError(f"{family} is not complete")
        time.sleep(0.2)


def expected_statistics(hook: str, values: numpy.ndarray) -> dict[str, float]:
    x = values.astype(numpy.float64)
    found: dict[str, float] = {}
    if hook in PLAIN:
        norms = numpy.sqrt((x ** 2).sum(axis=-1))
        found = {"l2_mean": norms.mean(), "abs_max": numpy.abs(x).max(), "mean": x.mean(),
                 "std": x.std()}
    if hook == "attn_scores":
        seen = x[x > numpy.finfo(numpy.float32).min / 2]
        found = {"mean": seen.mean(), "std": seen.std()}
    return found


def check(url: str, family: str, probe: ring2.Probe) -> dict[str, object]:
    trace = fetch(url, family)
    seen, _ = families.reference(family, "eager", torch.float32)
    wrong, statistics = [], []
    for hook, layers in probe.hooks.items():
        for layer in layers:
            for row in range(2):
                if hook in ATTENTION:
                    continue
                tensor = trace.tensor(hook, layer=layer, request_id=f"{family}-{row}")
                parts = [families.own_part(family, hook, whole, row, step)
                         for step, whole in enumerate(seen[hook, layer])]
                if not torch.equal(tensor.torch(), torch.cat(parts)):
                    wrong.append(tensor.name)
    for entry in trace.to_pandas().to_dict("records"):
        if entry["phase"] != "prefill":
            continue
        row = int(entry["request_id"][-1])
        values = families.own_part(
            family, entry["hook"], seen[entry["hook"], entry["layer"]][0], row, 0).numpy()
        for name, value in expected_statistics(entry["hook"], values).items():
            got = entry.get(f"statistics.{name}")
            near = got is not None and abs(got - value) <= 1e-5 * max(1.0, abs(value))
            statistics.append((entry["hook"], name))
            if not near:
                wrong.append(f"{entry['hook']}.{entry['layer']} {name}: {got} is not {value}")
    return {"hooks": sorted(probe.hooks), "wrong": wrong,
            "statistics": sorted({f"{hook} {name}" for hook, name in statistics})}


def main() -> None:
    url, segments = sys.argv[1:]
    torch.set_num_threads(1)
    probes = {family: capture(family, segments) for family in TRACES}
    json.dump({family: check(url, family, probe) for family, probe in probes.items()}, sys.stdout)


if __name__ == "__main__":
    main()
