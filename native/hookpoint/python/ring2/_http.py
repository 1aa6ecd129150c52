"""GET over HTTP with the standard library: errors with codes, broken connections resumed.

An answer is read into memory of its stated length, part by part. A connection that breaks before
its end is asked again for the rest (Range), under the condition that the answer is still the same
(If-Range with its ETag): otherwise it comes whole and is begun anew. No answer that is too short is
ever returned.
"""

import json
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping
from email.message import Message
from http.client import HTTPException, HTTPResponse

from ._errors import Ring2Error

TIMEOUT_SECONDS = 60.0
PROBLEM_BYTES_MAX = 1 << 20
# More than an exporter sends; a larger length is a mistake, not an answer to make room for.
ANSWER_BYTES_MAX = 1 << 32
READ_BYTES = 1 << 20
# Attempts in a row that bring no further byte.
RETRIES = 5
FIRST_WAIT_SECONDS = 0.2
WAIT_SECONDS_MAX = 5.0

Progress = Callable[[int, int], None]


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """The token is for the address that was given, so no other is gone to."""

    def redirect_request(self, *_):
        return None


class _Broken(Exception):
    """The connection ended before the answer did."""


class Http:
    """One exporter. Requests go to its address and nowhere else."""

    def __init__(self, url: str, token: str | None) -> None:
        parts = urllib.parse.urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise Ring2Error.of(
                "RING2_E_ARGUMENT",
                "an address like http://127.0.0.1:9464 or the folder of a store",
                repr(url),
            )
        self.url = url.rstrip("/")
        self._token = token
        self._opener = urllib.request.build_opener(_NoRedirect)

    def get(
        self,
        path: str,
        query: Mapping[str, object] | None = None,
        progress: Progress | None = None,
    ) -> tuple[bytearray, Message]:
        """Body and headers of an answer. ``progress`` is told bytes that came, and all bytes."""
        wanted = {key: value for key, value in (query or {}).items() if value is not None}
        target = self.url + path + (f"?{urllib.parse.urlencode(wanted)}" if wanted else "")
        answer = _Answer(progress)
        idle = 0
        while True:
            before = answer.received
            try:
                with self._open(target, answer.resume_headers()) as response:
                    answer.take(response)
                return answer.body, answer.headers
            except urllib.error.HTTPError as error:
                with error:
                    wait = _retry_after(error)
                    idle += 1
                    if wait is None or idle > RETRIES:
                        raise _problem(error, self.url) from None
                time.sleep(wait)
            except (urllib.error.URLError, HTTPException, OSError, _Broken) as error:
                idle = 0 if answer.received > before else idle + 1
                # Nobody there at the first call is no broken connection.
                if answer.headers is None or idle > RETRIES:
                    raise self._unreachable(answer, error) from error
                time.sleep(min(WAIT_SECONDS_MAX, FIRST_WAIT_SECONDS * 2**idle))

    def _open(self, target: str, headers: dict[str, str]) -> HTTPResponse:
        if self._token:
            headers["authorization"] = f"Bearer {self._token}"
        call = urllib.request.Request(target, headers=headers)
        return self._opener.open(call, timeout=TIMEOUT_SECONDS)

    def _unreachable(self, answer: "_Answer", error: Exception) -> Ring2Error:
        if answer.headers is None:
            return Ring2Error.of(
                "RING2_E_UNREACHABLE",
                f"an exporter at {self.url}",
                str(error),
                "Start one with `ring2-exporter run`, or give its address.",
            )
        return Ring2Error.of(
            "RING2_E_UNREACHABLE",
            f"an answer of {len(answer.body)} bytes from {self.url}",
            f"{answer.received} bytes, then {error} {RETRIES + 1} times",
            "Look at the exporter's log, and ask again.",
        )


class _Answer:
    """An answer that may come in several parts."""

    def __init__(self, progress: Progress | None) -> None:
        self.body = bytearray()
        self.received = 0
        self.headers: Message | None = None
        self._progress = progress

    def resume_headers(self) -> dict[str, str]:
        tag = self.headers and self.headers.get("etag")
        if not tag or self.received == 0:
            return {}
        return {"range": f"bytes={self.received}-", "if-range": tag}

    def take(self, response: HTTPResponse) -> None:
        if response.status != 206:
            self._begin(response)
        elif not self._continues(response):
            raise Ring2Error.of(
                "RING2_E_UNREACHABLE",
                f"the bytes from {self.received} on",
                f"content-range {response.headers.get('content-range')!r}",
                "What stands between here and the exporter changes its answers: go around it.",
            )
        view = memoryview(self.body)
        while self.received < len(view):
            count = response.readinto(view[self.received : self.received + READ_BYTES])
            if not count:
                raise _Broken("the connection ended")
            self.received += count
            if self._progress:
                self._progress(self.received, len(view))

    def _begin(self, response: HTTPResponse) -> None:
        length = response.headers.get("content-length")
        self.headers = response.headers
        self.received = 0
        if length is None:
            # Small documents only: what is large has a length.
            self.body = bytearray(response.read())
            self.received = len(self.body)
            return
        if int(length) > ANSWER_BYTES_MAX:
            raise Ring2Error.of(
                "RING2_E_TOO_LARGE", f"at most {ANSWER_BYTES_MAX} bytes", f"{length} bytes"
            )
        self.body = bytearray(int(length))

    def _continues(self, response: HTTPResponse) -> bool:
        first, last = self.received, len(self.body) - 1
        return response.headers.get("content-range") == f"bytes {first}-{last}/{last + 1}"


def _retry_after(error: urllib.error.HTTPError) -> float | None:
    """Seconds to wait, where the exporter says that it is worth to ask again."""
    text = error.headers.get("retry-after", "") if error.code == 503 else ""
    return min(WAIT_SECONDS_MAX, float(text)) if text.isdigit() else None


def _problem(error: urllib.error.HTTPError, url: str) -> Ring2Error:
    """The exporter's own error (application/problem+json) with its stable code."""
    body = error.read(PROBLEM_BYTES_MAX)
    try:
        problem = json.loads(body)
        return Ring2Error.of(
            problem["code"], problem["expected"], problem["actual"], problem["action"]
        )
    except (ValueError, KeyError, TypeError):
        return Ring2Error.of(
            "RING2_E_UNREACHABLE", f"an exporter's answer from {url}", f"{error}", "Mend the address."
        )
