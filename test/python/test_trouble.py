"""Whatever goes wrong with the capture, the model goes on; what is lost is counted."""

import os
import subprocess
import sys
import time

import pytest
import torch

import ring2
from ring2 import Ring2Error
from ring_reader import Reader

IDS = torch.tensor([[5, 6, 7, 8, 9, 10]])


def _forward(model, ids=IDS):
    with torch.no_grad():
        return model(input_ids=ids).logits


def test_a_full_ring_stops_nothing_and_counts_every_record(tiny, attach):
    model = tiny("llama")
    before = _forward(model)
    attached = attach(model, "resid_pre,q,k,v,final_logits", payload_mb=0.0625)
    for index in range(120):
        with ring2.request(f"r{index}"):
            assert torch.equal(_forward(model), before)
    losses = attached.probe.losses()
    lost = sum(records for records, _ in losses.values())
    records = attached.reader.drain()
    # Records that must arrive were waiting for room: they come with the next heartbeat or record.
    later = attached.finish()
    kept = len(records.tensors) + len(later.tensors)
    assert kept > 0 and lost > 0
    assert len(records.requests) + len(later.requests) == 120
    assert len(records.ends) + len(later.ends) == 120
    known = {request["key"] for request in records.requests}
    assert all(row[0] in known for step in records.steps for row in step.rows)


def test_losses_and_arrivals_add_up_to_what_was_captured(tiny, attach):
    model = tiny("llama")
    attached = attach(model, "resid_pre,final_logits", payload_mb=0.0625)
    with ring2.request("one"):
        for _ in range(60):
            _forward(model)
    losses = attached.probe.losses()
    assert set(losses) <= {"meta_full", "payload_full", "step_lost"}
    records = attached.reader.drain()
    lost_steps = 60 - len(records.steps)
    lost = sum(count for count, _ in losses.values())
    # A lost step is one record, and its three tensors are counted one by one.
    assert len(records.tensors) + lost == 60 * 3 + lost_steps
    announced = records.gaps + attached.finish().gaps
    assert sum(sum(gap.values()) for gap in announced) == lost


def test_without_an_exporter_the_ring_fills_once_and_the_model_goes_on(tiny, tmp_path):
    model = tiny("llama")
    before = _forward(model)
    with ring2.attach(
        model, "resid_pre", directory=str(tmp_path), segment="alone", payload_mb=0.0625
    ) as probe:
        for _ in range(100):
            assert torch.equal(_forward(model), before)
        assert probe.active
    assert torch.equal(_forward(model), before)


def test_a_full_ring_ends_no_capture_of_passes_without_request_and_cache(tiny, attach):
    model = tiny("llama")
    attached = attach(model, "resid_pre", payload_mb=0.0625)

    def run():
        with torch.no_grad():
            model(input_ids=IDS, use_cache=False)

    while "step_lost" not in attached.probe.losses():
        run()
    run()
    assert attached.probe.active
    attached.reader.drain()
    deadline = time.monotonic() + 60
    resumed = []
    # Records that must arrive come first, so room for a step may take several rounds.
    while not resumed and time.monotonic() < deadline:
        run()
        resumed = attached.reader.drain().tensors
    assert [tensor.layer for tensor in resumed[:2]] == [0, 1]


def test_an_exporter_that_leaves_and_another_that_comes_lose_nothing_in_the_ring(tiny, tmp_path):
    model = tiny("llama")
    with ring2.attach(model, "resid_pre", directory=str(tmp_path), segment="x") as probe:
        first = Reader(probe.path)
        with ring2.request("one"):
            _forward(model)
            one = first.drain()
            first.close()
            _forward(model)
        second = Reader(probe.path)
        two = second.drain()
        second.close()
    assert len(one.tensors) == 2 and len(two.tensors) == 2
    assert two.ends[0] == {
        "key": 1, "steps": 2, "tokens": 6, "prompt_tokens": 6, "outcome": "ok"
    }


