"""The example service as a real process: six requests, some together, and its clean end."""

import concurrent.futures
import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request

import numpy
import pytest
import torch
from ring_reader import Reader

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
QUESTIONS = ("What is the capital of France?", "Hi", "Name three colours.", "Bye", "Sing.", "Why?")


def _start(model_folder, tmp_path, *flags):
    command = [
        sys.executable, os.path.join(ROOT, "examples", "chat-service", "service.py"),
        "--model", model_folder, "--segment", "service", "--segment-directory", str(tmp_path),
        "--hooks", "resid_pre,token_ids", *flags,
    ]
    environment = {**os.environ, "OTEL_TRACES_EXPORTER": "none"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    line = process.stdout.readline()
    assert line, "the service ended before it was ready"
    return process, json.loads(line)


@pytest.fixture
def service(model_folder, tmp_path):
    keep = ("--keep-tensors", str(tmp_path / "kept"), "--keep-layers", "0,29")
    process, ready = _start(model_folder, tmp_path, *keep)
    yield process, ready
    process.kill()
    process.wait()


@pytest.fixture
def fragile_service(model_folder, tmp_path):
    process, ready = _start(model_folder, tmp_path, "--allow-faults")
    yield ready["url"]
    process.kill()
    process.wait()


def _faults(url: str, method: str, **fault) -> int:
    call = urllib.request.Request(
        f"{url}/faults", method=method, data=json.dumps(fault).encode() if fault else None,
        headers={"content-type": "application/json"},
    )
    try:
        with urllib.request.urlopen(call, timeout=120) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


def _ask(url: str, index: int, **body):
    question = {"messages": [{"role": "user", "content": QUESTIONS[index]}], "max_tokens": 5}
    call = urllib.request.Request(
        f"{url}/chat", data=json.dumps({**question, **body}).encode(),
        headers={
            "content-type": "application/json", "traceparent": f"00-{index + 1:032x}-{7:016x}-01",
        },
    )
    with urllib.request.urlopen(call, timeout=120) as answer:
        return json.loads(answer.read())


def test_six_requests_are_captured_as_the_model_held_them(service, tmp_path):
    process, ready = service
    with urllib.request.urlopen(f"{ready['url']}/healthz", timeout=10) as answer:
        assert answer.status == 200
    reader = Reader(ready["segment_path"])
    with concurrent.futures.ThreadPoolExecutor(len(QUESTIONS)) as pool:
        answers = list(pool.map(lambda i: _ask(ready["url"], i), range(len(QUESTIONS))))
    with pytest.raises(urllib.error.HTTPError) as refused:
        _ask(ready["url"], 0, temperature=1)
    assert refused.value.code == 422
    # Nobody breaks a service that was not started to be broken.
    assert _faults(ready["url"], "POST", layer=15, noise=1.0) == 404
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 0
    records = reader.drain()
    reader.close(remove=True)
    assert len(records.ends) == len(QUESTIONS) and records.gaps == []
    assert max(len(step.rows) for step in records.steps) > 1, "no two requests ran together"
    requests = {request["request_id"]: request for request in records.requests}
    for index, answer in enumerate(answers):
        assert answer["trace_id"] == f"{index + 1:032x}"
        request = requests[answer["request_id"]]
        assert request["traceparent"].split("-")[1] == answer["trace_id"]
        # The parent is a span of the service, not the caller's.
        assert request["traceparent"].split("-")[2] != f"{7:016x}"
        for layer in (0, 29):
            kept = numpy.load(tmp_path / "kept" / f"{answer['request_id']}.resid_pre.{layer}.npy")
            tokens = answer["prompt_tokens"] + answer["completion_tokens"] - 1
            assert kept.shape == (tokens, 576)
            captured = records.stitched("resid_pre", layer, request["key"]).numpy()
            assert captured.tobytes() == kept.tobytes()


def test_a_fault_breaks_the_answers_and_its_removal_mends_them_wholly(fragile_service):
    def answer() -> str:
        return _ask(fragile_service, 0, max_tokens=12)["text"]

    healthy = answer()
    assert "Paris" in healthy
    for refused in ({"layer": 30, "noise": 1.0}, {"layer": -1, "noise": 1.0},
                    {"layer": 0, "noise": 0}, {"layer": 0, "noise": 1e9}):
        assert _faults(fragile_service, "POST", **refused) == 422
    assert answer() == healthy
    assert _faults(fragile_service, "POST", layer=15, noise=1.0) == 201
    assert _faults(fragile_service, "POST", layer=15, noise=1.0) == 409
    broken = answer()
    assert "Paris" not in broken
    assert _faults(fragile_service, "DELETE") == 204
    assert answer() == healthy
    assert _faults(fragile_service, "DELETE") == 204
    # The same seed, the same noise.
    assert _faults(fragile_service, "POST", layer=15, noise=1.0, seed=0) == 201
    assert answer() == broken


def test_removing_a_fault_restores_every_bit(monkeypatch):
    monkeypatch.syspath_prepend(os.path.join(ROOT, "examples", "chat-service"))
    from faults import Fault, Faults

    layers = torch.nn.ModuleList([torch.nn.Linear(8, 8), torch.nn.LayerNorm(8).bfloat16()])
    before = [weight.detach().clone() for weight in layers.parameters()]
    faults = Faults(layers)
    for layer in (0, 1):
        assert faults.inject(Fault(layer, 2.0, 7))
        touched = [not torch.equal(a, b) for a, b in zip(before, layers.parameters(), strict=True)]
        # The layer norm's own weights are all ones and zeros: without spread there is no noise.
        assert touched == [layer == 0, layer == 0, False, False]
        faults.remove()
        for saved, weight in zip(before, layers.parameters(), strict=True):
            assert torch.equal(saved, weight)


def test_spans_wait_while_the_collector_is_away(monkeypatch):
    monkeypatch.syspath_prepend(os.path.join(ROOT, "examples", "chat-service"))
    import tracing
    from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

    class Away(SpanExporter):
        def __init__(self, tries: int) -> None:
            self.tries, self.seen = tries, []

        def export(self, spans):
            self.seen.append(spans)
            away = len(self.seen) < self.tries
            return SpanExportResult.FAILURE if away else SpanExportResult.SUCCESS

    monkeypatch.setattr(tracing, "PAUSE_SECONDS", 0.001)
    back = Away(5)
    assert tracing.PatientExporter(back).export(["a"]) is SpanExportResult.SUCCESS
    assert back.seen == [["a"]] * 5
    gone = Away(10**9)
    exporter = tracing.PatientExporter(gone)
    assert exporter.export(["a"]) is SpanExportResult.FAILURE
    assert len(gone.seen) == tracing.TRIES_MAX
    exporter.hurry()
    assert exporter.export(["b"]) is SpanExportResult.FAILURE
    assert gone.seen.count(["b"]) == 1
