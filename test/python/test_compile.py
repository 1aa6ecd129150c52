"""A compiled model keeps its graphs, and what is captured of it is what eager captures."""

import pytest
import torch
from torch._dynamo.utils import counters

import ring2

HOOKS = "resid_pre,q,v,attn_scores,pattern,final_ln,final_logits,token_ids"
PROMPT = torch.tensor([[5, 6, 7, 8, 9, 10]])
NEXT = torch.tensor([[11]])
TOLERANCE = 1e-5


@pytest.fixture(autouse=True)
def fresh():
    torch.compiler.reset()
    counters.clear()
    yield
    torch.compiler.reset()


def _compile(function, backend="aot_eager"):
    return torch.compile(function, fullgraph=True, backend=backend)


def _loop(forward, model, steps=(PROMPT, NEXT)):
    """Logits of a prompt and what follows it, over a cache that grows."""
    import transformers

    cache = transformers.DynamicCache(config=model.config)
    with torch.no_grad():
        return [forward(input_ids=ids, past_key_values=cache).logits for ids in steps]


def _graphs():
    return counters["stats"]["unique_graphs"], sum(counters["graph_break"].values())


def _places(records):
    return [(t.hook, t.layer, t.step, t.key, t.phase, t.tokens, t.shape) for t in records.tensors]


def _close(records, others):
    assert _places(records) == _places(others)
    for one, other in zip(records.tensors, others.tensors, strict=True):
        assert torch.allclose(one.torch(), other.torch(), rtol=TOLERANCE, atol=TOLERANCE), one[:5]


def _eager(tiny, attach, family="llama", **changes):
    model = tiny(family, **changes)
    attached = attach(model, HOOKS)
    with ring2.request("one"):
        _loop(model, model)
    return attached.finish()


def _plain(tiny, compiled, family="llama"):
    """Logits and graphs of the same compiled model without a probe."""
    model = tiny(family)
    logits = _loop(compiled(model), model)
    graphs = _graphs()
    torch.compiler.reset()
    counters.clear()
    return logits, graphs


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_a_compiled_model_keeps_its_graphs_and_is_captured_as_eager(tiny, attach, family):
    expected, graphs = _plain(tiny, _compile, family)
    eager = _eager(tiny, attach, family)
    model = tiny(family)
    attached = attach(model, HOOKS)
    with ring2.request("one"):
        logits = _loop(_compile(model), model)
    assert _graphs() == graphs
    assert all(torch.equal(a, b) for a, b in zip(logits, expected, strict=True))
    assert attached.probe.losses() == {}
    _close(attached.finish(), eager)


def test_a_function_that_calls_the_model_is_one_graph_with_the_capture_in_it(tiny, attach):
    def compiled(model):
        @_compile
        def call(input_ids, past_key_values):
            return model(input_ids=input_ids, past_key_values=past_key_values)

        return call

    expected, graphs = _plain(tiny, compiled)
    eager = _eager(tiny, attach)
    model = tiny("llama")
    attached = attach(model, HOOKS)
    call = compiled(model)
    with ring2.request("one"):
        logits = _loop(call, model)
    assert _graphs() == graphs == (2, 0)
    assert all(torch.equal(a, b) for a, b in zip(logits, expected, strict=True))
    # The code that is there is used again, for another request and without one.
    with ring2.request("two"):
        _loop(call, model)
    _loop(call, model)
    assert _graphs() == graphs
    attached.probe.detach()
    assert all(torch.equal(a, b) for a, b in zip(_loop(call, model), expected, strict=True))
    records = attached.reader.drain()
    names = [request["request_id"] for request in records.requests]
    assert names[:2] == ["one", "two"] and names[2].startswith("anon-") and len(names) == 3
    assert [end["steps"] for end in records.ends] == [2, 2, 2]
    assert len(records.tensors) == 3 * len(eager.tensors)
    for key in (1, 2, 3):
        part = [t._replace(key=1, step=t.step % 2) for t in records.tensors if t.key == key]
        _close(records._replace(tensors=part), eager)


