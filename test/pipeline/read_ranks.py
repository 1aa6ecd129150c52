"""Reads requests back that two ranks ran, over HTTP and from the store's folder, for ranks.test.ts.

Arguments: the exporter's address, the store's folder, and for each request its trace id and the file
of what the unsharded model held. Prints as JSON, per request and way: the tensors read, the largest
difference by hook, and one shard's shape; and statistics of the whole tensors by numpy.
"""

import json
import sys
from typing import Any

import numpy

import ring2


def statistics(held: dict[str, numpy.ndarray], prompt: int) -> dict[str, list[float]]:
    """Per layer, of the whole tensors: what shards have to be joined to."""
    layers = range(sum(name.startswith("pattern.") for name in held))
    entropy, norms, largest = [], [], []
    for layer in layers:
        pattern = held[f"pattern.{layer}"].astype(float)
        logs = numpy.log(pattern, where=pattern > 0, out=numpy.zeros_like(pattern))
        entropy.append(float(-(pattern * logs).sum(-1).mean()))
        norms.append(float(numpy.linalg.norm(held[f"q.{layer}"].astype(float), axis=-1).mean()))
        largest.append(float(numpy.abs(held[f"mlp_post.{layer}"]).max()))
    return {"pattern.entropy_mean": entropy, "q.l2_mean": norms, "mlp_post.abs_max": largest}


def read(client: ring2.Client, trace_id: str, held: dict[str, numpy.ndarray]) -> dict[str, Any]:
    trace = client.trace(trace_id)
    worst: dict[str, float] = {}
    states = set()
    for tensor in trace:
        layer = -1 if tensor.layer < 0 else tensor.layer
        expected = held[f"{tensor.hook}.{layer}"]
        got = tensor.numpy()
        assert got.shape == expected.shape, (tensor.hook, got.shape, expected.shape)
        difference = float(numpy.abs(got.astype(float) - expected).max())
        worst[str(tensor.hook)] = max(worst.get(str(tensor.hook), 0.0), difference)
        states.add(tensor.completeness)
    request = trace.requests[0]
    whole = trace.tensor("pattern", layer=1)
    named = trace.tensor("pattern", layer=1, producer=request["producer"])
    some = trace.tensor("q", layer=1, heads="3,0", tokens="2:9")
    assert some.shape == (7, 2, held["q.1"].shape[2])
    chosen = held["q.1"][2:9][:, [3, 0]]
    assert numpy.allclose(some.numpy(), chosen, atol=1e-5)
    assert bytes(named.data) == bytes(whole.data)
    return {
        "requests": len(trace.requests),
        "tensors": len(trace),
        "worst": worst,
        "completeness": sorted(states),
        "shard": list(trace.tensor("pattern", layer=1, rank="tp:0").shape),
        "whole": list(whole.shape),
    }


def main() -> None:
    url, folder, *rest = sys.argv[1:]
    answers = []
    for trace_id, file in zip(rest[::2], rest[1::2], strict=True):
        held = dict(numpy.load(file))
        answers.append({
            "http": read(ring2.open(url), trace_id, held),
            "folder": read(ring2.open(folder), trace_id, held),
            "statistics": statistics(held, 7),
        })
    print(json.dumps(answers))


if __name__ == "__main__":
    main()
