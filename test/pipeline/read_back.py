"""Reads a real capture back with ring2.open and compares it with what the model itself held.

    python read_back.py WHERE TRACE REFERENCE

WHERE is the address of an exporter or a store's folder. Prints what was found as JSON.
"""

import json
import sys

import numpy
import torch

import ring2


def main() -> None:
    where, trace_id, reference = sys.argv[1:]
    want = numpy.load(reference)
    trace = ring2.open(where).trace(trace_id)
    tensors = list(trace)
    wrong = [one.name for one in tensors
             if one.name in want and one.hook != "pattern"
             and one.numpy().tobytes() != want[one.name].tobytes()]
    patterns = {one.name: float(numpy.abs(one.numpy() - want[one.name]).max())
                for one in tensors if one.name in want and one.hook == "pattern"}
    part = trace.tensor("resid_pre", layer=1, tokens="2:5")
    head = trace.tensor("pattern", layer=0, heads="2,0")
    frame = trace.to_pandas()
    print(json.dumps({
        "requests": [one["request_id"] for one in trace.requests],
        "complete": trace.complete,
        "names": sorted(one.name for one in tensors),
        "count": len(trace),
        "compared": len([one for one in tensors if one.name in want]),
        "wrong": wrong,
        "patterns": patterns,
        "incomplete": [one.name for one in tensors if not one.complete],
        "part": numpy.array_equal(numpy.asarray(part), want["resid_pre.1"][2:5]),
        "heads": float(numpy.abs(head.numpy() - want["pattern.0"][[2, 0]]).max()),
        "torch": torch.equal(part.torch(), torch.from_numpy(want["resid_pre.1"][2:5])),
        "columns": sorted(frame.columns),
        "rows": len(frame),
        "time": str(frame["captured_at"].dtype),
        "worst_l2": worst_l2(frame, want),
    }))


def worst_l2(frame, want) -> float:
    """Largest relative difference of the column's norms from those of the model's own values."""
    worst = 0.0
    for row in frame[frame["hook"] == "resid_pre"].itertuples():
        start, end = row.tokens
        values = want[f"resid_pre.{row.layer}"][start:end].astype("float64")
        norms = numpy.linalg.norm(values, axis=1)
        got = getattr(row, "_asdict")()
        column = frame.columns.get_loc("statistics.l2_mean")
        worst = max(worst, abs(tuple(got.values())[column + 1] / norms.mean() - 1))
    return float(worst)


if __name__ == "__main__":
    main()
