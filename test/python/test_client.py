"""Reading back over HTTP, from a server that answers in the exporter's shapes."""

import http.server
import json
import struct
import sys
import threading
import types
import urllib.parse

import numpy
import pytest
import torch

import ring2
from ring2 import Ring2Error

TRACE = "0af7651916cd43dd8448eb211c80319c"
VALUES = {
    "resid_pre/1": ("F32", numpy.arange(6, dtype="<f4").reshape(2, 3)),
    "final_logits/global": ("BF16", numpy.array([[0x3F80, 0xC000]], dtype="<u2")),
    "token_ids/global": ("I64", numpy.array([5, 6], dtype="<i8")),
}


def _safetensors(dtype: str, array) -> bytes:
    data = array.tobytes()
    entry = {"dtype": dtype, "shape": list(array.shape), "data_offsets": [0, len(data)]}
    header = json.dumps({"__metadata__": {"note": "x"}, "tensor": entry}).encode()
    return struct.pack("<Q", len(header)) + header + data


class Exporter(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        url = urllib.parse.urlsplit(self.path)
        self.server.seen.append((url.path, dict(urllib.parse.parse_qsl(url.query))))
        if self.headers.get("authorization") != "Bearer secret":
            return self._problem(401, "RING2_E_UNAUTHORIZED")
        prefix = f"/v1/traces/{TRACE}"
        if not url.path.startswith(prefix):
            return self._problem(404, "RING2_E_TRACE_UNKNOWN")
        rest = url.path.removeprefix(prefix)
        if rest == "":
            requests = [{"request_id": "r", "completeness": self.server.state}]
            return self._send(200, json.dumps({"trace_id": TRACE, "requests": requests}).encode())
        if rest == "/tensors":
            rows = [{"hook": "resid_pre", "layer": 1, "statistics": {"l2_mean": 2.5}}]
            return self._send(200, json.dumps({"trace_id": TRACE, "tensors": rows}).encode())
        found = VALUES.get(rest.removeprefix("/tensors/"))
        if found is None:
            return self._problem(404, "RING2_E_TENSOR_UNKNOWN")
        return self._send(200, _safetensors(*found))

    def _problem(self, status: int, code: str):
        problem = {"code": code, "expected": "this", "actual": "that", "action": "Do it."}
        self._send(status, json.dumps(problem).encode())

    def _send(self, status: int, body: bytes):
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.send_header("x-ring2-completeness", self.server.state)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def exporter():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Exporter)
    server.seen, server.state = [], "complete"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    server.url = f"http://127.0.0.1:{server.server_address[1]}/"
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_tensor_comes_back_as_numpy_and_torch(exporter):
    trace = ring2.open(exporter.url, token="secret").trace(TRACE)
    tensor = trace.tensor("hidden-states", layer=1, request_id="r", tokens="0:2", heads="0,1")
    assert numpy.array_equal(tensor.numpy(), VALUES["resid_pre/1"][1])
    assert torch.equal(tensor.torch(), torch.arange(6.0).reshape(2, 3))
    assert (tensor.dtype, tensor.shape, tensor.complete) == ("float32", (2, 3), True)
    path, query = exporter.seen[-1]
    assert path == f"/v1/traces/{TRACE}/tensors/resid_pre/1"
    assert query == {
        "request_id": "r", "tokens": "0:2", "heads": "0,1", "format": "safetensors"
    }


def test_bfloat16_becomes_float32_without_loss_in_numpy(exporter):
    tensor = ring2.open(exporter.url, "secret").trace(TRACE).tensor("logits")
    assert tensor.numpy().tolist() == [[1.0, -2.0]]
    assert tensor.torch().dtype == torch.bfloat16


def test_the_list_and_completeness_are_the_exporters(exporter):
    trace = ring2.open(exporter.url, "secret").trace(TRACE)
    assert trace.complete
    assert trace.tensors("logits", layer=-1) == [
        {"hook": "resid_pre", "layer": 1, "statistics": {"l2_mean": 2.5}}
    ]
    assert exporter.seen[-1][1] == {"hook": "final_logits", "layer": "global"}
    exporter.state = "unknown"
    later = ring2.open(exporter.url, "secret").trace(TRACE)
    assert not later.complete and not later.tensor("token_ids").complete


def test_a_table_has_one_row_per_stored_tensor(exporter, monkeypatch):
    # A stand-in for pandas, which is the user's to install: what it is given is what matters.
    pandas = types.ModuleType("pandas")
    pandas.json_normalize = lambda rows: [sorted(row) for row in rows]
    monkeypatch.setitem(sys.modules, "pandas", pandas)
    table = ring2.open(exporter.url, "secret").trace(TRACE).to_pandas()
    assert table == [["hook", "layer", "statistics"]]


def test_the_exporters_errors_keep_their_code_and_words(exporter):
    client = ring2.open(exporter.url, "secret")
    with pytest.raises(Ring2Error, match="expected this, got that. Do it.") as caught:
        client.trace("f" * 32)
    assert caught.value.code == "RING2_E_TRACE_UNKNOWN"
    with pytest.raises(Ring2Error, match="RING2_E_TENSOR_UNKNOWN"):
        client.trace(TRACE).tensor("resid_pre", layer=2)
    with pytest.raises(Ring2Error, match="RING2_E_UNAUTHORIZED"):
        ring2.open(exporter.url).trace(TRACE)
    # Which hooks there are is the exporter's to say: an imported capture has its own.
    with pytest.raises(Ring2Error, match="RING2_E_TENSOR_UNKNOWN"):
        client.trace(TRACE).tensor("module_model_layers_0_mlp")
    assert exporter.seen[-1][0].endswith("/tensors/module_model_layers_0_mlp/global")
    for name in ["Hidden", "", "a/b", "q" * 65, "resid_pre\n"]:
        with pytest.raises(Ring2Error, match="RING2_E_SELECTION.*a hook name such as resid_pre"):
            client.trace(TRACE).tensor(name, layer=2)


def test_an_exporter_that_is_not_there_is_unreachable(exporter):
    url = exporter.url
    exporter.shutdown()
    exporter.server_close()
    with pytest.raises(Ring2Error, match="RING2_E_UNREACHABLE"):
        ring2.open(url).trace(TRACE)
    with pytest.raises(Ring2Error, match="RING2_E_ARGUMENT"):
        ring2.open("localhost:9464")
