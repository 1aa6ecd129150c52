"""Reading back: ``ring2.open(url).trace(trace_id).tensor("resid_pre", layer=11).numpy()``.

What is asked is the same of a running exporter (_http.py) and of a store's folder (_store.py).
"""

import json
import os
import re
import urllib.parse
from collections.abc import Iterator
from typing import Any, Protocol

from ._errors import Ring2Error
from ._http import Http
from ._progress import progress_bar
from ._selection import ALIASES
from ._shards import parallel_of
from ._store import StoreSource
from ._tensor_data import TensorData, needed, read_safetensors


class Source(Protocol):
    """Where traces come from. Queries hold texts as the HTTP API takes them, or None."""

    def info(self, trace_id: str) -> dict[str, Any]: ...

    def rows(self, trace_id: str, query: dict[str, str | None]) -> list[dict[str, Any]]: ...

    def tensor(
        self, trace_id: str, hook: str, layer: int, query: dict[str, str | None],
        progress: bool | None,
    ) -> TensorData: ...


class Client:
    """A running exporter, or the folder of a store."""

    def __init__(self, source: Source) -> None:
        self._source = source

    def trace(self, trace_id: str) -> "Trace":
        """What is known of a trace. RING2_E_TRACE_UNKNOWN when the store has nothing of it."""
        return Trace(self._source, trace_id, self._source.info(trace_id))


class Trace:
    """One trace: ``info`` is the exporter's answer as it is (see /openapi.json).

    Iterating gives its tensors one after the other, each fetched when it is its turn. It passes over
    tensors that were redacted (their elements are not stored), of which ``tensor`` is the error
    RING2_E_REDACTED; ``len`` counts them.
    """

    def __init__(self, source: Source, trace_id: str, info: dict[str, Any]) -> None:
        self._source = source
        self._trace_id = trace_id
        self.info = info

    @property
    def requests(self) -> list[dict[str, Any]]:
        """Its requests, one entry per request and producer."""
        return self.info["requests"]

    @property
    def complete(self) -> bool:
        """Whether every request of the trace is known to be complete; unknown counts as not."""
        states = [request["completeness"] for request in self.requests]
        return bool(states) and all(state == "complete" for state in states)

    def tensors(self, hook: str | None = None, layer: int | None = None,
                request_id: str | None = None, producer: str | None = None) -> list[dict[str, Any]]:
        """The list of stored rows, one per forward pass, with shapes, bytes and statistics."""
        query = {
            "hook": _hook_name(hook),
            "layer": None if layer is None else layer_text(layer),
            "request_id": request_id,
            "producer": producer,
        }
        return self._source.rows(self._trace_id, query)

    def tensor(
        self,
        hook: str,
        layer: int | None = None,
        request_id: str | None = None,
        tokens: str | None = None,
        heads: str | None = None,
        producer: str | None = None,
        rank: str | None = None,
        progress: bool | None = None,
    ) -> TensorData:
        """One tensor, stitched over steps. ``layer`` is left out for global hooks.

        tokens    a half-open range of positions like "0:16"; heads  numbers like "0,3"
        rank      one shard of a sharded tensor, which comes whole without it: "1" is the
                  tensor-parallel rank, "tp:0,pp:1" names others
        progress  True shows a bar (needs tqdm), False none; None where somebody looks
        """
        query = {
            "request_id": request_id,
            "tokens": tokens,
            "heads": heads,
            "producer": producer,
            "rank": rank,
        }
        number = -1 if layer is None else layer
        return self._source.tensor(self._trace_id, str(_hook_name(hook)), number, query, progress)

    def to_pandas(self) -> Any:
        """The stored rows as a DataFrame, with a column per statistic."""
        pandas = needed("pandas")
        frame = pandas.json_normalize(self.tensors())
        if "captured_at" in frame:
            frame["captured_at"] = pandas.to_datetime(frame["captured_at"], format="ISO8601")
        return frame

    def __len__(self) -> int:
        return len(self._held())

    def __iter__(self) -> Iterator[TensorData]:
        for held in self._held():
            try:
                tensor = self.tensor(**held)
            except Ring2Error as error:
                if error.code != "RING2_E_REDACTED":
                    raise
                continue
            yield tensor

    def _held(self) -> list[dict[str, Any]]:
        """Arguments of ``tensor`` for every tensor that the trace has, each once. Shards that ranks
        hold of one tensor are one."""
        found = {}
        for request in self.requests:
            for one in request["tensors"]:
                ranks = ",".join(f"{axis}:{one[axis + '_rank']}" for axis in ("tp", "pp", "dp", "ep"))
                held = {
                    "hook": one["hook"],
                    "layer": one["layer"],
                    "request_id": request["request_id"],
                    "producer": request["producer"],
                    "rank": None if _is_parallel(request) else ranks,
                }
                found[tuple(held.values())] = held
        return list(found.values())


class ExporterSource:
    """Traces of a running exporter."""

    def __init__(self, http: Http) -> None:
        self._http = http

    def info(self, trace_id: str) -> dict[str, Any]:
        return json.loads(self._http.get(_path(trace_id))[0])

    def rows(self, trace_id: str, query: dict[str, str | None]) -> list[dict[str, Any]]:
        return json.loads(self._http.get(f"{_path(trace_id)}/tensors", query)[0])["tensors"]

    def tensor(
        self, trace_id: str, hook: str, layer: int, query: dict[str, str | None],
        progress: bool | None,
    ) -> TensorData:
        path = f"{_path(trace_id)}/tensors/{urllib.parse.quote(hook, safe='')}/{layer_text(layer)}"
        with progress_bar(f"{hook}.{layer_text(layer)}", progress) as show:
            body, headers = self._http.get(path, {**query, "format": "safetensors"}, show)
        return read_safetensors(body, headers.get("x-ring2-completeness", "unknown"))


def _is_parallel(request: dict[str, Any]) -> bool:
    """Whether several processes ran the request together."""
    details = request.get("details")
    if details is not None:
        return details.get("parallel") is not None
    parallel = parallel_of(request.get("summary"), "")
    return parallel is not None and not parallel.gathered


def _path(trace_id: str) -> str:
    return f"/v1/traces/{urllib.parse.quote(trace_id, safe='')}"


def _hook_name(hook: str | None) -> str | None:
    if hook is None:
        return None
    name = ALIASES.get(hook, hook)
    # Not only those of the catalogue: an imported capture has hooks named after modules.
    if re.fullmatch("[a-z0-9_]{1,64}", name) is None:
        raise Ring2Error.of("RING2_E_SELECTION", "a hook name such as resid_pre", repr(hook))
    return name


def layer_text(layer: int) -> str:
    """Layers as the API writes them: hooks without layers are global."""
    return "global" if layer < 0 else str(layer)


def open(where: str | os.PathLike[str], token: str | None = None) -> Client:
    """The traces of a running exporter, or of a store's folder.

    where  an address like http://127.0.0.1:9464, with the bearer ``token`` if it wants one; or a
           folder, for which PyArrow is needed (a path, or file:///path)
    """
    text = os.fspath(where)
    scheme = urllib.parse.urlsplit(text).scheme
    if scheme == "file":
        return Client(StoreSource(urllib.parse.unquote(urllib.parse.urlsplit(text).path)))
    if scheme == "" and ("/" in text or os.path.isdir(text)):
        return Client(StoreSource(text))
    return Client(ExporterSource(Http(text, token)))
