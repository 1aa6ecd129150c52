"""Reading back over HTTP: ``ring2.open(url).trace(trace_id).tensor("resid_pre", layer=11)``.

Uses the standard library alone; numpy, torch and pandas are imported when a result is asked for in
their form.
"""

import io
import json
import urllib.error
import urllib.parse
import urllib.request
from email.message import Message
from typing import Any

from ._errors import Ring2Error
from ._selection import ALIASES, HOOKS_BY_NAME

TIMEOUT_SECONDS = 60.0
PROBLEM_BYTES_MAX = 1 << 20


class Client:
    """A running exporter. Requests go to its address and nowhere else."""

    def __init__(self, url: str, token: str | None = None) -> None:
        parts = urllib.parse.urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise Ring2Error(
                "RING2_E_ARGUMENT", f"expected an address like http://127.0.0.1:9464, got {url!r}"
            )
        self._url = url.rstrip("/")
        self._token = token

    def _get(
        self, path: str, query: dict[str, object] | None = None
    ) -> tuple[bytes, Message]:
        """Body and headers of an answer."""
        wanted = {key: value for key, value in (query or {}).items() if value is not None}
        target = f"{self._url}{path}" + (f"?{urllib.parse.urlencode(wanted)}" if wanted else "")
        headers = {"authorization": f"Bearer {self._token}"} if self._token else {}
        call = urllib.request.Request(target, headers=headers)
        try:
            with urllib.request.urlopen(call, timeout=TIMEOUT_SECONDS) as answer:
                return answer.read(), answer.headers
        except urllib.error.HTTPError as error:
            raise _problem(error) from None
        except (urllib.error.URLError, OSError) as error:
            raise Ring2Error(
                "RING2_E_UNREACHABLE",
                f"expected an exporter at {self._url}, got: {error}. Start one with "
                "`ring2-exporter run`, or give its address.",
            ) from error

    def trace(self, trace_id: str) -> "Trace":
        """What is known of a trace. RING2_E_TRACE_UNKNOWN when the store has nothing of it."""
        path = f"/v1/traces/{urllib.parse.quote(trace_id, safe='')}"
        return Trace(self, path, json.loads(self._get(path)[0]))


class Trace:
    """One trace: ``info`` is the exporter's answer as it is (see /openapi.json)."""

    def __init__(self, client: Client, path: str, info: dict[str, Any]) -> None:
        self._client = client
        self._path = path
        self.info = info

    @property
    def complete(self) -> bool:
        """Whether every request of the trace is known to be complete; unknown counts as not."""
        states = [request["completeness"] for request in self.info["requests"]]
        return bool(states) and all(state == "complete" for state in states)

    def tensors(self, hook: str | None = None, layer: int | None = None,
                request_id: str | None = None) -> list[dict[str, Any]]:
        """The list of stored tensors, with shapes, bytes and statistics."""
        query = {
            "hook": _hook_name(hook), "layer": _layer_text(layer), "request_id": request_id
        }
        body, _ = self._client._get(f"{self._path}/tensors", query)
        return json.loads(body)["tensors"]

    def tensor(
        self,
        hook: str,
        layer: int | None = None,
        request_id: str | None = None,
        tokens: str | None = None,
        heads: str | None = None,
    ) -> "TensorData":
        """One tensor, stitched over steps. ``layer`` is left out for global hooks.

        tokens  a half-open range of positions like "0:16"; heads  numbers like "0,3"
        """
        name = _hook_name(hook)
        number = "global" if layer is None else _layer_text(layer)
        path = f"{self._path}/tensors/{urllib.parse.quote(str(name), safe='')}/{number}"
        query = {"request_id": request_id, "tokens": tokens, "heads": heads}
        body, headers = self._client._get(path, {**query, "format": "safetensors"})
        return TensorData(body, headers.get("x-ring2-completeness", "unknown") == "complete")

    def to_pandas(self) -> Any:
        """The list of stored tensors as a DataFrame, one row per tensor."""
        import pandas

        return pandas.json_normalize(self.tensors())


class TensorData:
    """One tensor's bytes with dtype and shape; ``complete`` says whether all of it is there."""

    def __init__(self, safetensors: bytes, complete: bool) -> None:
        self.complete = complete
        entry, self.data = _read_safetensors(safetensors)
        self.dtype: str = _DTYPES.get(entry["dtype"], entry["dtype"])
        self.shape: tuple[int, ...] = tuple(entry["shape"])

    def numpy(self) -> Any:
        """A numpy array; bfloat16, which numpy lacks, becomes float32 without loss."""
        import numpy

        if self.dtype == "bfloat16":
            halves = numpy.frombuffer(self.data, dtype="<u2").astype("<u4") << 16
            return halves.view("<f4").reshape(self.shape)
        return numpy.frombuffer(self.data, dtype=self.dtype).reshape(self.shape)

    def torch(self) -> Any:
        """A torch tensor of the captured dtype."""
        import torch

        if not self.data:
            return torch.empty(self.shape, dtype=getattr(torch, self.dtype))
        flat = torch.frombuffer(bytearray(self.data), dtype=getattr(torch, self.dtype))
        return flat.reshape(self.shape)


_DTYPES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U8": "uint8",
    "BOOL": "bool",
}


def _read_safetensors(data: bytes) -> tuple[dict[str, Any], bytes]:
    """The one tensor of a safetensors document: 8 bytes of header length, JSON, bytes."""
    stream = io.BytesIO(data)
    length = int.from_bytes(stream.read(8), "little")
    if length <= 0 or length > len(data):
        raise Ring2Error("RING2_E_INTERNAL", f"expected safetensors, got {data[:16]!r}")
    header = json.loads(stream.read(length))
    entries = [value for key, value in header.items() if key != "__metadata__"]
    if len(entries) != 1:
        raise Ring2Error("RING2_E_INTERNAL", f"expected one tensor, got {len(entries)}")
    first, last = entries[0]["data_offsets"]
    return entries[0], data[8 + length + first : 8 + length + last]


def _hook_name(hook: str | None) -> str | None:
    if hook is None:
        return None
    name = ALIASES.get(hook, hook)
    if name not in HOOKS_BY_NAME:
        raise Ring2Error(
            "RING2_E_SELECTION", f"expected one of {', '.join(HOOKS_BY_NAME)}, got {hook!r}"
        )
    return name


def _layer_text(layer: int | None) -> str | None:
    """Layers as the API writes them: hooks without layers are global."""
    if layer is None:
        return None
    return "global" if layer < 0 else str(layer)


def _problem(error: urllib.error.HTTPError) -> Ring2Error:
    """The exporter's own error (application/problem+json) with its stable code."""
    body = error.read(PROBLEM_BYTES_MAX)
    try:
        problem = json.loads(body)
        text = f"expected {problem['expected']}, got {problem['actual']}. {problem['action']}"
        return Ring2Error(problem["code"], text)
    except (ValueError, KeyError, TypeError):
        return Ring2Error("RING2_E_UNREACHABLE", f"expected an exporter's answer, got {error}")


def open(url: str, token: str | None = None) -> Client:
    """A client of the exporter at ``url``; ``token`` is its bearer token, if it wants one."""
    return Client(url, token)
