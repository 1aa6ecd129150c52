"""Writes the rows of a Parquet file again, for each path on standard input, and prints the seconds.

The rows are in memory as an Arrow table before the first answer; payloads are neither compressed nor
given statistics or a dictionary, and row groups hold 64 MiB: what ring2-exporter does.
"""

import sys
import time

import pyarrow.parquet as parquet

ROW_GROUP_BYTES = 64 * 2**20


def main() -> None:
    table = parquet.read_table(sys.argv[1]).combine_chunks()
    small = [name for name in table.column_names if name != "data"]
    rows = max(1, ROW_GROUP_BYTES * table.num_rows // max(1, table.nbytes))
    print("ready", flush=True)
    for line in sys.stdin:
        start = time.perf_counter()
        parquet.write_table(
            table,
            line.strip(),
            compression="NONE",
            use_dictionary=[name for name in small if name != "shape"],
            write_statistics=[name for name in small if name != "shape"],
            row_group_size=rows,
        )
        print(time.perf_counter() - start, flush=True)


main()