def test_records_that_wait_for_room_arrive_with_the_heartbeat(tiny, attach):
    model = tiny("llama")
    attached = attach(model, "resid_pre,final_logits", payload_mb=0.0625)
    with ring2.request("one"):
        for _ in range(60):
            _forward(model)
    with ring2.request("two"):
        pass
    seen = attached.reader.drain()
    assert len(seen.requests) == 1 and seen.ends == []
    deadline = time.monotonic() + 60
    while len(seen.ends) < 2 and time.monotonic() < deadline:
        later = attached.reader.drain()
        seen.requests.extend(later.requests)
        seen.ends.extend(later.ends)
    assert [request["request_id"] for request in seen.requests] == ["one", "two"]
    assert [end["steps"] for end in seen.ends] == [60, 0]


def test_records_beyond_the_waiting_bound_are_counted(tiny, attach, monkeypatch):
    monkeypatch.setattr("ring2._producer.PENDING_RECORDS_MAX", 3)
    model = tiny("llama")
    attached = attach(model, "resid_pre,final_logits", payload_mb=0.0625)
    with ring2.request("filler"):
        for _ in range(60):
            _forward(model)
    before = attached.probe.losses().get("meta_full", (0, 0))[0]
    for index in range(5):
        with ring2.request(f"r{index}"):
            pass
    assert attached.probe.losses()["meta_full"][0] == before + 8


def test_a_blocking_producer_waits_no_longer_than_it_was_told(tiny, attach):
    model = tiny("llama")
    before = _forward(model)
    attached = attach(
        model, "resid_pre,q,k,v,final_logits", payload_mb=0.0625, when_full="block",
        block_timeout_ms=1,
    )
    with ring2.request("one"):
        for _ in range(20):
            assert torch.equal(_forward(model), before)
    assert sum(records for records, _ in attached.probe.losses().values()) > 0


def test_a_hook_that_is_not_wanted_is_not_copied(tiny, attach):
    model = tiny("llama")
    attached = attach(model, "resid_pre,pattern")
    attached.reader.want("pattern", -2, False)
    attached.reader.want("resid_pre", 1, False)
    with ring2.request("one"):
        _forward(model)
    records = attached.finish()
    assert [(tensor.hook, tensor.layer) for tensor in records.tensors] == [("resid_pre", 0)]
    assert attached.probe.losses() == {}


def test_an_unexpected_error_ends_the_capture_with_one_line(tiny, attach, caplog):
    model = tiny("llama")
    before = _forward(model)
    attached = attach(model, "resid_pre")
    attached.probe._steps._open_step = lambda arguments: 1 / 0
    for _ in range(3):
        assert torch.equal(_forward(model), before)
    assert not attached.probe.active
    assert sum("has stopped after an error" in line for line in caplog.messages) == 1


def test_detach_restores_the_model(tiny, attach):
    model = tiny("llama")
    kernel = model.config._attn_implementation

    def state():
        return [
            (
                tuple(module._forward_hooks), tuple(module._forward_pre_hooks),
                tuple(module._forward_hooks_always_called),
                sorted(module.__dict__),
            )
            for module in model.modules()
        ]

    _forward(model)
    before = state()
    attached = attach(model, "full")
    assert model.config._attn_implementation == f"ring2_{kernel}"
    _forward(model)
    attached.probe.detach()
    attached.probe.detach()
    assert model.config._attn_implementation == kernel
    assert state() == before


def test_a_model_that_is_attached_cannot_be_attached_again(tiny, attach):
    model = tiny("llama")
    attached = attach(model, "resid_pre", segment="first")
    for again in (model, model.model):
        with pytest.raises(Ring2Error) as caught:
            attach(again, "resid_pre")
        assert caught.value.code == "RING2_E_MODEL"
        assert "first" in str(caught.value)
    attached.probe.detach()
    attach(model, "resid_pre", segment="second")


def test_two_models_are_attached_side_by_side(tiny, attach):
    one, two = tiny("llama"), tiny("gpt2")
    first, second = attach(one, "resid_pre"), attach(two, "resid_pre")
    with ring2.request("only-two"):
        _forward(two)
    assert first.finish().requests == []
    assert [request["request_id"] for request in second.finish().requests] == ["only-two"]


