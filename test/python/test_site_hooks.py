"""Hooks are on a model's modules while what they capture is wanted, and cost no Python there."""

import copy
import threading
import types

import pytest
import torch

import ring2

PROMPT = torch.tensor([[5, 6, 7, 8]])


def _forward(model, ids=PROMPT):
    with torch.no_grad():
        return model(input_ids=ids, use_cache=False).logits


def _hooks(model):
    """All hooks on modules inside the model."""
    return [
        hook for module in model.model.modules()
        for hooks in (module._forward_hooks, module._forward_pre_hooks) for hook in hooks.values()
    ]


def _captured(records):
    return {(tensor.hook, tensor.layer) for tensor in records.tensors}


def test_modules_have_no_hooks_while_nothing_is_wanted(tiny, attach):
    model = tiny("llama")
    attached = attach(model, "resid_pre,q,mlp_out")
    with ring2.request("one"):
        _forward(model)
        assert len(_hooks(model)) == 6
        attached.reader.control(share=0)
        _forward(model)
        assert _hooks(model) == []
        attached.reader.control()
        _forward(model)
    assert len(_hooks(model)) == 6
    attached.probe.detach()
    assert _hooks(model) == []


def test_only_what_is_wanted_has_hooks_from_the_very_step_on(tiny, attach):
    model = tiny("llama")
    attached = attach(model, "resid_pre,q,pattern")
    for layer in (0, 1):
        attached.reader.want("q", layer, False)
        attached.reader.want("pattern", layer, False)
    with ring2.request("one"):
        _forward(model)
        assert len(_hooks(model)) == 2
        assert _captured(attached.reader.drain()) == {("resid_pre", 0), ("resid_pre", 1)}
        attached.reader.want("q", 1, True)
        _forward(model)
    assert _captured(attached.finish()) == {("resid_pre", 0), ("resid_pre", 1), ("q", 1)}


def test_a_thread_inside_a_step_keeps_the_hooks_that_it_began_with(tiny, attach):
    model = tiny("llama")
    attached = attach(model, "mlp_out")
    arrived, go_on = threading.Event(), threading.Event()
    slow = []

    def wait(_module, _args):
        if threading.get_ident() in slow:
            arrived.set()
            assert go_on.wait(60)

    handle = model.model.layers[0].mlp.register_forward_pre_hook(wait)

    def run():
        slow.append(threading.get_ident())
        with ring2.request("slow"):
            _forward(model)

    thread = threading.Thread(target=run)
    thread.start()
    assert arrived.wait(60)
    attached.reader.control(share=0)
    with ring2.request("quick"):
        _forward(model)
    go_on.set()
    thread.join()
    handle.remove()
    attached.reader.control()
    records = attached.finish()
    assert [request["request_id"] for request in records.requests] == ["slow"]
    assert _captured(records) == {("mlp_out", 0), ("mlp_out", 1)}


def test_hooks_run_no_python_where_the_process_allows_it(tiny, attach):
    model = tiny("llama")
    attach(model, "resid_pre,q,mlp_out")
    assert {type(hook) for hook in _hooks(model)} == {types.BuiltinFunctionType}


def test_what_is_no_ordinary_tensor_is_captured_all_the_same(tiny, attach):
    class Named(torch.Tensor):
        pass

    model = tiny("llama")
    expected = []

    def other_kind(_module, _args, output):
        expected.append(output.detach().clone())
        return output.as_subclass(Named)

    def plain(_module, args):
        return tuple(arg.as_subclass(torch.Tensor) for arg in args)

    model.model.layers[0].mlp.register_forward_hook(other_kind)
    model.model.layers[1].register_forward_pre_hook(plain)
    attached = attach(model, "mlp_out")
    with ring2.request("one"):
        model(input_ids=PROMPT, use_cache=False)  # with gradients
    assert attached.probe.losses() == {}
    found = attached.finish().tensors
    assert [tensor.layer for tensor in found] == [0, 1]
    assert torch.equal(found[0].torch(), expected[0][0])


@pytest.mark.parametrize("whole", [True, False], ids=["the model", "its layers"])
def test_what_was_not_wanted_when_it_was_compiled_is_captured_later(tiny, attach, whole):
    torch.compiler.reset()
    model = tiny("llama")
    attached = attach(model, "resid_pre,q")
    attached.reader.control(share=0)
    with ring2.request("before"):
        _forward(model)
    assert _hooks(model) == []
    # Who resets the compiler makes it forget whom it tells that it begins.
    torch.compiler.reset()
    for module in [model] if whole else model.model.layers:
        module.compile(backend="eager", fullgraph=True)
    with ring2.request("while"):
        _forward(model)
    attached.reader.control()
    with ring2.request("after"):
        _forward(model)
    records = attached.finish()
    assert [request["request_id"] for request in records.requests] == ["after"]
    assert _captured(records) == {("resid_pre", 0), ("resid_pre", 1), ("q", 0), ("q", 1)}
    torch.compiler.reset()


def test_a_copy_of_an_attached_model_is_captured_once(tiny, attach):
    model = tiny("llama")
    first = attach(model, "resid_pre,pattern")
    duplicate = copy.deepcopy(model)
    first.probe.detach()
    attached = attach(duplicate, "resid_pre,pattern")
    with ring2.request("one"):
        _forward(duplicate)
    found = [(tensor.hook, tensor.layer) for tensor in attached.finish().tensors]
    assert sorted(found) == [(hook, layer) for hook in ("pattern", "resid_pre") for layer in (0, 1)]
    assert duplicate.config._attn_implementation == "sdpa"


def test_a_thread_that_looked_before_another_began_takes_no_hook_from_it(tiny, attach):
    model = tiny("llama")
    attached = attach(model, "mlp_out")
    attached.reader.control(share=0)
    steps = attached.probe._steps
    change, looked, go_on = steps.before_step, threading.Event(), threading.Event()

    def late(control, alone):
        if threading.get_ident() == slow.ident:
            looked.set()
            go_on.wait(1)  # the other thread begins now, unless it is kept from it
        change(control, alone)

    steps.before_step = late

    def run():
        with ring2.request("slow"):
            _forward(model)

    slow = threading.Thread(target=run)
    slow.start()
    assert looked.wait(60)
    attached.reader.control()

    def let_it_go_on(_module, _args):
        if threading.get_ident() != slow.ident:
            go_on.set()
            slow.join(60)

    handle = model.model.layers[0].register_forward_pre_hook(let_it_go_on)
    with ring2.request("quick"):
        _forward(model)
    handle.remove()
    assert _captured(attached.finish()) == {("mlp_out", 0), ("mlp_out", 1)}


def test_hooks_come_off_after_a_thread_was_interrupted_in_its_pass(tiny, attach):
    model = tiny("llama")
    attached = attach(model, "mlp_out")

    def interrupt(_module, _args):
        raise SystemExit

    handle = model.model.layers[0].register_forward_pre_hook(interrupt)
    thread = threading.Thread(target=_forward, args=(model,))
    thread.start()
    thread.join()
    handle.remove()
    attached.reader.control(share=0)
    _forward(model)
    assert _hooks(model) == []


def test_a_kernel_that_somebody_chose_meanwhile_stays(tiny, attach):
    model = tiny("llama")
    attached = attach(model, "pattern")
    model.set_attn_implementation("eager")
    attached.probe.detach()
    assert model.config._attn_implementation == "eager"
