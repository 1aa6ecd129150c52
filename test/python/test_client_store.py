"""A store's folder read without an exporter: files of the documented columns, whole and damaged."""

import datetime
import json
import os

import numpy
import pyarrow
import pyarrow.parquet as parquet
import pytest
import torch

import ring2
from ring2 import Ring2Error
from ring2._crc32c import crc32c

TRACE = "0af7651916cd43dd8448eb211c80319c"
OTHER = "1" * 32
WHEN = datetime.datetime(2026, 3, 4, 5, 6, 7, 123456, tzinfo=datetime.timezone.utc)


def row(values, start=0, step=0, **change):
    data = values.tobytes()
    axis = values.shape[1] if change.get("hook") == "pattern" else values.shape[0]
    made = {
        "data": data, "trace_id": TRACE, "request_id": "one", "model": "a/b", "producer": "chat-1",
        "hook": "resid_pre", "layer": 0, "step": step, "phase": "prefill", "token_start": start,
        "token_end": start + axis, "kv_offset": 0, "tp_rank": 0, "pp_rank": 0, "dp_rank": 0,
        "ep_rank": 0, "captured_at": WHEN, "dtype": str(values.dtype), "shape": list(values.shape),
        "encoding": "raw", "data_bytes": len(data), "data_crc32c": crc32c(data), "l2_mean": 2.5,
        "nonfinite": 0,
    }
    return {**made, **change}


def request(tokens=4, prompt=2, **change):
    phases = [{"phase": "prefill", "tokenStart": 0, "tokenEnd": prompt},
              {"phase": "decode", "tokenStart": prompt, "tokenEnd": tokens}]
    made = {"trace_id": TRACE, "request_id": "one", "producer": "chat-1", "model": "a/b",
            "tokens": tokens, "verdict": "ok", "completeness": "complete",
            "summary": json.dumps({"phases": phases})}
    return {**made, **change}


@pytest.fixture
def store(tmp_path):
    """Writes rows as files of a dataset; the store's folder."""
    count = iter(range(1000))

    def write(dataset, *rows):
        folder = tmp_path / dataset / "model_slug=a-b" / "date=2026-03-04"
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"chat-1-{next(count):03}.parquet"
        parquet.write_table(pyarrow.Table.from_pylist(list(rows)), path)
        return path

    write.folder = str(tmp_path)
    return write


def values(*shape, start=0.0):
    return numpy.arange(start, start + numpy.prod(shape), dtype="float32").reshape(shape)


def open_trace(store, trace_id=TRACE):
    return ring2.open(store.folder).trace(trace_id)


def test_steps_of_several_files_become_one_tensor_and_later_steps_win(store):
    store("tensors", row(values(2, 3)), row(values(1, 3, start=50), start=2, step=1))
    store("tensors", row(values(2, 3, start=90), start=2, step=2), row(values(2, 3)))
    store("requests", request())
    trace = open_trace(store)
    tensor = trace.tensor("hidden-states", layer=0)
    want = numpy.concatenate([values(2, 3), values(2, 3, start=90)])
    assert numpy.array_equal(tensor.numpy(), want)
    assert (tensor.tokens, tensor.gaps, tensor.complete, trace.complete) == ([(0, 4)], [], True, True)
    part = trace.tensor("resid_pre", layer=0, tokens="1:3")
    assert numpy.array_equal(part.numpy(), want[1:3]) and part.complete
    assert torch.equal(part.torch(), torch.from_numpy(want[1:3]))
    assert len(trace.tensors()) == 3 and len(trace) == 1
    frame = trace.to_pandas()
    assert frame["statistics.l2_mean"].tolist() == [2.5] * 3
    assert frame["captured_at"][0] == WHEN


def test_missing_positions_are_left_out_and_named(store):
    store("tensors", row(values(1, 3)), row(values(1, 3), start=3, step=3))
    tensor = open_trace(store).tensor("resid_pre", layer=0)
    assert (tensor.shape, tensor.tokens, tensor.gaps) == ((2, 3), [(0, 1), (3, 4)], [(1, 3)])
    assert tensor.completeness == "incomplete"
    # Without a hole and without an end nobody knows.
    assert open_trace(store).tensor("resid_pre", layer=0, tokens=":1").completeness == "unknown"
    store("requests", request(tokens=6))
    assert open_trace(store).tensor("resid_pre", layer=0).gaps == [(1, 3), (4, 6)]


def test_attention_is_joined_along_queries_and_filled_with_zeros(store):
    first, second = values(2, 2, 2), values(2, 1, 3, start=20)
    store("tensors", row(first, hook="pattern"), row(second, hook="pattern", start=2, step=1))
    tensor = open_trace(store).tensor("pattern", layer=0, heads="1,0")
    want = numpy.zeros((2, 3, 3), dtype="float32")
    want[:, :2, :2], want[:, 2:, :] = first, second
    assert numpy.array_equal(tensor.numpy(), want[[1, 0]])


