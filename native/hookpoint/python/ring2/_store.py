"""A store's folder, read with PyArrow: what the exporter answers over HTTP, without one running.

Every call looks at all files of the dataset (their footers are kept), so its time grows with the
store: ask a running exporter, which has a catalogue, where that matters. Payloads are decoded, and
their checksums verified.

A file that cannot be read is passed over with a warning that names it, so that one damaged file does
not hide the others. As nobody knows which rows it held, nothing is called complete then.
"""

import json
import os
import re
import warnings
from collections.abc import Iterable
from typing import Any

from ._errors import Ring2Error
from ._selection import HOOKS_BY_NAME
from ._shards import Parallel, check_ranks, join_shards, parallel_of, shard_ranks
from ._stitch import Ranges, Row, parse_heads, parse_tokens, ranges_of, stitch
from ._tensor_data import TensorData, needed
from .codec import verified_bytes

_RANKS = ("tp_rank", "pp_rank", "dp_rank", "ep_rank")
_STATISTICS = (
    "l2_mean", "l2_max", "abs_max", "mean", "std", "entropy_mean", "sink_mass",
    "top1_probability_mean", "margin_mean", "surprisal_mean",
)
_ROW = (
    "request_id", "producer", "hook", "layer", "step", "phase", "kv_offset", *_RANKS, "dtype",
    "shape", "encoding", "data_bytes", "data_crc32c", "nonfinite",
)
# Of files of some ten thousand rows, a footer takes some KiB.
_FOOTERS_MAX = 4096
_PLACE = ("trace_id", "token_start", "token_end", "captured_at", "model")