def test_a_model_that_was_compiled_before_attaching_is_compiled_again(tiny, attach):
    eager = _eager(tiny, attach)
    model = tiny("llama")
    model.compile(fullgraph=True, backend="aot_eager")
    expected = _loop(model, model)
    attached = attach(model, HOOKS)
    with ring2.request("one"):
        logits = _loop(model, model)
    assert all(torch.equal(a, b) for a, b in zip(logits, expected, strict=True))
    attached.probe.detach()
    records = attached.reader.drain()
    _close(records, eager)
    assert all(torch.equal(a, b) for a, b in zip(_loop(model, model), expected, strict=True))
    assert attached.reader.drain().tensors == []


def test_what_is_wanted_changes_without_a_new_graph(tiny, attach):
    model = tiny("llama")
    attached = attach(model, "resid_pre,pattern")
    compiled = _compile(model)
    for hook in ("resid_pre", "pattern"):
        attached.reader.want(hook, -2, False)
    with ring2.request("one"):
        _loop(compiled, model, (PROMPT,))
        graphs = _graphs()
        assert attached.reader.drain().tensors == []
        attached.reader.want("pattern", 1, True)
        _loop(compiled, model, (PROMPT,))
    assert _graphs() == graphs
    assert [(t.hook, t.layer) for t in attached.finish().tensors] == [("pattern", 1)]


def test_padding_is_left_out_of_a_compiled_batch(tiny, attach):
    ids = torch.tensor([[0, 0, 5, 6], [7, 8, 9, 10]])
    mask = torch.tensor([[0, 0, 1, 1], [1, 1, 1, 1]])
    drained = []
    for compiled in (False, True):
        model = tiny("llama")
        attached = attach(model, HOOKS)

        def call(model=model):
            return model(input_ids=ids, attention_mask=mask).logits

        with torch.no_grad(), ring2.batch([ring2.RequestInfo("a"), ring2.RequestInfo("b")]):
            (_compile(call) if compiled else call)()
        drained.append(attached.finish())
    assert [step.rows for step in drained[1].steps] == [((1, 0, 2, 0, 2, 2), (2, 0, 4, 1, 0, 0))]
    _close(*drained)


def _generate(model, **options):
    from transformers.generation.configuration_utils import CompileConfig

    settings = CompileConfig(fullgraph=True, backend="aot_eager", mode=None)
    settings._compile_all_devices = True
    return model.generate(
        PROMPT, attention_mask=torch.ones_like(PROMPT), max_new_tokens=4, do_sample=False,
        eos_token_id=None, compile_config=settings, **options,
    )


def test_generation_with_a_compiled_static_cache_is_captured_as_eager(tiny, attach):
    plain = tiny("llama")
    tokens = _generate(plain, cache_implementation="static")
    graphs = _graphs()
    assert graphs == (1, 0)
    torch.compiler.reset()
    counters.clear()

    model = tiny("llama")
    attached = attach(model, HOOKS)
    with ring2.request("one"):
        assert torch.equal(_generate(model, cache_implementation="static"), tokens)
    assert _graphs() == graphs
    static = attached.finish()

    dynamic = attach(plain, HOOKS)
    with ring2.request("one"):
        plain.generate(
            PROMPT, attention_mask=torch.ones_like(PROMPT), max_new_tokens=4, do_sample=False,
            eos_token_id=None,
        )
    # Columns of the cache that nothing has filled are in no pattern.
    _close(static, dynamic.finish())


def test_inductor_keeps_every_capture(tiny, attach):
    eager = _eager(tiny, attach)
    model = tiny("llama")
    attached = attach(model, HOOKS)

    @torch.compile(fullgraph=True)
    def call(input_ids, past_key_values):
        return model(input_ids=input_ids, past_key_values=past_key_values)

    with ring2.request("one"):
        _loop(call, model)
    assert _graphs() == (2, 0)
    _close(attached.finish(), eager)


def test_a_hook_point_is_captured_inside_a_compiled_model(attach):
    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.tap = ring2.HookPoint("resid_pre", layer=0)
            self.linear = torch.nn.Linear(4, 4)

        def forward(self, x):
            return self.linear(self.tap(x))

    model = Model()
    attached = attach(model, "resid_pre")
    x = torch.randn(1, 3, 4)
    with torch.no_grad(), ring2.request("one"):
        assert torch.equal(_compile(model)(x), model(x))
    records = attached.finish()
    assert [t.shape for t in records.tensors] == [(3, 4), (3, 4)]
    assert all(torch.equal(t.torch(), x[0]) for t in records.tensors)