def test_logits_hold_the_last_positions_of_their_step_and_keep_bfloat16(store):
    bits = numpy.array([[0x3F80, 0xC000]], dtype="<u2")
    common = {"hook": "final_logits", "layer": -1, "dtype": "bfloat16"}
    store("tensors", row(bits, **{**common, "token_start": 0, "token_end": 2}))
    store("requests", request(tokens=2))
    tensor = open_trace(store).tensor("logits")
    assert tensor.numpy().tolist() == [[1.0, -2.0]] and tensor.dtype == "bfloat16"
    assert tensor.torch().dtype == torch.bfloat16
    assert (tensor.tokens, tensor.complete) == ([(1, 2)], True)


def test_a_trace_known_late_is_found_under_the_callers_id(store):
    store("tensors", row(values(4, 3), trace_id=OTHER))
    store("requests", request(trace_id=OTHER))
    store("contexts", {"trace_id": TRACE, "stored_trace_id": OTHER, "request_id": "one"})
    trace = open_trace(store)
    assert trace.complete and trace.tensor("resid_pre", layer=0).complete


def test_what_has_to_be_chosen_is_asked_for(store):
    store("tensors", row(values(1, 3)), row(values(1, 3, start=5), request_id="two"))
    trace = open_trace(store)
    with pytest.raises(Ring2Error, match="RING2_E_QUERY.*request_id=, as there are 2: one, two"):
        trace.tensor("resid_pre", layer=0)
    assert trace.tensor("resid_pre", layer=0, request_id="two").numpy()[0, 0] == 5
    store("tensors", row(values(1, 3, start=7), producer="draft-2"))
    with pytest.raises(Ring2Error, match="RING2_E_QUERY.*producer=.*chat-1, draft-2"):
        trace.tensor("resid_pre", layer=0, request_id="one")
    assert trace.tensor("resid_pre", layer=0, producer="draft-2").numpy()[0, 0] == 7
    shard = {"hook": "q", "request_id": "three"}
    store("tensors", row(values(1, 2, 2), **shard), row(values(1, 2, 2, start=9), **shard, tp_rank=1))
    with pytest.raises(Ring2Error, match="RING2_E_QUERY.*rank="):
        trace.tensor("q", layer=0)
    assert trace.tensor("q", layer=0, rank="1").numpy()[0, 0, 0] == 9
    assert [tensor.hook for tensor in open_trace(store)].count("q") == 2


@pytest.mark.parametrize(("change", "code"), [
    ({"data_crc32c": 1}, "RING2_E_CHECKSUM"),
    ({"data_bytes": 13}, "RING2_E_CHECKSUM"),
    ({"encoding": "bytes-zstd-1"}, "RING2_E_CHECKSUM"),
    ({"encoding": "gzip-9"}, "RING2_E_STORE"),
    ({"encoding": "redacted"}, "RING2_E_REDACTED"),
])
def test_a_row_that_is_not_what_it_says_is_an_error(store, change, code):
    store("tensors", row(values(1, 3), **change), row(values(1, 3), layer=1))
    trace = open_trace(store)
    with pytest.raises(Ring2Error) as caught:
        trace.tensor("resid_pre", layer=0)
    error = caught.value
    assert error.code == code and error.expected and error.actual
    assert trace.tensor("resid_pre", layer=1).shape == (1, 3)


def test_iterating_passes_over_redacted_tensors_and_asking_for_one_is_an_error(store):
    store("tensors", row(values(1, 3)), row(values(1, 3), layer=1, encoding="redacted", data=b""),
          row(values(1, 3), layer=2))
    trace = open_trace(store)
    assert [tensor.layer for tensor in trace] == [0, 2] and len(trace) == 3
    with pytest.raises(Ring2Error, match="RING2_E_REDACTED"):
        trace.tensor("resid_pre", layer=1)


def test_hooks_named_after_modules_are_read_like_those_of_the_catalogue(store):
    hook = "module_model_layers_0_mlp"
    common = {"hook": hook, "layer": -1}
    store("tensors", row(values(2, 3), **common),
          row(values(1, 3, start=6), start=2, step=1, **common), row(values(2, 2)))
    store("requests", request(tokens=3))
    trace = open_trace(store)
    tensor = trace.tensor(hook)
    assert numpy.array_equal(tensor.numpy(), values(3, 3)) and tensor.complete
    assert len(trace.tensors(hook=hook)) == 2
    assert [one.hook for one in trace] == [hook, "resid_pre"]
    with pytest.raises(Ring2Error, match="RING2_E_TENSOR_UNKNOWN"):
        trace.tensor("module_of_nobody")
    with pytest.raises(Ring2Error, match="RING2_E_QUERY"):
        trace.tensor(hook, heads="0")
    store("tensors", row(values(2, 3), tp_rank=1, **common))
    with pytest.raises(Ring2Error, match="RING2_E_QUERY.*rank="):
        trace.tensor(hook)


