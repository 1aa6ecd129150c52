"""In vLLM's front end: a request's id, trace context and arrival, handed on to the workers.

They ride in the sampling parameters' ``extra_args``, which vLLM carries to every worker beside its
internal id. Trace headers are taken before vLLM drops them for want of an OTLP endpoint. Whatever
goes wrong here, the request goes on as it came.
"""

import functools
import inspect
import logging
import time
from collections.abc import Callable, Mapping
from typing import Any

from ring2 import _requests
from ring2._errors import Ring2Error

from ._sessions import EXTRA

logger = logging.getLogger("vllm.ring2")

PARAMETERS = ("request_id", "prompt", "params", "trace_headers")


def _header(headers: object, name: str) -> str | None:
    if not isinstance(headers, Mapping):
        return None
    value = headers.get(name)
    return value if isinstance(value, str) and value else None


def _context(headers: object) -> dict[str, str]:
    """Valid trace context of a request's headers; nothing for what is malformed."""
    traceparent, tracestate = _header(headers, "traceparent"), _header(headers, "tracestate")
    if traceparent is None:
        return {}
    try:
        _requests.check_request(_requests.RequestInfo("checked", traceparent, {}, tracestate))
    except Ring2Error:
        return {}
    context = {"traceparent": traceparent}
    return context if tracestate is None else {**context, "tracestate": tracestate}


def marked(params: Any, request_id: str, headers: object, in_process: bool) -> Any:
    """A copy of sampling parameters that says whose they are; others are given back as they are."""
    if not hasattr(params, "extra_args") or not hasattr(params, "clone"):
        return params
    extra = dict(params.extra_args or {})
    # Over HTTP a client can set extra_args: what it says under our name is not taken.
    own = extra.get(EXTRA) if in_process else None
    given: dict[str, Any] = {**own} if isinstance(own, Mapping) else {}
    # LLM numbers its requests from 0 in each process: only the internal id is one of its own.
    if not (in_process and request_id.isdigit()):
        given.setdefault("request_id", request_id)
    given.update(_context(headers))
    given["started_realtime_ns"] = time.time_ns()
    copied = params.clone()
    copied.extra_args = {**extra, EXTRA: given}
    return copied


def wrap_add_request(owner: type, in_process: bool) -> None:
    """Has ``owner.add_request`` mark the parameters of every request."""
    original: Callable[..., Any] = owner.add_request
    if getattr(original, "_ring2", False):
        return
    signature = inspect.signature(original)

    def bound(args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
        try:
            call = signature.bind(*args, **kwargs)
            given = call.arguments
            headers, request_id = given.get("trace_headers"), given["request_id"]
            prompt = given["prompt"]
            if hasattr(prompt, "params"):  # an EngineCoreRequest, with parameters of its own
                prompt.params = marked(prompt.params, prompt.request_id, headers, in_process)
            given["params"] = marked(given["params"], request_id, headers, in_process)
            return call.args, call.kwargs
        except Exception as error:  # noqa: BLE001  the request must go on, whatever this was
            logger.debug("ring2: a request was not marked: %s", error)
            return args, kwargs

    if inspect.iscoroutinefunction(original):

        @functools.wraps(original)
        async def add_request(*args: Any, **kwargs: Any) -> Any:
            args, kwargs = bound(args, kwargs)
            return await original(*args, **kwargs)
    else:

        @functools.wraps(original)
        def add_request(*args: Any, **kwargs: Any) -> Any:
            args, kwargs = bound(args, kwargs)
            return original(*args, **kwargs)

    add_request._ring2 = True
    owner.add_request = add_request
