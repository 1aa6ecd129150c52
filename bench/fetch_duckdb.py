"""Answers one query after the other by DuckDB: a line {"root", "trace_id"} in, {"millis", "bytes"} out."""

import json
import sys
import time

import duckdb

QUERY = """
SELECT step, data FROM read_parquet(?, hive_partitioning = false)
WHERE trace_id = ? AND hook = 'resid_pre' AND layer = 0 ORDER BY step
"""


def main() -> None:
    connection = duckdb.connect()
    for line in sys.stdin:
        asked = json.loads(line)
        pattern = asked["root"] + "/tensors/**/*.parquet"
        start = time.perf_counter()
        rows = connection.execute(QUERY, [pattern, asked["trace_id"]]).fetchall()
        millis = (time.perf_counter() - start) * 1000
        answer = {"millis": millis, "bytes": sum(len(data) for _, data in rows)}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
