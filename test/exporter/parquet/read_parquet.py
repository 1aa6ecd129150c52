"""Prints the rows of one Parquet file, and its footer's facts, as JSON. Read by PyArrow."""

import base64
import json
import sys

import pyarrow.parquet as parquet


def plain(value):
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, float) and value != value:
        return "NaN"
    return value


def main() -> None:
    file = parquet.ParquetFile(sys.argv[1])
    table = file.read()
    micros = table.column("captured_at").cast("int64")
    index = table.schema.get_field_index("captured_at")
    table = table.set_column(index, "captured_at", micros)
    rows = [{name: plain(value) for name, value in row.items()} for row in table.to_pylist()]
    metadata = file.metadata
    facts = {
        "types": {field.name: str(field.type) for field in file.schema_arrow},
        "metadata": {k.decode(): v.decode() for k, v in (metadata.metadata or {}).items()},
        "row_groups": metadata.num_row_groups,
        "data_statistics": metadata.row_group(0).column(0).is_stats_set,
        "data_codec": metadata.row_group(0).column(0).compression,
        "rows": rows,
    }
    # Integers beyond 2^53 must not pass through a double on the other side.
    text = json.dumps(facts, ensure_ascii=False, default=str)
    sys.stdout.write(text)


main()