class StoreSource:
    """Traces of a store's folder."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._footers: dict[str, Any] = {}
        # Files that could not be read, and why.
        self._damaged: dict[str, str] = {}
        if not any(os.path.isdir(os.path.join(folder, name)) for name in ("tensors", "requests")):
            raise Ring2Error.of(
                "RING2_E_STORE", "the folder of a store, which holds tensors/", repr(folder),
                "Name what store.url names, or give the address of a running exporter.",
            )

    def info(self, trace_id: str) -> dict[str, Any]:
        ids = self._ids(trace_id)
        held = self._table("tensors", [*_ROW, *_PLACE], _among("trace_id", ids))
        requests = {
            (one["request_id"], one["producer"]): {**one, "trace_id": trace_id, "tensors": []}
            for one in self._table("requests", None, _among("trace_id", ids))
        }
        told = self._told(requests.values())
        for row in held:
            key = (row["request_id"], row["producer"])
            key = told.get(key, key)
            # A request that has not ended has rows and no entry.
            entry = requests.setdefault(key, {
                "trace_id": trace_id, "request_id": key[0], "producer": key[1],
                "model": row["model"], "completeness": "unknown", "verdict": "unknown",
                "tensors": [],
            })
            entry["tensors"].append(row)
        if not requests:
            self._refuse_damaged(f"trace {trace_id}")
            raise Ring2Error.of(
                "RING2_E_TRACE_UNKNOWN", "a trace of the store", trace_id,
                "Check the id with `ring2-exporter ls`; data may have been lost or have expired.",
            )
        for entry in requests.values():
            entry["tensors"] = _held(entry["tensors"])
            if self._damaged and entry["completeness"] == "complete":
                entry["completeness"] = "unknown"
        return {"trace_id": trace_id, "requests": list(requests.values())}

    def rows(self, trace_id: str, query: dict[str, str | None]) -> list[dict[str, Any]]:
        found = self._table("tensors", [*_ROW, *_PLACE, *_STATISTICS], self._filter(trace_id, query))
        return [
            {
                **{name: row[name] for name in _ROW},
                "tokens": [row["token_start"], row["token_end"]],
                "captured_at": row["captured_at"].isoformat().replace("+00:00", "Z"),
                "statistics": {name: row.get(name) for name in _STATISTICS},
            }
            for row in sorted(_distinct(found), key=_order)
        ]

    def tensor(
        self, trace_id: str, hook: str, layer: int, query: dict[str, str | None],
        progress: bool | None,
    ) -> TensorData:
        wanted = {**query, "hook": hook, "layer": str(layer)}
        condition = self._filter(trace_id, wanted)
        places = _distinct(self._table("tensors", [*_ROW, *_PLACE], condition))
        if not places:
            self.info(trace_id)
            self._refuse_damaged(f"{hook}, layer {layer}")
            raise Ring2Error.of(
                "RING2_E_TENSOR_UNKNOWN", "a tensor that the trace has", f"{hook}, layer {layer}",
                "List what it has with `trace.tensors()`.",
            )
        chosen = _one(places, "request_id")
        parallel = self._parallel(chosen[0])
        if parallel is None or not {row["producer"] for row in chosen} <= parallel.producers:
            chosen, parallel = _one(chosen, "producer"), None
        producer = query.get("producer")
        alone = producer is not None and self._meant(trace_id, producer) == {producer}
        alone = alone and not (parallel is not None and parallel.gathered)
        shards = shard_ranks(hook, None if alone else parallel, _ranks(query.get("rank")))
        if shards is None:
            chosen = _of_one_rank(chosen, hook)
        else:
            check_ranks(shards, (row["tp_rank"] for row in chosen))
            chosen = [row for row in chosen if row["tp_rank"] in shards]
        tokens = parse_tokens(query.get("tokens"))
        kind = HOOKS_BY_NAME.get(hook)
        # A hook that is not of the catalogue has a row for each token.
        shape, dims = ("token", ()) if kind is None else (kind.shape, kind.dims)
        head_axis = next((i for i, name in enumerate(dims) if name in ("heads", "kv_heads")), None)
        rows, values, held = self._stitched(condition, chosen, shards, (shape, head_axis), tokens)
        if query.get("heads") is not None:
            count = None if head_axis is None else values.shape[head_axis]
            heads = parse_heads(query.get("heads"), count)
            values = needed("numpy").take(values, heads, axis=head_axis)
        expected = self._expected(chosen[0], shape)
        facts = {"trace_id": trace_id, "request_id": chosen[0]["request_id"], "hook": hook,
                 "layer": layer, "tokens": held, **_completeness(held, expected, tokens, rows, shape)}
        if self._damaged and facts["completeness"] == "complete":
            facts["completeness"] = "unknown"
        numpy = needed("numpy")
        data = numpy.ascontiguousarray(values).reshape(-1).view(numpy.uint8)
        return TensorData(data, chosen[0]["dtype"], values.shape, facts)

    def _stitched(
        self, condition: Any, chosen: list[dict[str, Any]], shards: list[int] | None,
        layout: tuple[str, int | None], tokens: tuple[int, int] | None,
    ) -> tuple[list[Row], Any, Ranges]:
        """Checked rows, the tensor along the token axis (and whole, of shards), and its positions."""
        shape, head_axis = layout
        attention = shape == "attention"
        if shards is None:
            rows = self._payloads(condition, chosen, tokens)
            return rows, *stitch(rows, attention, tokens, None, head_axis)
        of_ranks = [
            self._payloads(condition, [row for row in chosen if row["tp_rank"] == rank], tokens)
            for rank in shards
        ]
        parts = [stitch(rows, attention, tokens, None, head_axis) for rows in of_ranks]
        return of_ranks[0], *join_shards(parts, shape, head_axis)

    def _told(self, requests: Iterable[dict[str, Any]]) -> dict[tuple[str, str], tuple[str, str]]:
        """Which request, by id and producer, tells of the tensors of another rank's producer."""
        told = {}
        for one in requests:
            parallel = parallel_of(one["summary"], one["producer"])
            for label in parallel.producers if parallel else ():
                told[one["request_id"], label] = (one["request_id"], one["producer"])
        return told

    def _parallel(self, row: dict[str, Any]) -> Parallel | None:
        """The ranks that ran the request of a row together; None while the request goes on."""
        condition = _among("trace_id", [row["trace_id"]])
        condition &= needed("pyarrow.compute").field("request_id") == row["request_id"]
        for entry in self._table("requests", ["summary", "producer"], condition):
            parallel = parallel_of(entry["summary"], entry["producer"])
            if parallel is not None and row["producer"] in parallel.producers:
                return parallel
        return None

    def _meant(self, trace_id: str, producer: str) -> set[str]:
        """The producers of all ranks, for the one that tells of their request; else that one."""
        condition = _among("trace_id", self._ids(trace_id))
        condition &= needed("pyarrow.compute").field("producer") == producer
        meant = {producer}
        for entry in self._table("requests", ["summary"], condition):
            meant |= getattr(parallel_of(entry["summary"], producer), "producers", set())
        return meant

    def _payloads(
        self, condition: Any, chosen: list[dict[str, Any]], tokens: tuple[int, int] | None
    ) -> list[Row]:
        """The rows that hold tokens asked for, checked; one file's rows in memory at a time."""
        near = [row for row in chosen
                if tokens is None or (row["token_end"] > tokens[0] and row["token_start"] < tokens[1])]
        wanted = {_key(row): row for row in near or chosen}
        condition &= _among("step", {row["step"] for row in wanted.values()})
        rows = []
        for row in self._table("tensors", [*_ROW, *_PLACE, "data"], condition):
            if wanted.pop(_key(row), None):
                rows.append(_checked(row))
        if wanted:
            # Their other columns could be read: they are there, and would be taken for missing.
            self._refuse_damaged(f"{len(wanted)} rows of {chosen[0]['hook']}")
        return rows

    def _refuse_damaged(self, wanted: str) -> None:
        """Raises RING2_E_STORE where what is wanted may be in a file that cannot be read."""
        for path, reason in self._damaged.items():
            count = "" if len(self._damaged) == 1 else f", one of {len(self._damaged)} such files"
            raise Ring2Error.of(
                "RING2_E_STORE", f"{wanted}, or every file of the store readable",
                f"{path}{count}: {reason}",
                "Restore the file from a copy, or move it away; other files are not affected.",
            )

    def _expected(self, row: dict[str, Any], shape: str) -> set[int] | None:
        """Positions that a complete tensor of this producer has; None while the request goes on."""
        compute = needed("pyarrow.compute")
        condition = _among("trace_id", [row["trace_id"]])
        condition &= compute.field("request_id") == row["request_id"]
        for entry in self._table("requests", ["summary", "producer"], condition):
            parallel = parallel_of(entry["summary"], entry["producer"])
            producers = {entry["producer"], *(parallel.producers if parallel else ())}
            if row["producer"] not in producers:
                continue
            positions: set[int] = set()
            for phase in json.loads(entry["summary"])["phases"]:
                start, end = phase["tokenStart"], phase["tokenEnd"]
                last_only = shape == "request" and phase["phase"] == "prefill"
                positions.update(range(max(start, end - 1) if last_only else start, end))
            return positions
        return None

    def _filter(self, trace_id: str, query: dict[str, str | None]) -> Any:
        compute = needed("pyarrow.compute")
        condition = _among("trace_id", self._ids(trace_id))
        for name in ("hook", "request_id"):
            if query.get(name) is not None:
                condition &= compute.field(name) == query[name]
        producer = query.get("producer")
        if producer is not None:
            condition &= _among("producer", self._meant(trace_id, producer))
        layer = query.get("layer")
        if layer is not None:
            condition &= compute.field("layer") == (-1 if layer == "global" else int(layer))
        for axis, value in _ranks(query.get("rank")).items():
            condition &= compute.field(axis) == value
        return condition

    def _ids(self, trace_id: str) -> list[str]:
        """The trace's id, and those under which its rows were stored before it was known."""
        if not re.fullmatch("[0-9a-f]{32}", trace_id) or set(trace_id) == {"0"}:
            raise Ring2Error.of(
                "RING2_E_TRACE_ID", "32 lower-case hexadecimal digits, not all zero", repr(trace_id)
            )
        known_late = self._table("contexts", ["stored_trace_id"], _among("trace_id", [trace_id]))
        return [trace_id, *sorted({row["stored_trace_id"] for row in known_late})]

    def _table(self, dataset: str, columns: list[str] | None, condition: Any) -> list[dict[str, Any]]:
        """Rows of a dataset, of the files that can be read."""
        rows: list[dict[str, Any]] = []
        for path in self._files(dataset):
            try:
                file = self._file(path)
                names = file.physical_schema.names
                present = None if columns is None else [name for name in columns if name in names]
                rows += file.to_table(columns=present, filter=condition).to_pylist()
            except (OSError, ValueError) as error:
                self._pass_over(path, str(error))
        return rows

    def _pass_over(self, path: str, reason: str) -> None:
        if path not in self._damaged:
            warnings.warn(
                f"passed over {path}, which cannot be read ({reason}): what it held is missing",
                RuntimeWarning, stacklevel=2,
            )
        self._damaged[path] = reason

    def _file(self, path: str) -> Any:
        """A file with its footer, which is kept: a file of a store never changes."""
        file = self._footers.get(path)
        if file is None:
            (file,) = needed("pyarrow.dataset").dataset(path, format="parquet").get_fragments()
            file.ensure_complete_metadata()
            if len(self._footers) < _FOOTERS_MAX:
                self._footers[path] = file
        return file

    def _files(self, dataset: str) -> Iterable[str]:
        for folder, _, names in os.walk(os.path.join(self._folder, dataset)):
            for name in sorted(names):
                if name.endswith(".parquet"):
                    yield os.path.join(folder, name)


