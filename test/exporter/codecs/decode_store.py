"""Reads a store with PyArrow, decodes every row with ring2.decode, and compares with HOOK.expected."""

import pathlib
import sys

import numpy
import pyarrow.parquet

repository = pathlib.Path(__file__).resolve().parents[3]
sys.path.insert(0, str(repository / "native" / "hookpoint" / "python"))

import ring2  # noqa: E402

root = pathlib.Path(sys.argv[1])
rows = []
for path in sorted((root / "tensors").rglob("*.parquet")):
    rows += pyarrow.parquet.ParquetFile(path).read().to_pylist()
rows.sort(key=lambda row: row["step"])
for hook in sorted({row["hook"] for row in rows}):
    got = numpy.concatenate([ring2.decode(row) for row in rows if row["hook"] == hook])
    expected = numpy.fromfile(root / f"{hook}.expected", dtype=numpy.float32)
    assert got.shape == (8, 128) and numpy.array_equal(got.reshape(-1), expected), hook
print(f"{len(rows)} rows")
