"""Requests: validation, what their records hold, and context."""

import asyncio

import pytest
import torch

import ring2
from ring2 import Ring2Error

IDS = torch.tensor([[5, 6, 7]])
TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def _forward(model):
    with torch.no_grad():
        return model(input_ids=IDS)


def test_records_carry_identity_and_come_in_order(tiny, attach):
    model = tiny("llama")
    attached = attach(model, "resid_pre", segment="identity", model_name="tiny", revision="r7")
    attributes = {"route": "/chat", "n": 2, "p": 0.5, "s": True}
    with ring2.request("req-1", TRACEPARENT, attributes, "a=b"):
        _forward(model)
    records = attached.finish()
    assert records.kinds == ["MODEL", "REQUEST", "STEP", "TENSOR", "TENSOR", "REQUEST_END"]
    assert records.models == [{
        "name": "tiny", "revision": "r7", "engine": "transformers", "dtype": "float32",
        "layers": 2, "heads": 4, "kv_heads": 2, "head_dim": 8, "hidden": 32,
        "vocabulary": 97, "experts": 0, "top_k": 0,
        "hooks": {"resid_pre": [0, 1]},
    }]
    request = records.requests[0]
    assert int(request.pop("started_realtime_ns")) > 10**18
    assert request == {
        "key": 1, "request_id": "req-1", "traceparent": TRACEPARENT, "tracestate": "a=b",
        "attributes": attributes,
    }
    assert records.ends == [
        {"key": 1, "steps": 1, "tokens": 3, "prompt_tokens": 3, "outcome": "ok"}
    ]


def test_a_request_that_raises_ends_with_an_error(tiny, attach):
    attached = attach(tiny("llama"), "resid_pre")
    with pytest.raises(KeyError), ring2.request("bad"):
        raise KeyError("theirs")
    assert attached.finish().ends[0]["outcome"] == "error"


@pytest.mark.parametrize(
    "fields",
    [
        {"request_id": ""},
        {"request_id": None},
        {"request_id": "x" * 600},
        {"request_id": "a", "traceparent": "nonsense"},
        {"request_id": "a", "traceparent": TRACEPARENT.upper()},
        {"request_id": "a", "traceparent": "00-" + "0" * 32 + "-b7ad6b7169203331-01"},
        {"request_id": "a", "traceparent": "ff" + TRACEPARENT[2:]},
        {"request_id": "a", "traceparent": TRACEPARENT + "-extra"},
        {"request_id": "a", "attributes": {"x": object()}},
        {"request_id": "a", "attributes": {"x": float("nan")}},
        {"request_id": "a", "attributes": {"x": "y" * 70000}},
    ],
)
def test_a_request_that_is_described_wrongly_is_refused(fields):
    with pytest.raises(Ring2Error) as caught, ring2.request(**fields):
        pass
    assert caught.value.code == "RING2_E_REQUEST"


def test_an_empty_batch_is_refused():
    with pytest.raises(Ring2Error, match="RING2_E_REQUEST"), ring2.batch([]):
        pass


def test_requests_outside_of_any_model_are_harmless():
    with ring2.request("nobody"), ring2.batch([ring2.RequestInfo("a"), ring2.RequestInfo("b")]):
        pass


def test_asyncio_tasks_keep_their_own_request(tiny, attach):
    model = tiny("llama")
    attached = attach(model, "resid_pre")

    async def serve(name: str):
        with ring2.request(name):
            await asyncio.sleep(0)
            await asyncio.to_thread(_forward, model)

    async def both():
        await asyncio.gather(serve("one"), serve("two"))

    asyncio.run(both())
    records = attached.finish()
    keys = {request["request_id"]: request["key"] for request in records.requests}
    assert sorted(step.rows[0][0] for step in records.steps) == sorted(keys.values())
    assert {end["steps"] for end in records.ends} == {1}
