"""The plugin's parts without an engine: settings, ids, trace context, vLLM's symbols, patterns, cache keys."""

import logging
import pickle
from types import SimpleNamespace

import pytest
import torch
from ring2._errors import Ring2Error
from ring2_vllm import _aborts, _plugin, _settings, _start, _trace
from ring2_vllm._patterns import CACHE_LAYOUTS, masked_scores, read_keys
from ring2_vllm._sessions import external_id, request_info
from ring2_vllm._sites import find_sites
from vllm import SamplingParams
from vllm.config import VllmConfig

TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Unchanged:
    """A class of vLLM's with one method less."""

    def load_model(self) -> str:
        return "loaded"


def test_settings_come_from_the_environment_and_from_the_engine_before_it() -> None:
    environment = {"RING2_VLLM_HOOKS": "logits", "RING2_VLLM_PAYLOAD_MB": "32"}
    settings = _settings.read({"ring2": {"hooks": "q", "traced": []}}, environment)
    assert (settings.hooks, settings.payload_mb, settings.layers) == ("q", 32.0, "all")
    assert not _settings.enabled({"RING2_VLLM": "off"}) and _settings.enabled({})


@pytest.mark.parametrize(
    ("additional", "environment"),
    [
        ({"ring2": {"hook": "q"}}, {}),
        ({"ring2": "q"}, {}),
        ({}, {"RING2_VLLM_PAYLOAD_MB": "much"}),
        ({}, {"RING2_VLLM_PATTERN_QUERIES": "-1"}),
    ],
)
def test_settings_that_cannot_be_meant_say_what_was_expected(additional, environment) -> None:
    with pytest.raises(Ring2Error, match="expected"):
        _settings.read(additional, environment)


def test_a_vllm_without_a_symbol_is_left_alone_with_one_line(monkeypatch, caplog) -> None:
    monkeypatch.setattr(_plugin, "_registered", False)
    monkeypatch.setattr(
        _plugin, "SYMBOLS", ((__name__, "Unchanged.load_model", ("self",)),
                             (__name__, "Unchanged.execute_model", ("self",))),
    )
    monkeypatch.setattr(_plugin, "WORKER", __name__)
    before = Unchanged.load_model
    # vLLM's loggers do not hand their lines on to the root's.
    monkeypatch.setattr(_plugin, "logger", logging.getLogger("test.ring2"))
    with caplog.at_level(logging.INFO):
        _plugin.register()
        _plugin.register()
    assert Unchanged.load_model is before
    (line,) = [record.getMessage() for record in caplog.records]
    assert "Unchanged.execute_model" in line and "0.32.0" in line


def test_the_symbols_of_the_installed_vllm_are_those_that_are_wrapped() -> None:
    assert _plugin.missing() == []


def test_an_error_while_wrapping_does_not_leave_the_plugin(monkeypatch) -> None:
    monkeypatch.setattr(_plugin, "_registered", False)
    monkeypatch.setattr(_plugin, "missing", lambda: 1 / 0)
    _plugin.register()


def test_a_worker_whose_capture_cannot_start_goes_on_without(monkeypatch) -> None:
    monkeypatch.setenv("RING2_VLLM_HOOKS", "no-such-hook")
    assert _start.start(SimpleNamespace()) is None


@pytest.mark.parametrize(
    ("internal", "given", "known"),
    [
        ("chatcmpl-one-0a1b2c3d", "chatcmpl-one", "chatcmpl-one"),
        ("1_chatcmpl-one-0a1b2c3d", "chatcmpl-one", "1_chatcmpl-one"),
        ("7-0a1b2c3d", None, "7-0a1b2c3d"),
        ("1_0-0a1b2c3d", "1_0", "1_0"),
    ],
)
def test_a_request_is_known_by_the_id_its_client_was_told(internal, given, known) -> None:
    assert external_id(internal, given) == known


def test_parameters_carry_the_id_and_the_trace_context_of_their_request() -> None:
    params = SamplingParams(temperature=0.5, extra_args={"other": 1})
    marked = _trace.marked(params, "cmpl-1", {"traceparent": TRACEPARENT}, False)
    assert params.extra_args == {"other": 1}
    assert marked.extra_args["other"] == 1 and marked.temperature == 0.5
    info, started = request_info("cmpl-1-0a1b2c3d", marked)
    assert (info.request_id, info.traceparent) == ("cmpl-1", TRACEPARENT)
    assert info.attributes["gen_ai.request.temperature"] == 0.5
    assert started == marked.extra_args["ring2"]["started_realtime_ns"]


def test_a_client_cannot_say_whose_request_it_is_nor_break_it_by_a_bad_header() -> None:
    forged = SamplingParams(extra_args={"ring2": {"request_id": "someone-else"}})
    marked = _trace.marked(forged, "cmpl-2", {"traceparent": "00-zz"}, False)
    info, _ = request_info("cmpl-2-0a1b2c3d", marked)
    assert (info.request_id, info.traceparent) == ("cmpl-2", None)


