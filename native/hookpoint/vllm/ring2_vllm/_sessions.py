"""Requests of one worker: from vLLM's internal ids to the keys and records of a segment.

A session lives from a request's first step to the step in which vLLM says it has finished. Ids, trace
context and arrival come in the sampling parameters (``_trace``); without them the internal id
says what it can.
"""

import itertools
import re
import time
from collections.abc import Iterable, Mapping
from typing import Any

from ring2 import _native, _requests
from ring2._errors import Ring2Error
from ring2._producer import Producer
from ring2._requests import RequestInfo

EXTRA = "ring2"  # the name in SamplingParams.extra_args
INTERNAL_ID = "vllm.request.internal_id"  # an attribute

_CHILD = re.compile(r"(\d+)_")
_PARAMETERS = {
    "max_tokens": "gen_ai.request.max_tokens",
    "temperature": "gen_ai.request.temperature",
    "top_p": "gen_ai.request.top_p",
    "top_k": "gen_ai.request.top_k",
    "seed": "gen_ai.request.seed",
    "frequency_penalty": "gen_ai.request.frequency_penalty",
    "presence_penalty": "gen_ai.request.presence_penalty",
}


def external_id(internal: str, given: object) -> str:
    """The id that a request is known by outside; of one of several samples with its number.

    ``given`` is the id that came with it. Without one it is vLLM's internal id, which is unique.
    """
    if not isinstance(given, str) or not given:
        return internal
    child = _CHILD.match(internal)
    if child is not None and internal[child.end() :].startswith(given):
        return f"{child.group(1)}_{given}"
    return given


def _attributes(parameters: Any) -> dict[str, Any]:
    values = {name: getattr(parameters, name, None) for name in _PARAMETERS}
    return {
        _PARAMETERS[name]: value for name, value in values.items()
        if isinstance(value, (int, float)) and not isinstance(value, bool)
    }


def request_info(internal: str, parameters: Any) -> tuple[RequestInfo, int]:
    """The request, and when it came (ns of the real-time clock)."""
    extra = getattr(parameters, "extra_args", None)
    given: Any = extra.get(EXTRA) if isinstance(extra, Mapping) else None
    given = given if isinstance(given, Mapping) else {}
    name = external_id(internal, given.get("request_id"))[: _requests.REQUEST_ID_CHARACTERS_MAX]
    started = given.get("started_realtime_ns")
    arrived = started if isinstance(started, int) and started > 0 else time.time_ns()
    own = given.get("attributes")
    attributes = {**_attributes(parameters), **(own if isinstance(own, Mapping) else {})}
    info = RequestInfo(name, given.get("traceparent"), attributes, given.get("tracestate"))
    try:
        return _requests.check_request(info), arrived
    except Ring2Error:
        return RequestInfo(name), arrived


class Session:
    """One request in this worker."""

    __slots__ = ("announced", "info", "internal", "key", "left_out", "prompt_tokens", "sampled",
                 "started", "steps", "tokens")

    def __init__(self, key: int, internal: str, state: Any) -> None:
        self.key = key
        self.internal = internal
        self.info, self.started = request_info(internal, getattr(state, "sampling_params", None))
        self.sampled = _requests.sampled(self.info.traceparent)
        self.prompt_tokens = int(state.num_prompt_tokens)
        self.announced = False
        self.steps = self.left_out = self.tokens = 0

    def count(self, token_end: int, wanted: bool) -> None:
        self.tokens = max(self.tokens, token_end)
        if wanted:
            self.steps += 1
        else:
            self.left_out += 1


class Sessions:
    """The open requests of one worker."""

    def __init__(self, producer: Producer) -> None:
        self._producer = producer
        self._keys = itertools.count(1)
        self._open: dict[str, Session] = {}

    def of(self, internal: str, states: Mapping[str, Any]) -> Session:
        """The session of a scheduled request; ``states`` are the model runner's."""
        session = self._open.get(internal)
        if session is None:
            session = Session(next(self._keys), internal, states[internal])
            self._open[internal] = session
        return session

    def announce(self, session: Session) -> None:
        """Writes the REQUEST record, once."""
        if session.announced:
            return
        session.announced = True
        body = _requests.request_body(session.info, session.key, session.started)
        body["internal_request_id"] = session.internal
        # The exporter shows attributes as they are, so vLLM's own logs can be searched for it.
        body["attributes"][INTERNAL_ID] = session.internal
        self._producer.send(_native.KIND_REQUEST, body)

    def finish(self, internal_ids: Iterable[str], outcomes: Mapping[str, str]) -> None:
        """Writes REQUEST_END of requests that vLLM has ended."""
        for internal in internal_ids:
            session = self._open.pop(internal, None)
            if session is not None and session.announced:
                self._end(session, outcomes.get(internal, "ok"))

    def finish_all(self) -> None:
        """When the worker stops: what is still open was cut off."""
        self.finish(list(self._open), dict.fromkeys(self._open, "error"))

    def _end(self, session: Session, outcome: str) -> None:
        body = _requests.end_body(session, outcome)
        self._producer.send(_native.KIND_REQUEST_END, body)
