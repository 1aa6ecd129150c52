"""What cannot be captured ends nothing but itself: one log line and a count."""

import threading

import pytest
import torch

import ring2

IDS = torch.tensor([[5, 6, 7, 8]])


def _forward(model, ids=IDS):
    with torch.no_grad():
        return model(input_ids=ids).logits


def _attached(attach, model, hooks="resid_pre,final_logits"):
    return attach(model, hooks, payload_mb=4)


def test_a_tap_that_fails_ends_no_other_capture(tiny, attach, caplog):
    model = tiny("llama")
    before = _forward(model)
    attached = _attached(attach, model, "resid_pre,q,final_logits")

    def fails(_tensor):
        raise RuntimeError("no such view")

    probe = attached.probe
    site = next(site for site in probe._sites() if (site.hook, site.layer) == ("q", 1))
    probe._place(site._replace(view=fails)).put(False)
    with ring2.request("one"):
        for _ in range(3):
            assert torch.equal(_forward(model), before)
    assert probe.active
    assert probe.losses()["unsupported"][0] == 3
    lines = [line for line in caplog.messages if "q of layer 1 could not be captured" in line]
    assert len(lines) == 1 and "no such view" in lines[0]
    hooks = [(t.hook, t.layer) for t in attached.finish().tensors]
    # The tap that was there before goes on.
    layers = [(hook, layer) for layer in range(2) for hook in ("resid_pre", "q")]
    assert hooks == [*layers, ("final_logits", -1)] * 3


def test_somebody_elses_hook_that_throws_ends_its_pass_alone(tiny, attach):
    model = tiny("llama")
    attached = _attached(attach, model)

    def throws(*_):
        raise ValueError("not ours")

    with ring2.request("one"):
        handle = model.model.layers[1].register_forward_hook(throws)
        with pytest.raises(ValueError, match="not ours"):
            _forward(model)
        handle.remove()
        # Outside of a pass nothing belongs to a step.
        model.model.layers[0].self_attn.q_proj(torch.zeros(1, 4, 32))
        _forward(model)
    records = attached.finish()
    assert [step.step for step in records.steps] == [0, 1]
    assert [(t.hook, t.step) for t in records.tensors] == [
        ("resid_pre", 0), ("resid_pre", 0), ("resid_pre", 1), ("resid_pre", 1), ("final_logits", 1),
    ]


def test_an_interrupted_pass_leaves_nothing_behind(tiny, attach):
    model = tiny("llama")
    attached = _attached(attach, model)

    def interrupt(*_):
        raise KeyboardInterrupt

    with ring2.request("one"):
        handle = model.model.layers[1].register_forward_hook(interrupt)
        with pytest.raises(KeyboardInterrupt):
            _forward(model)
        handle.remove()
    with ring2.request("two"):
        _forward(model)
    records = attached.finish()
    assert [row[0] for step in records.steps for row in step.rows] == [1, 2]
    assert [t.hook for t in records.tensors if t.key == 2] == ["resid_pre"] * 2 + ["final_logits"]


def test_a_model_that_calls_itself_is_captured_in_two_steps(tiny, attach):
    model = tiny("llama")
    expected = _forward(model)
    attached = _attached(attach, model)
    calls = []

    def again(*_):
        calls.append(1)
        if len(calls) == 1:
            _forward(model, IDS[:, :2])

    model.model.layers[0].register_forward_hook(again)
    with ring2.request("one"):
        assert torch.equal(_forward(model), expected)
    records = attached.finish()
    assert [(t.hook, t.layer, t.step, t.tokens[1]) for t in records.tensors] == [
        ("resid_pre", 0, 0, 4),
        ("resid_pre", 0, 1, 2), ("resid_pre", 1, 1, 2), ("final_logits", -1, 1, 2),
        ("resid_pre", 1, 0, 4), ("final_logits", -1, 0, 4),
    ]


def test_passes_on_tensors_without_values_are_counted_and_named_once(tiny, attach, caplog):
    model = tiny("llama").to("meta")
    attached = _attached(attach, model)
    for _ in range(2):
        _forward(model, IDS.to("meta"))
    assert attached.probe.active
    assert attached.probe.losses()["unsupported"][0] == 2 * 3
    assert sum("meta or fake" in line for line in caplog.messages) == 1
    assert attached.finish().steps == []


def test_passes_of_several_threads_do_not_mix(tiny, attach):
    model = tiny("llama")
    attached = _attached(attach, model)
    gate = threading.Barrier(2)

    def run(index):
        with ring2.request(f"r{index}"):
            gate.wait()
            for length in range(1, 5):
                _forward(model, torch.full((1, length), 5 + index))

    threads = [threading.Thread(target=run, args=(index,)) for index in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    records = attached.finish()
    names = {request["key"]: int(request["request_id"][1:]) for request in records.requests}
    embeddings = model.model.embed_tokens.weight
    for tensor in records.tensors:
        if (tensor.hook, tensor.layer) == ("resid_pre", 0):
            assert torch.equal(tensor.torch()[0], embeddings[5 + names[tensor.key]])
    assert len(records.tensors) == 2 * 4 * 3