def test_in_process_the_caller_says_the_context() -> None:
    own = {"ring2": {"traceparent": TRACEPARENT, "attributes": {"route": "/x"}}}
    marked = _trace.marked(SamplingParams(extra_args=own), "3", None, True)
    info, _ = request_info("3-0a1b2c3d", marked)
    assert (info.request_id, info.traceparent) == ("3-0a1b2c3d", TRACEPARENT)
    assert info.attributes["route"] == "/x"


def test_an_architecture_that_is_not_known_has_no_sites() -> None:
    assert find_sites(torch.nn.Linear(2, 2)) == []


def test_the_key_of_the_compile_cache_tells_selections_apart() -> None:
    def key(*wanted: tuple[str, int]) -> str:
        config = VllmConfig()
        _start.say_what_is_traced(config, 0, set(wanted))
        return config.compute_hash()

    bare = VllmConfig().compute_hash()
    keys = [key(("q", 0)), key(("q", 1)), key(("q", 0), ("q", 1))]
    assert len({bare, *keys}) == 4
    assert key(("q", 0)) == keys[0]


def test_scores_are_scaled_products_of_grouped_heads_under_the_causal_mask() -> None:
    generator = torch.Generator().manual_seed(1)
    heads, kv_heads, size, count, queries = 4, 2, 8, 13, 3
    query = torch.randn(queries, heads, size, generator=generator)
    keys = torch.randn(kv_heads, count, size, generator=generator)
    got = masked_scores(query, keys, 0.3)
    assert got.shape == (heads, queries, count)
    for head in range(heads):
        for number in range(queries):
            seen = count - queries + number + 1
            scores = keys[head // (heads // kv_heads), :seen].double() @ query[number, head].double()
            assert torch.allclose(got[head, number, :seen].double(), scores * 0.3, atol=1e-6)
            assert got[head, number, seen:].isneginf().all()


class Ended(SimpleNamespace):
    """A request of a scheduler's."""

    def __init__(self, name: str, stop: tuple[str, ...] = (), resumable: bool = False) -> None:
        parameters = SamplingParams(stop=list(stop))
        super().__init__(request_id=name, sampling_params=parameters, resumable=resumable)


def test_an_aborted_request_is_named_once_unless_its_answer_may_have_been_whole(monkeypatch) -> None:
    monkeypatch.setattr(_aborts, "_untold", {})
    class Scheduler:
        def finish_requests(self, request_ids, finished_status):
            self.finished_req_ids.update(one.request_id for one in request_ids)
            return request_ids

        def schedule(self):
            self.finished_req_ids = set()
            return SimpleNamespace()

    _aborts.wrap_scheduler(Scheduler, "aborted")
    scheduler = Scheduler()
    assert not _aborts.aborted_of(scheduler.schedule())
    scheduler.finish_requests([Ended("stopped", stop=("END",)), Ended("one")], "aborted")
    scheduler.finish_requests([Ended("session", resumable=True), Ended("two")], "aborted")
    scheduler.finish_requests([Ended("failed")], "error")
    output = pickle.loads(pickle.dumps(scheduler.schedule()))
    assert set(_aborts.aborted_of(output)) == {"one", "two"}
    assert not _aborts.aborted_of(scheduler.schedule())
    # A worker that closes in the same process asks for what no output has told.
    scheduler.finish_requests([Ended("three")], "aborted")
    scheduler.finish_requests([Ended("four", stop=("END",))], "aborted")
    finished, aborted = _aborts.untold()
    assert finished == {"three", "four"}
    assert aborted == {"three"}


def test_a_scheduler_that_answers_otherwise_is_not_disturbed(caplog) -> None:
    class Scheduler:
        __slots__ = ()  # takes no attribute

        def finish_requests(self, request_ids, finished_status):
            return 7

        def schedule(self):
            return "output"

    _aborts.wrap_scheduler(Scheduler, "aborted")
    scheduler = Scheduler()
    for _ in range(2):
        assert scheduler.finish_requests(["one"], "aborted") == 7
        assert scheduler.schedule() == "output"
    assert sum("cannot be told" in line for line in caplog.messages) == 2  # once of each call


@pytest.mark.parametrize("layout", range(2))
def test_keys_are_read_through_the_block_table(layout: int) -> None:
    blocks, kv_heads, block, size, count = 5, 2, 32, 8, 50
    keys = torch.randn(kv_heads, 2 * block, size)
    cache = torch.zeros(blocks, kv_heads, block, 2 * size)
    plain = cache.view(blocks, kv_heads, block * 2, size)
    table = torch.tensor([3, 1, 0], dtype=torch.int32)
    for number, home in enumerate(table[:2].tolist()):
        part = keys[:, number * block : (number + 1) * block]
        # The kernel's layout keeps one element of every token of a block together.
        laid = part.transpose(1, 2).reshape(kv_heads, block, size) if layout == 0 else part
        plain[home, :, :block] = laid
    assert read_keys(cache, CACHE_LAYOUTS[layout], table, count).equal(keys[:, :count])
