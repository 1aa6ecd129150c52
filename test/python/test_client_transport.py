"""Answers over connections that break, from a server that breaks them on purpose."""

import http.server
import io
import json
import struct
import sys
import threading
import types

import numpy
import pytest

import ring2
from ring2 import Ring2Error, _http

TRACE = "0af7651916cd43dd8448eb211c80319c"
VALUES = numpy.arange(40_000, dtype="<f4").reshape(200, 200)


def _safetensors(values) -> bytes:
    entry = {"dtype": "F32", "shape": list(values.shape), "data_offsets": [0, values.nbytes]}
    facts = {"hook": "resid_pre", "layer": "1", "tokens": "[[0,200]]", "gaps": "[]"}
    header = json.dumps({"__metadata__": facts, "tensor": entry}).encode()
    header += b" " * (-len(header) % 8)
    return struct.pack("<Q", len(header)) + header + values.tobytes()


class Breaking(http.server.BaseHTTPRequestHandler):
    """Answers a range as asked, and ends each connection after the next of ``server.cuts``."""

    def do_GET(self):
        if not self.path.startswith(f"/v1/traces/{TRACE}/tensors/"):
            return self._send(200, json.dumps({"requests": [], "trace_id": TRACE}).encode())
        server = self.server
        server.asked.append((self.headers.get("range"), self.headers.get("if-range")))
        if server.refusals:
            status, headers, body = server.refusals.pop(0)
            return self._send(status, body, **headers)
        body, tag = server.bodies[0]
        if len(server.bodies) > 1:
            server.bodies.pop(0)
        first = 0
        headers = {"etag": tag}
        if self.headers.get("range") and self.headers.get("if-range") == tag:
            first = int(self.headers["range"].removeprefix("bytes=").removesuffix("-"))
            headers["content-range"] = f"bytes {first + server.shift}-{len(body) - 1}/{len(body)}"
        self._send(206 if first else 200, body[first:], **headers)

    def _send(self, status, body, **headers):
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        cut = self.server.cuts.pop(0) if self.server.cuts and status < 300 and len(body) > 999 else None
        self.wfile.write(body[:cut])

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(_http, "FIRST_WAIT_SECONDS", 0.0)
    monkeypatch.setattr(_http, "WAIT_SECONDS_MAX", 0.0)
    made = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Breaking)
    made.asked, made.cuts, made.refusals, made.shift = [], [], [], 0
    made.bodies = [(_safetensors(VALUES), '"one"')]
    thread = threading.Thread(target=made.serve_forever)
    thread.start()
    made.url = f"http://127.0.0.1:{made.server_address[1]}"
    yield made
    made.shutdown()
    thread.join()
    made.server_close()


def _fetch(server, **options):
    return ring2.open(server.url).trace(TRACE).tensor("resid_pre", layer=1, **options)


def test_a_broken_connection_is_resumed_where_it_ended(server):
    server.cuts = [10_000, 50_000]
    tensor = _fetch(server)
    assert numpy.array_equal(tensor.numpy(), VALUES)
    assert server.asked == [
        (None, None), ("bytes=10000-", '"one"'), ("bytes=60000-", '"one"')
    ]
    assert (tensor.tokens, tensor.gaps, tensor.name) == ([(0, 200)], [], "resid_pre.1")


def test_a_tensor_that_has_changed_meanwhile_is_begun_anew(server):
    server.cuts = [10_000]
    server.bodies.append((_safetensors(VALUES + 1), '"two"'))
    assert numpy.array_equal(_fetch(server).numpy(), VALUES + 1)
    assert server.asked[1] == ("bytes=10000-", '"one"')


def test_a_connection_that_brings_nothing_more_is_given_up_and_never_taken_for_whole(server):
    server.cuts = [10_000] + [0] * 20
    with pytest.raises(Ring2Error) as caught:
        _fetch(server)
    assert caught.value.code == "RING2_E_UNREACHABLE"
    assert "10000 bytes" in caught.value.actual and caught.value.action
    assert len(server.asked) == _http.RETRIES + 2


def test_a_damaged_row_found_while_resuming_is_the_exporters_error(server):
    server.cuts = [10_000]
    problem = {"code": "RING2_E_CHECKSUM", "expected": "a", "actual": "b", "action": "C."}
    answered = server.bodies[0]
    server.bodies = [answered]

    class Once(list):
        """Empty for the first question, then one refusal."""

        def __bool__(self):
            return len(server.asked) > 1

    server.refusals = Once([(500, {}, json.dumps(problem).encode())])
    with pytest.raises(Ring2Error) as caught:
        _fetch(server)
    error = caught.value
    assert (error.code, error.expected, error.actual, error.action) == (
        "RING2_E_CHECKSUM", "a", "b", "C."
    )


def test_the_wrong_part_is_refused(server):
    server.cuts, server.shift = [10_000], 4
    with pytest.raises(Ring2Error, match="RING2_E_UNREACHABLE.*content-range"):
        _fetch(server)


def test_an_exporter_that_is_busy_is_asked_again(server):
    body = json.dumps(
        {"code": "RING2_E_OVERLOADED", "expected": "a", "actual": "b", "action": "C."}
    ).encode()
    server.refusals = [(503, {"retry-after": "2"}, body)] * 2
    assert _fetch(server).shape == (200, 200)
    server.refusals = [(503, {"retry-after": "2"}, body)] * 20
    with pytest.raises(Ring2Error, match="RING2_E_OVERLOADED"):
        _fetch(server)
    # Without Retry-After it is no use to ask again.
    server.refusals = [(503, {}, body)]
    with pytest.raises(Ring2Error, match="RING2_E_OVERLOADED"):
        _fetch(server)
    assert server.refusals == []


def test_no_other_address_is_gone_to(server):
    server.refusals = [(302, {"location": "http://127.0.0.1:9/elsewhere"}, b"")]
    with pytest.raises(Ring2Error, match="RING2_E_UNREACHABLE.*302"):
        _fetch(server)


def test_a_length_that_no_exporter_sends_is_no_memory_taken(server, monkeypatch):
    monkeypatch.setattr(_http, "ANSWER_BYTES_MAX", 1000)
    with pytest.raises(Ring2Error, match="RING2_E_TOO_LARGE.*1000 bytes"):
        _fetch(server)


def test_a_bar_shows_the_bytes_where_it_is_wanted_or_somebody_looks(server, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    def shown(stream, **options):
        monkeypatch.setattr(sys, "stderr", stream)
        _fetch(server, **options)
        return stream.getvalue()

    assert "resid_pre.1" in shown(io.StringIO(), progress=True)
    assert shown(io.StringIO()) == ""
    assert shown(Terminal(), progress=False) == ""
    monkeypatch.setattr("ring2._progress.DELAY_SECONDS", 0)
    assert "resid_pre.1" in shown(Terminal())


def test_a_bar_that_is_wanted_needs_tqdm_and_says_so(server, monkeypatch):
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    with pytest.raises(Ring2Error, match="RING2_E_ARGUMENT.*pip install tqdm"):
        _fetch(server, progress=True)
    monkeypatch.setattr(sys, "stderr", types.SimpleNamespace(isatty=lambda: True))
    assert _fetch(server).shape == (200, 200)