def _among(name: str, values: Iterable[Any]) -> Any:
    return needed("pyarrow.compute").field(name).isin(list(values))


def _key(row: dict[str, Any]) -> tuple:
    return tuple(row[name] for name in ("producer", "request_id", "hook", "layer", *_RANKS,
                                        "token_start", "step"))


def _order(row: dict[str, Any]) -> tuple:
    """The exporter's order: by request, hook, layer and ranks, and then as steps came."""
    return tuple(row[name] for name in ("request_id", "hook", "layer", *_RANKS, "producer", "step"))


def _distinct(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Delivered again, stored once: of rows with one key the first counts."""
    return list({_key(row): row for row in reversed(rows)}.values())[::-1]


def _held(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Hooks × layers × ranks, each with its tokens and bytes."""
    held: dict[tuple, dict[str, Any]] = {}
    for row in sorted(_distinct(rows), key=_order):
        names = ("hook", "layer", *_RANKS, "dtype")
        entry = held.setdefault(
            tuple(row[name] for name in names),
            {**{name: row[name] for name in names}, "token_start": row["token_start"],
             "token_end": row["token_end"], "rows": 0, "bytes": 0},
        )
        entry["token_start"] = min(entry["token_start"], row["token_start"])
        entry["token_end"] = max(entry["token_end"], row["token_end"])
        entry["rows"] += 1
        entry["bytes"] += row["data_bytes"]
    return list(held.values())


def _one(rows: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    values = sorted({row[name] for row in rows})
    if len(values) == 1:
        return rows
    raise Ring2Error.of(
        "RING2_E_QUERY", f"{name}=, as there are {len(values)}: {', '.join(values[:20])}", f"no {name}"
    )


def _of_one_rank(rows: list[dict[str, Any]], hook: str) -> list[dict[str, Any]]:
    ranks = sorted({tuple(row[name] for name in _RANKS) for row in rows})
    kind = HOOKS_BY_NAME.get(hook)
    if len(ranks) > 1 and (kind is None or kind.sharded):
        texts = ["tp:{},pp:{},dp:{},ep:{}".format(*one) for one in ranks]
        raise Ring2Error.of("RING2_E_QUERY", f"rank=, one of {'; '.join(texts)}", "no rank")
    # Of a tensor that is not sharded every rank holds the same values.
    return [row for row in rows if tuple(row[name] for name in _RANKS) == ranks[0]]


def _ranks(text: str | None) -> dict[str, int]:
    if text is None:
        return {}
    if text.isdigit():
        return {"tp_rank": int(text)}
    parts = [re.fullmatch(r"(tp|pp|dp|ep):(\d{1,5})", part) for part in text.split(",")]
    if not all(parts):
        raise Ring2Error.of("RING2_E_QUERY", 'rank="1", or rank="tp:0,pp:1"', repr(text))
    return {f"{part[1]}_rank": int(part[2]) for part in parts if part}


def _checked(row: dict[str, Any]) -> Row:
    numpy = needed("numpy")
    data = verified_bytes(row)
    dtype = "<u2" if row["dtype"] == "bfloat16" else row["dtype"]
    values = numpy.frombuffer(data, dtype=dtype).reshape(row["shape"])
    return Row(row["step"], row["token_start"], row["token_end"], values)


def _completeness(
    held: Ranges, expected: set[int] | None, tokens: tuple[int, int] | None,
    rows: list[Row], shape: str,
) -> dict[str, Any]:
    # A row of logits covers its step, of which it holds the last positions.
    ranges = [(row.token_start, row.token_end) for row in rows] if shape == "request" else held
    covered = {position for start, end in ranges for position in range(start, end)}
    wanted = expected if expected is not None else set(range(min(covered), max(covered) + 1))
    if tokens is not None:
        wanted = {position for position in wanted if tokens[0] <= position < tokens[1]}
    gaps = ranges_of(wanted - covered)
    known = "unknown" if expected is None else "complete"
    return {"gaps": gaps, "completeness": "incomplete" if gaps else known}
