"""Prints the model names of a whole store, read by PyArrow as docs/storage.md shows."""

import json
import sys

import pyarrow.parquet as parquet

table = parquet.read_table(sys.argv[1] + "/tensors", partitioning=None)
print(json.dumps(sorted(table.column("model").to_pylist())))
