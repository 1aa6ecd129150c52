"""Reads a store by the lines of docs/storage.md, and prints what each reader found as JSON.

    python read_store.py SNIPPETS STORE TRACE REQUEST URL

SNIPPETS is a JSON file with the Python blocks of the document; they run one after the other, as a
person would run them, in one set of names.
"""

import json
import re
import sys

import numpy
import polars
import pyarrow


def main() -> None:
    path, store, trace, request, url = sys.argv[1:]
    with open(path, encoding="utf-8") as file:
        snippets = json.load(file)
    names = {"TRACE": trace, "REQUEST": request, "URL": url}
    seen = []
    for snippet in snippets:
        code = snippet.replace("STORE", store)
        # Each result is looked at before the next line takes its name.
        for line in re.split(r"\n(?=(?:frame|table) = )", code):
            exec(compile(line, "docs/storage.md", "exec"), names)
            results = [names.pop(name) for name in ("frame", "table") if name in names]
            seen += [facts_of(result) for result in results if "hook" in columns_of(result)]
    print(json.dumps({
        "seen": seen,
        "hidden": values_of(names["hidden"]),
        "logits": values_of(names["logits"]),
        "array": values_of(names["array"]),
    }))


def values_of(array: numpy.ndarray) -> list:
    return [str(array.dtype), list(array.shape), [float(value) for value in array.ravel()]]


def columns_of(frame) -> list[str]:
    return frame.column_names if isinstance(frame, pyarrow.Table) else list(frame.columns)


def facts_of(frame) -> dict:
    """The reader, the rows with their types and bytes, and the partitions as columns."""
    if isinstance(frame, pyarrow.Table):
        reader, rows = "pyarrow", frame.to_pylist()
    elif isinstance(frame, polars.DataFrame):
        reader, rows = "polars", frame.to_dicts()
    else:
        reader, rows = "pandas", frame.to_dict("records")
    return {
        "reader": reader,
        "rows": [[row["hook"], row["layer"], row["dtype"], bytes(row["data"]).hex()]
                 for row in rows],
        "models": sorted({row["model"] for row in rows}),
        "slugs": sorted({str(row["model_slug"]) for row in rows}),
        "hours": sorted({int(row["hour"]) for row in rows}),
        # A column that older files lack; pandas has NaN for null.
        "margins": [row["margin_mean"] for row in rows
                    if row["margin_mean"] is not None and not numpy.isnan(row["margin_mean"])],
    }


main()
