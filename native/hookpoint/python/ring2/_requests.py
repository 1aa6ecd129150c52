"""Whose tokens the next forward passes process: ``request``, ``batch``, and their context.

A context variable holds the entries, one per batch row, so that it follows threads started by
``contextvars`` aware code and asyncio tasks. Knows nothing of models or segments: attached probes
are told when an entry opens and closes.
"""

import contextlib
import json
import logging
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Protocol

from ._errors import Ring2Error
from ._native import BODY_BYTES_MAX, STEP_ROWS_MAX

logger = logging.getLogger("ring2")

REQUEST_ID_CHARACTERS_MAX = 512

_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")

AttributeValue = str | int | float | bool


def _error(message: str) -> Ring2Error:
    return Ring2Error("RING2_E_REQUEST", message)


@dataclass(frozen=True)
class RequestInfo:
    """One request: its id, the W3C trace context of its caller, and attributes to keep with it."""

    request_id: str
    traceparent: str | None = None
    attributes: Mapping[str, AttributeValue] = field(default_factory=dict)
    tracestate: str | None = None


def _check_traceparent(traceparent: str | None) -> None:
    if traceparent is None:
        return
    match = _TRACEPARENT.fullmatch(traceparent) if isinstance(traceparent, str) else None
    version, trace_id, span_id, _, rest = match.groups() if match else ("ff", "", "", "", None)
    bad = version == "ff" or (version == "00" and rest is not None)
    if bad or set(trace_id) == {"0"} or set(span_id) == {"0"}:
        raise _error(
            "expected a W3C traceparent like 00-<32 hex>-<16 hex>-01 in lower case, "
            f"got {traceparent!r}"
        )


def sampled(traceparent: str | None) -> bool:
    """Whether a checked trace context says that its trace is sampled; without one, it is not."""
    return traceparent is not None and int(traceparent.split("-")[3], 16) & 1 == 1


def check_request(info: RequestInfo) -> RequestInfo:
    """The request itself, or RING2_E_REQUEST with what is wrong in it."""
    if not isinstance(info, RequestInfo):
        raise _error(f"expected a RequestInfo, got {type(info).__name__}")
    if not isinstance(info.request_id, str) or not info.request_id:
        raise _error(f"expected a request id that is a non-empty string, got {info.request_id!r}")
    if len(info.request_id) > REQUEST_ID_CHARACTERS_MAX:
        raise _error(
            f"expected a request id of at most {REQUEST_ID_CHARACTERS_MAX} characters, "
            f"got {len(info.request_id)}"
        )
    _check_traceparent(info.traceparent)
    if info.tracestate is not None and not isinstance(info.tracestate, str):
        raise _error(f"expected tracestate to be a string, got {type(info.tracestate).__name__}")
    for name, value in (info.attributes or {}).items():
        if not isinstance(name, str) or not isinstance(value, AttributeValue):
            raise _error(
                "expected attributes that map names to a string, number or boolean, "
                f"got {name!r}: {type(value).__name__}"
            )
    size = len(encode(request_body(info, 0, 0)))
    if size > BODY_BYTES_MAX:
        raise _error(f"expected a request of at most {BODY_BYTES_MAX} bytes as JSON, got {size}")
    return info


def request_body(info: RequestInfo, key: int, started_realtime_ns: int) -> dict[str, object]:
    """The REQUEST record's body."""
    return {
        "key": key,
        "request_id": info.request_id,
        "traceparent": info.traceparent,
        "tracestate": info.tracestate,
        "attributes": dict(info.attributes or {}),
        "started_realtime_ns": str(started_realtime_ns),
    }


class Counts(Protocol):
    """What a producer has counted of one request."""

    key: int
    steps: int
    left_out: int  # steps that nobody wanted
    tokens: int
    prompt_tokens: int


def end_body(counts: Counts, outcome: str) -> dict[str, object]:
    """The REQUEST_END record's body."""
    return {
        "key": counts.key,
        "steps": counts.steps,
        **({"steps_left_out": counts.left_out} if counts.left_out else {}),
        "tokens": counts.tokens,
        "prompt_tokens": counts.prompt_tokens,
        "outcome": outcome,
    }


def encode(body: Mapping[str, object]) -> bytes:
    """JSON as UTF-8. A value that JSON cannot hold (NaN, a lone surrogate) is RING2_E_REQUEST."""
    try:
        text = json.dumps(body, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        return text.encode("utf-8")
    except (ValueError, TypeError) as error:
        raise _error(f"expected values that JSON can hold, got: {error}") from error


class Sink(Protocol):
    """A probe, as the requests see it. Neither call raises."""

    def open_request(self, entry: "Entry") -> None: ...

    def close_request(self, entry: "Entry", outcome: str) -> None: ...


class Session:
    """What one probe knows of one request: its key in the segment, and what was processed."""

    __slots__ = ("announced", "key", "left_out", "prompt_tokens", "steps", "tokens")

    def __init__(self, key: int) -> None:
        self.key = key
        self.announced = False  # whether its REQUEST record was written
        self.steps = 0
        self.left_out = 0  # steps that nobody wanted
        self.tokens = 0
        self.prompt_tokens = 0

    def count(self, token_end: int, prefill: bool, wanted: bool) -> None:
        if wanted:
            self.steps += 1
        else:
            self.left_out += 1
        self.tokens = max(self.tokens, token_end)
        if prefill:
            self.prompt_tokens = max(self.prompt_tokens, token_end)


class Entry:
    """One open request, with a session in every probe that has seen it."""

    __slots__ = ("__weakref__", "info", "sampled", "sessions", "started_realtime_ns")

    def __init__(self, info: RequestInfo) -> None:
        self.info = info
        self.sampled = sampled(info.traceparent)
        self.started_realtime_ns = time.time_ns()
        self.sessions: dict[Sink, Session] = {}

    def close(self, outcome: str) -> None:
        for sink in list(self.sessions):
            sink.close_request(self, outcome)


_current: ContextVar[tuple[Entry, ...] | None] = ContextVar("ring2_requests", default=None)

# Probes in the order of attachment; ring2._probe keeps it.
attached: list[Sink] = []


def current() -> tuple[Entry, ...] | None:
    """The open requests of this context, one per batch row; None outside of any."""
    return _current.get()


def _restore(token: object) -> None:
    try:
        _current.reset(token)
    except ValueError:
        # Left in another context than it was entered in (a generator resumed elsewhere): the
        # entries have ended all the same.
        _current.set(None)


@contextlib.contextmanager
def batch(requests: Sequence[RequestInfo]) -> Iterator[None]:
    """Forward passes inside belong to these requests: entry i to row i of the batch."""
    infos = [check_request(info) for info in requests]
    if not 0 < len(infos) <= STEP_ROWS_MAX:
        raise _error(f"expected 1 to {STEP_ROWS_MAX} requests, one per batch row, got {len(infos)}")
    entries = tuple(Entry(info) for info in infos)
    token = _current.set(entries)
    # With several models attached it is the first forward pass that shows whose request it is.
    if len(attached) == 1:
        for entry in entries:
            attached[0].open_request(entry)
    outcome = "error"
    try:
        yield
        outcome = "ok"
    finally:
        _restore(token)
        for entry in entries:
            entry.close(outcome)


@contextlib.contextmanager
def request(
    request_id: str,
    traceparent: str | None = None,
    attributes: Mapping[str, AttributeValue] | None = None,
    tracestate: str | None = None,
) -> Iterator[None]:
    """Forward passes inside belong to this request (a batch of one row)."""
    with batch([RequestInfo(request_id, traceparent, attributes or {}, tracestate)]):
        yield
