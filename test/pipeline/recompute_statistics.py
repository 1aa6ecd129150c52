"""Recomputes every statistic column of every row of a store with NumPy in float64.

    python recompute_statistics.py STORE          prints one JSON document

Written from the definitions in docs/statistics.md and from the stored bytes alone. `worst` holds the
largest error per hook and column, relative where the definition's tolerance is; `wrong` lists rows
(at most 20) that are beyond it, or have a value where the definition has none, or the reverse.
Also gives, for each row in the order of its key, what another reader must find too.
"""

import glob
import hashlib
import json
import os
import sys

import numpy
import pyarrow.parquet

DTYPES = {
    "float32": numpy.float32, "float16": numpy.float16, "float64": numpy.float64,
    "int64": numpy.int64, "int32": numpy.int32, "bool": numpy.bool_,
}
COLUMNS = ("l2_mean", "l2_max", "abs_max", "mean", "std", "entropy_mean", "sink_mass")
# Entropies and masses within 1e-5 absolute; norms and moments within 1e-5 relative.
TOLERANCE = 1e-5
ABSOLUTE = {"entropy_mean", "sink_mass"}
WRONG_ROWS_MAX = 20


def values(row: dict) -> numpy.ndarray:
    if row["dtype"] == "bfloat16":
        words = numpy.frombuffer(row["data"], numpy.uint16).astype(numpy.uint32) << 16
        return words.view(numpy.float32).reshape(row["shape"]).astype(numpy.float64)
    stored = numpy.frombuffer(row["data"], DTYPES[row["dtype"]]).reshape(row["shape"])
    return stored.astype(numpy.float64)


def entropy(p: numpy.ndarray) -> numpy.ndarray:
    """-sum p ln p along the last axis, of rows brought to a sum of 1."""
    p = p / p.sum(axis=-1, keepdims=True)
    logs = numpy.log(p, out=numpy.zeros_like(p), where=p > 0)
    return -(p * logs).sum(axis=-1)


def moments(x: numpy.ndarray) -> dict[str, float]:
    norms = numpy.sqrt((x * x).sum(axis=-1))
    return {"l2_mean": norms.mean(), "l2_max": norms.max(), "abs_max": numpy.abs(x).max(),
            "mean": x.mean(), "std": x.std()}


def attention(p: numpy.ndarray, token_start: int) -> dict[str, float]:
    """[heads, queries, keys]; query i of the slice is at position token_start + i."""
    found = {"entropy_mean": entropy(p).mean()}
    first = max(0, 1 - token_start)
    if p.shape[1] > first:
        found["sink_mass"] = p[:, first:, 0].mean()
    return found


def expected(row: dict) -> dict[str, float]:
    if not row["dtype"].startswith(("float", "bfloat")):
        return {}
    x = values(row)
    if row["hook"] == "pattern":
        return attention(x, row["token_start"])
    found = moments(x)
    if row["hook"] == "final_logits":
        shifted = numpy.exp(x - x.max(axis=-1, keepdims=True))
        found["entropy_mean"] = entropy(shifted).mean()
    return found


def nonfinite(row: dict) -> int:
    return int((~numpy.isfinite(values(row))).sum()) if "float" in row["dtype"] else 0


def error_of(column: str, got: float, want: float, scale: float) -> float:
    if column in ABSOLUTE:
        return abs(got - want)
    # A mean near 0 of large values is exact to those values, not to itself.
    return abs(got - want) / max(abs(want), scale if column == "mean" else 0.0, 1e-300)


def check(row: dict, worst: dict, wrong: list) -> None:
    want = expected(row)
    place = [row[name] for name in ("request_id", "hook", "layer", "step")]
    if nonfinite(row) != row["nonfinite"]:
        wrong.append([*place, "nonfinite", row["nonfinite"], nonfinite(row)])
    for column in COLUMNS:
        got = row[column]
        if (got is None) != (column not in want):
            wrong.append([*place, column, got, want.get(column)])
        elif got is not None:
            error = error_of(column, got, float(want[column]), float(want.get("std", 0.0)))
            name = f"{row['hook']}.{column}"
            worst[name] = max(worst.get(name, 0.0), error)
            if not error <= TOLERANCE:
                wrong.append([*place, column, got, float(want[column])])


def read_rows(store: str):
    pattern = os.path.join(store, "tensors", "**", "*.parquet")
    for path in sorted(glob.glob(pattern, recursive=True)):
        # Partition folders must not add columns: what a file says of itself counts.
        yield from pyarrow.parquet.ParquetFile(path).read().to_pylist()


def main() -> None:
    worst: dict[str, float] = {}
    wrong: list = []
    digests = []
    for row in read_rows(sys.argv[1]):
        check(row, worst, wrong)
        assert len(row["data"]) == row["data_bytes"], row["hook"]
        key = [row["request_id"], row["hook"], row["layer"], row["step"], row["token_start"]]
        digests.append([*key, row["token_end"], row["data_bytes"],
                        hashlib.md5(row["data"]).hexdigest()])
    digests.sort()
    print(json.dumps({"rows": len(digests), "worst": worst, "wrong": wrong[:WRONG_ROWS_MAX],
                      "wrong_count": len(wrong), "digests": digests}))


if __name__ == "__main__":
    main()
