"""Which row groups PyArrow keeps for a trace and a hook, and which columns have indexes, as JSON."""

import json
import sys

import pyarrow.dataset as dataset
import pyarrow.parquet as parquet


def main() -> None:
    path, trace, hook = sys.argv[1:]
    wanted = (dataset.field("trace_id") == trace) & (dataset.field("hook") == hook)
    source = dataset.dataset(path)
    (fragment,) = source.get_fragments()
    kept = [group.id for group in fragment.subset(wanted).row_groups]
    metadata = parquet.ParquetFile(path).metadata
    chunks = [
        metadata.row_group(group).column(column)
        for group in range(metadata.num_row_groups)
        for column in range(metadata.num_columns)
    ]
    facts = {
        "row_groups": metadata.num_row_groups,
        "kept": kept,
        "rows": source.to_table(filter=wanted).num_rows,
        "without_offset_index": [c.path_in_schema for c in chunks if not c.has_offset_index],
        "with_column_index": sorted({c.path_in_schema for c in chunks if c.has_column_index}),
    }
    sys.stdout.write(json.dumps(facts))


main()
