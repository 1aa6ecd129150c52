"""What the exporter wants decides what is copied, from one forward pass to the next."""

import copy
import mmap
import struct

import pytest
import ring2
import torch
from transformers import DynamicCache

# ring2_header.control_sequence and what follows it, ring2_layout.h.
CONTROL_SEQUENCE = 3072
CREATED = 2
SAMPLED = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
UNSAMPLED = SAMPLED[:-1] + "0"


def _generate(model, prompt, tokens=6):
    with torch.no_grad():
        return model.generate(
            prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=tokens,
            min_new_tokens=tokens, do_sample=False,
        )


def _prompt(rows=1, length=5):
    torch.manual_seed(1)
    return torch.randint(3, 97, (rows, length))


def _header(attached, writable=False):
    with open(attached.probe.path, "r+b") as file:
        return mmap.mmap(file.fileno(), 4096)


def test_a_step_carries_the_sequence_it_was_captured_by(tiny, attach):
    model = tiny("llama")
    attached = attach(model, "resid_pre,token_ids")
    sequences = [CREATED]
    with ring2.request("one"):
        model(_prompt())
        attached.reader.want("token_ids", -1, False)
        sequences.append(CREATED + 2)
        model(_prompt())
    records = attached.finish()
    assert [step.sequence for step in records.steps] == sequences
    assert [tensor.hook for tensor in records.tensors].count("token_ids") == 1


def test_nothing_is_written_while_nothing_is_wanted(tiny, attach):
    model = tiny("llama")
    plain = _generate(model, _prompt())
    attached = attach(model, "full")
    attached.reader.drain()
    attached.reader.control(share=0)
    assert torch.equal(_generate(model, _prompt()), plain)
    with ring2.request("one", SAMPLED):
        assert torch.equal(_generate(model, _prompt()), plain)
    with ring2.batch([ring2.RequestInfo("two"), ring2.RequestInfo("three")]):
        _generate(model, _prompt(2))
    assert attached.reader.drain().kinds == []
    attached.reader.control()
    with ring2.request("four"):
        assert torch.equal(_generate(model, _prompt()), plain)
    records = attached.finish()
    assert [request["request_id"] for request in records.requests] == ["four"]
    assert len(records.steps) == 6
    assert attached.probe.losses() == {}


def test_switching_in_the_middle_of_a_request_leaves_out_those_steps(tiny, attach):
    model = tiny("llama")
    plain = _generate(model, _prompt())
    attached = attach(model, "resid_pre,final_logits")
    attached.reader.drain()
    steps = []

    def switch(_module, _args):
        steps.append(len(steps))
        if len(steps) == 3:
            attached.reader.control(share=0)
        if len(steps) == 5:
            attached.reader.control()

    handle = model.model.layers[0].mlp.register_forward_pre_hook(switch)
    with ring2.request("one"):
        assert torch.equal(_generate(model, _prompt()), plain)
    handle.remove()
    records = attached.finish()
    # Switched within the third and the fifth forward pass: each goes on with what it took.
    assert [step.rows[0][1:3] for step in records.steps] == [(0, 5), (5, 6), (6, 7), (9, 10)]
    assert [tensor.tokens for tensor in records.tensors if tensor.hook == "final_logits"] == [
        (4, 5), (5, 6), (6, 7), (9, 10)
    ]
    assert len(records.requests) == 1
    (end,) = records.ends
    assert (end["steps"], end["steps_left_out"]) == (4, 2)
    assert (end["tokens"], end["prompt_tokens"]) == (10, 5)


def test_a_share_of_the_requests_appears_and_the_others_nowhere(tiny, attach):
    model = tiny("llama")
    attached = attach(model, "resid_pre")
    attached.reader.control(share=0.5)
    for index in range(24):
        with ring2.request(f"request-{index}"):
            model(_prompt())
    first = attached.reader.drain()
    chosen = {request["request_id"] for request in first.requests}
    assert 4 < len(chosen) < 20
    assert len(first.steps) == len(first.ends) == len(chosen)
    # A batch decides by the same ids, row by row, and only the wanted rows lie in the ring.
    captured = {}
    ids = [f"request-{index}" for index in range(24)]
    hook = model.model.layers[0].register_forward_pre_hook(
        lambda _m, args: captured.update(x=args[0].clone())
    )
    with ring2.batch([ring2.RequestInfo(id) for id in ids]):
        model(_prompt(24))
    hook.remove()
    records = attached.finish()
    assert {request["request_id"] for request in records.requests} == chosen
    keys = {request["key"]: request["request_id"] for request in records.requests}
    tensors = [tensor for tensor in records.tensors if tensor.layer == 0]
    assert len(tensors) == len(chosen)
    for tensor in tensors:
        row = ids.index(keys[tensor.key])
        assert torch.equal(tensor.torch(), captured["x"][row])
    (step,) = records.steps
    assert [row[3] for row in step.rows] == list(range(len(chosen)))