def test_an_unknown_architecture_is_refused(attach):
    with pytest.raises(Ring2Error) as caught:
        attach(torch.nn.Sequential(torch.nn.Linear(2, 2)))
    assert caught.value.code == "RING2_E_MODEL"
    assert "HookPoint" in str(caught.value)
    with pytest.raises(Ring2Error, match="RING2_E_MODEL"):
        ring2.attach("a model")


def test_a_taken_segment_name_is_refused_and_leaves_the_model_alone(tiny, attach, tmp_path):
    attach(tiny("llama"), "resid_pre", segment="taken")
    other = tiny("gpt2")
    with pytest.raises(Ring2Error) as caught:
        ring2.attach(other, "resid_pre", segment="taken", directory=str(tmp_path))
    assert caught.value.code == "RING2_E_NAME_TAKEN"
    assert not other._forward_pre_hooks


@pytest.mark.parametrize(
    "options",
    [{"when_full": "wait"}, {"payload_mb": 0}, {"segment": "a/b"}, {"block_timeout_ms": -1},
     {"directory": "/nonexistent/folder"}],
)
def test_bad_options_are_refused(options, tiny):
    with pytest.raises(Ring2Error) as caught:
        ring2.attach(tiny("llama"), "resid_pre", **options)
    assert caught.value.code in ("RING2_E_ARGUMENT", "RING2_E_SYSTEM")


def test_tensors_that_are_not_on_the_cpu_are_counted(tiny, attach):
    model = tiny("llama").to("meta")
    attached = attach(model, "resid_pre,final_logits")
    with torch.no_grad(), ring2.request("one"):
        model(input_ids=IDS.to("meta"))
    records = attached.finish()
    # Meta tensors have no bytes: the operator lets them pass, and nothing breaks.
    assert records.tensors == []


def test_a_dtype_that_cannot_be_copied_is_counted(tmp_path, attach):
    class Odd(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.point = ring2.HookPoint("resid_pre", layer=0)

        def forward(self, x):
            return self.point(x.to(torch.complex64)).real

    model = Odd()
    attached = attach(model, "resid_pre")
    with ring2.request("one"):
        model(torch.ones(1, 3, 4))
    attached.finish()
    assert attached.probe.losses() == {"unsupported": (1, 0)}


FORK = """
import os, sys, torch, ring2
model = torch.nn.Sequential(torch.nn.Linear(4, 4), ring2.HookPoint("resid_pre", 0))
x = torch.ones(1, 3, 4)
probe = ring2.attach(model, directory=sys.argv[1], segment="forked")
with ring2.request("parent"):
    before = model(x)
child = os.fork()
if child == 0:
    with ring2.request("child"):
        same = torch.equal(model(x), before)
    probe.detach()
    sys.exit(0 if same and not probe.active else 3)
status = os.waitpid(child, 0)[1]
with ring2.request("parent-again"):
    model(x)
sys.exit(os.waitstatus_to_exitcode(status))
"""


def test_a_forked_child_writes_nothing_and_its_model_goes_on(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", FORK, str(tmp_path)],
        capture_output=True, text=True, timeout=120,
    )
    assert done.returncode == 0, done.stderr
    reader = Reader(os.path.join(tmp_path, "ring2.forked"))
    records = reader.drain()
    reader.close(remove=True)
    names = [request["request_id"] for request in records.requests]
    assert names == ["parent", "parent-again"]
    assert [end["outcome"] for end in records.ends] == ["ok", "ok"]


def test_importing_the_package_needs_no_torch():
    code = (
        "import sys\n"
        "class Block:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] in ('torch', 'transformers', 'numpy'):\n"
        "            raise ImportError(name)\n"
        "sys.meta_path.insert(0, Block())\n"
        "import ring2\n"
        "assert 'torch' not in sys.modules\n"
        "ring2.RequestInfo('a'); ring2.open('http://127.0.0.1:9')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