def damage(path):
    path.write_bytes(path.read_bytes()[:-20])
    return path


def test_a_damaged_file_is_passed_over_and_named_and_nothing_is_called_complete_then(store):
    store("tensors", row(values(4, 3)))
    store("requests", request())
    path = damage(store("tensors", row(values(4, 3), layer=1)))
    with pytest.warns(RuntimeWarning, match=f"passed over .*{path.name}"):
        trace = open_trace(store)
    tensor = trace.tensor("resid_pre", layer=0)
    assert numpy.array_equal(tensor.numpy(), values(4, 3))
    assert (tensor.completeness, trace.complete) == ("unknown", False)
    with pytest.raises(Ring2Error, match=f"RING2_E_STORE.*layer 1.*{path.name}"):
        trace.tensor("resid_pre", layer=1)


def test_a_trace_that_may_be_in_a_damaged_file_is_not_called_unknown(store):
    path = damage(store("tensors", row(values(1, 3))))
    with pytest.warns(RuntimeWarning), pytest.raises(Ring2Error, match=f"RING2_E_STORE.*{path.name}"):
        open_trace(store)


def test_rows_whose_payloads_cannot_be_read_are_an_error_and_not_missing(store):
    path = store("tensors", row(values(64, 64)))
    content = bytearray(path.read_bytes())
    # The first column is the payload: its page header begins after the magic.
    content[4:24] = b"\xff" * 20
    path.write_bytes(content)
    store("requests", request())
    trace = open_trace(store)
    assert len(trace.tensors()) == 1
    with pytest.warns(RuntimeWarning), pytest.raises(Ring2Error, match=f"RING2_E_STORE.*{path.name}"):
        trace.tensor("resid_pre", layer=0)


@pytest.mark.parametrize(("ask", "code"), [
    (lambda trace: trace.tensor("resid_pre", layer=9), "RING2_E_TENSOR_UNKNOWN"),
    (lambda trace: trace.tensor("resid_pre", layer=0, tokens="7:9"), "RING2_E_QUERY"),
    (lambda trace: trace.tensor("resid_pre", layer=0, tokens="2:1"), "RING2_E_QUERY"),
    (lambda trace: trace.tensor("resid_pre", layer=0, heads="0"), "RING2_E_QUERY"),
    (lambda trace: trace.tensor("resid_pre", layer=0, rank="left"), "RING2_E_QUERY"),
    (lambda trace: trace.tensor("../x", layer=0), "RING2_E_SELECTION"),
])
def test_what_is_not_there_has_its_code(store, ask, code):
    store("tensors", row(values(1, 3)))
    with pytest.raises(Ring2Error) as caught:
        ask(open_trace(store))
    assert caught.value.code == code


def test_what_is_no_store_or_no_trace_has_its_code(store, tmp_path):
    store("tensors", row(values(1, 3)))
    for trace_id, code in [(OTHER, "RING2_E_TRACE_UNKNOWN"), ("*", "RING2_E_TRACE_ID"),
                           ("0" * 32, "RING2_E_TRACE_ID")]:
        with pytest.raises(Ring2Error) as caught:
            open_trace(store, trace_id)
        assert caught.value.code == code
    with pytest.raises(Ring2Error, match="RING2_E_STORE.*tensors/"):
        ring2.open(os.path.join(store.folder, "missing"))
    assert ring2.open(tmp_path.as_uri()).trace(TRACE).tensor("resid_pre", layer=0).shape == (1, 3)


def test_the_checksum_is_that_of_the_standard():
    assert crc32c(b"123456789") == 0xE3069283
    assert crc32c(b"") == 0
    # 32 bytes of zeros and of ones: RFC 3720, B.4.
    assert crc32c(bytes(32)) == 0x8A9136AA
    assert crc32c(b"\xff" * 32) == 0x62A8AB43
    data = numpy.random.default_rng(1).bytes(5000)
    # Parts at once or byte by byte: any split of the same bytes has one checksum.
    table = [_slow(bytes([byte])) for byte in range(256)]
    assert len(set(table)) == 256
    for length in (255, 256, 257, 511, 512, 769, 4097):
        assert crc32c(data[:length]) == _slow(data[:length])


def _slow(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def test_rows_and_tensors_come_in_the_order_of_a_running_exporter_whatever_the_files(store):
    store("tensors", row(values(1, 3), start=1, step=1), row(values(1, 3), layer=1))
    store("tensors", row(values(1, 3)), row(values(1, 3), hook="ln1"))
    trace = open_trace(store)
    assert [(one["hook"], one["layer"], one["step"]) for one in trace.tensors()] == [
        ("ln1", 0, 0), ("resid_pre", 0, 0), ("resid_pre", 0, 1), ("resid_pre", 1, 0)]
    assert [tensor.name for tensor in trace] == ["ln1.0", "resid_pre.0", "resid_pre.1"]