def test_only_requests_of_sampled_traces_when_that_is_asked(tiny, attach):
    model = tiny("llama")
    attached = attach(model, "resid_pre")
    attached.reader.control(sampled_only=True)
    for request_id, traceparent in (("a", SAMPLED), ("b", UNSAMPLED), ("c", None)):
        with ring2.request(request_id, traceparent):
            model(_prompt())
    model(_prompt())
    records = attached.finish()
    assert [request["request_id"] for request in records.requests] == ["a"]
    assert len(records.steps) == 1


def test_every_nth_token_and_no_prompt(tiny, attach):
    model = tiny("llama")
    plain = _generate(model, _prompt(), 8)
    attached = attach(model, "resid_pre")
    attached.reader.control(prefill=False, every=3)
    with ring2.request("one"):
        assert torch.equal(_generate(model, _prompt(), 8), plain)
    records = attached.finish()
    assert [step.rows[0][1:3] for step in records.steps] == [(6, 7), (9, 10)]
    (end,) = records.ends
    assert (end["steps"], end["steps_left_out"], end["tokens"]) == (2, 6, 12)


@pytest.mark.parametrize("family", ["gpt2", "qwen2_moe"])
def test_rows_of_a_batch_that_are_left_out_are_not_copied(tiny, attach, family):
    model = tiny(family)
    prompt = _prompt(4)
    attached = attach(model, "hf-only")
    with ring2.batch([ring2.RequestInfo(f"all-{index}") for index in range(4)]):
        model(prompt)
    whole = attached.reader.drain()
    attached.reader.control(sampled_only=True)
    infos = [
        ring2.RequestInfo(f"part-{index}", SAMPLED if index in (1, 3) else None)
        for index in range(4)
    ]
    with ring2.batch(infos):
        model(prompt)
    part = attached.finish()
    keys = {request["request_id"]: request["key"] for request in whole.requests + part.requests}
    assert {request["request_id"] for request in part.requests} == {"part-1", "part-3"}
    assert len(part.tensors) == len(whole.tensors) // 2
    for tensor in part.tensors:
        row = 1 if tensor.key == keys["part-1"] else 3
        same = whole.tensor(tensor.hook, tensor.layer, keys[f"all-{row}"])
        assert (same.shape, same.data) == (tensor.shape, tensor.data)
    assert attached.probe.losses() == {}


def test_a_row_that_ended_while_nothing_was_wanted_stays_ended(tiny, attach):
    model = tiny("llama")
    attached = attach(model, "resid_pre")
    with ring2.batch([ring2.RequestInfo("a"), ring2.RequestInfo("b")]), torch.no_grad():
        cache = model(_prompt(2), use_cache=True).past_key_values
        attached.reader.control(share=0)
        # Row 0 is fed its end and then padding, as a generation loop does.
        for fed in ([2, 5], [0, 6]):
            model(torch.tensor([[token] for token in fed]), past_key_values=cache)
        attached.reader.control()
        model(torch.tensor([[0], [7]]), past_key_values=cache)
    records = attached.finish()
    keys = {request["request_id"]: request["key"] for request in records.requests}
    assert [row[0] for row in records.steps[-1].rows] == [keys["b"]]


def test_a_sequence_that_stays_odd_or_words_of_noise_do_not_hurt_the_model(tiny, attach):
    model = tiny("llama")
    plain = _generate(model, _prompt())
    attached = attach(model, "hf-only")
    with _header(attached) as header:
        struct.pack_into("<I", header, CONTROL_SEQUENCE, 7)
        header[2048:3072] = bytes(1024)
        with ring2.request("odd"):
            assert torch.equal(_generate(model, _prompt()), plain)
        for noise in (b"\xff", b"\xa5", b"\x3c"):
            header[2048:4096] = noise * 2048
            with ring2.request("noise"):
                assert torch.equal(_generate(model, _prompt()), plain)
    records = attached.finish()
    # The last good words wanted everything.
    odd = [step for step in records.steps if step.sequence == CREATED]
    assert len(odd) >= 6
    assert attached.probe.losses() == {}


@pytest.mark.parametrize("unwanted", [range(3), range(3, 6)], ids=["first", "last"])
def test_an_unnamed_request_says_how_many_of_its_steps_were_not_wanted(tiny, attach, unwanted):
    model = tiny("llama")
    attached = attach(model, "resid_pre")
    cache = DynamicCache(config=model.config)
    with torch.no_grad():
        for index in range(6):
            attached.reader.control(share=0 if index in unwanted else 1)
            model(_prompt(length=5 if index == 0 else 1), past_key_values=cache)
    del cache
    records = attached.finish()
    assert len(records.steps) == 3
    (end,) = records.ends
    assert (end["steps"], end["steps_left_out"], end["tokens"]) == (3, 3, 10)


def test_a_copy_of_an_attached_model_writes_nothing(tiny, attach):
    model = tiny("llama")
    attached = attach(model, "resid_pre,final_logits")
    attached.reader.drain()
    with ring2.request("copy"), torch.no_grad():
        copy.deepcopy(model)(_prompt())
    assert "STEP" not in attached.reader.drain().kinds
    with ring2.request("original"), torch.no_grad():
        model(_prompt())
    records = attached.finish()
    assert len(records.steps) == 1
    assert [tensor.hook for tensor in records.tensors].count("final_logits") == 1
