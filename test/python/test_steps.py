"""STEP records: which tokens of which request each forward pass processed."""

import pytest
import torch

import ring2
from transformers import DynamicCache


def _requests(count: int):
    return ring2.batch([ring2.RequestInfo(f"r{index}") for index in range(count)])


def _generate(model, ids, mask=None, **options):
    options = {"max_new_tokens": 3, "min_new_tokens": 3, "do_sample": False, **options}
    return model.generate(input_ids=ids, attention_mask=mask, **options)


def _padded(*lengths: int, left: bool = True):
    width = max(lengths)
    ids = torch.randint(3, 97, (len(lengths), width))
    mask = torch.ones_like(ids)
    for row, length in enumerate(lengths):
        pads = slice(0, width - length) if left else slice(length, width)
        mask[row, pads] = 0
        ids[row, pads] = 0
    return ids, mask


def test_prefill_and_decode_have_exact_ranges(tiny, attach):
    model = tiny("llama")
    attached = attach(model, "resid_pre")
    with _requests(1):
        _generate(model, torch.randint(3, 97, (1, 5)))
    steps = attached.finish().steps
    assert [step.rows for step in steps] == [
        ((1, 0, 5, 0, 0, 0),), ((1, 5, 6, 0, 0, 0),), ((1, 6, 7, 0, 0, 0),)
    ]
    assert [step.phases for step in steps] == [("prefill",), ("decode",), ("decode",)]
    assert [step.columns for step in steps] == [5, 1, 1]


@pytest.mark.parametrize("cache", ["dynamic", "static"])
def test_left_padding_moves_rows_and_keys_but_no_position(cache, tiny, attach):
    model = tiny("llama")
    ids, mask = _padded(3, 7, 5)
    attached = attach(model, "resid_pre,pattern")
    with _requests(3):
        _generate(model, ids, mask, cache_implementation=cache)
    steps = attached.finish().steps
    assert steps[0].rows == ((1, 0, 3, 0, 4, 4), (2, 0, 7, 1, 0, 0), (3, 0, 5, 2, 2, 2))
    assert steps[1].rows == ((1, 3, 4, 0, 0, 4), (2, 7, 8, 1, 0, 0), (3, 5, 6, 2, 0, 2))
    assert steps[2].rows == ((1, 4, 5, 0, 0, 4), (2, 8, 9, 1, 0, 0), (3, 6, 7, 2, 0, 2))


def test_right_padding_leaves_the_padding_out(tiny, attach):
    model = tiny("llama")
    ids, mask = _padded(3, 7, left=False)
    attached = attach(model, "resid_pre,pattern,final_logits")
    with torch.no_grad(), _requests(2):
        own = model(input_ids=ids, attention_mask=mask, output_hidden_states=True)
    records = attached.finish()
    assert records.steps[0].rows == ((1, 0, 3, 0, 0, 0), (2, 0, 7, 1, 0, 0))
    assert records.tensor("pattern", 0, key=1).shape == (4, 3, 3)
    assert torch.equal(records.tensor("resid_pre", 1, key=1).torch(), own.hidden_states[1][0, :3])
    assert torch.equal(records.tensor("final_logits", key=1).torch(), own.logits[0, :3])


def test_decoding_after_right_padding_captures_all_but_the_pattern(tiny, attach):
    model = tiny("llama")
    ids, mask = _padded(3, 7, left=False)
    attached = attach(model, "resid_pre,pattern")
    with torch.no_grad(), _requests(2):
        cache = model(input_ids=ids, attention_mask=mask).past_key_values
        longer = torch.cat((mask, torch.ones(2, 1, dtype=mask.dtype)), dim=1)
        positions = torch.tensor([[3], [7]])
        model(input_ids=ids[:, :1], attention_mask=longer, past_key_values=cache,
              position_ids=positions)
    records = attached.finish()
    assert records.steps[1].rows == ((1, 3, 4, 0, 0, 0), (2, 7, 8, 1, 0, 0))
    assert {t.hook for t in records.tensors if t.step == 1} == {"resid_pre"}
    assert attached.probe.losses()["unsupported"][0] == 2


def test_chunked_prefill_continues_the_range(tiny, attach):
    model = tiny("llama")
    ids, mask = _padded(6, 10)
    attached = attach(model, "resid_pre,pattern")
    with _requests(2):
        _generate(model, ids, mask, prefill_chunk_size=4)
    steps = attached.finish().steps
    # The first chunk is padding alone for request 1: it has no row there, and is not copied.
    assert steps[0].rows == ((2, 0, 4, 0, 0, 0),)
    assert steps[1].rows == ((1, 0, 4, 0, 0, 4), (2, 4, 8, 1, 0, 0))
    assert steps[2].rows == ((1, 4, 6, 0, 0, 4), (2, 8, 10, 1, 0, 0))
    assert steps[3].rows == ((1, 6, 7, 0, 0, 4), (2, 10, 11, 1, 0, 0))
    phases = [step.phases[0] for step in steps]
    assert phases == ["prefill", "prefill", "prefill", "decode", "decode"]


def test_without_a_cache_every_pass_starts_at_zero(tiny, attach):
    model = tiny("llama")
    attached = attach(model, "resid_pre")
    with _requests(1):
        _generate(model, torch.randint(3, 97, (1, 5)), use_cache=False)
    rows = [step.rows[0][1:3] for step in attached.finish().steps]
    assert rows == [(0, 5), (0, 6), (0, 7)]


def test_a_row_that_has_ended_is_captured_no_further(tiny, attach):
    model = tiny("llama")
    ids = torch.randint(3, 97, (2, 4))
    end = int(_generate(model, ids, max_new_tokens=2, min_new_tokens=2, eos_token_id=96)[0, 5])
    model.generation_config.eos_token_id = end
    attached = attach(model, "resid_pre,token_ids")
    with _requests(2):
        out = model.generate(input_ids=ids, max_new_tokens=6, do_sample=False)
    records = attached.finish()
    lengths = []
    for row in range(2):
        generated = out[row, 4:].tolist()
        produced = generated.index(end) + 1 if end in generated else len(generated)
        # The last produced token is never fed.
        lengths.append(4 + produced - 1)
    assert lengths[0] < lengths[1], "the two rows must end at different steps"
    ends = {end["key"]: end["tokens"] for end in records.ends}
    assert ends == {1: lengths[0], 2: lengths[1]}
    for key in (1, 2):
        assert torch.equal(records.stitched("token_ids", -1, key), out[key - 1, : lengths[key - 1]])


def test_logits_of_chosen_positions_are_counted_and_not_captured(tiny, attach, caplog):
    model = tiny("llama")
    ids = torch.randint(3, 97, (1, 7))
    attached = attach(model, "resid_pre,final_logits")
    with torch.no_grad(), _requests(1):
        for _ in range(2):
            model(input_ids=ids, logits_to_keep=torch.tensor([0, 3]))
        kept = model(input_ids=ids, logits_to_keep=2).logits
    records = attached.finish()
    assert [t.hook for t in records.tensors] == ["resid_pre"] * 6 + ["final_logits"]
    assert torch.equal(records.tensor("final_logits").torch(), kept[0])
    assert attached.probe.losses()["unsupported"][0] == 2
    assert sum("logits_to_keep" in line for line in caplog.messages) == 1


def test_an_end_token_fed_on_purpose_is_captured_in_a_batch_of_one(tiny, attach):
    model = tiny("llama")
    attached = attach(model, "token_ids")
    with torch.no_grad(), _requests(1):
        cache = model(input_ids=torch.tensor([[5, 6, 7]])).past_key_values
        model(input_ids=torch.tensor([[2]]), past_key_values=cache)
    assert [step.rows[0][1:3] for step in attached.finish().steps] == [(0, 3), (3, 4)]


def test_more_rows_than_requests_are_not_captured_but_counted(tiny, attach, caplog):
    model = tiny("llama")
    attached = attach(model, "resid_pre")
    with _requests(1):
        out = _generate(model, torch.randint(3, 97, (1, 5)), num_beams=3)
    assert out.shape[0] == 1
    records = attached.finish()
    assert records.steps == [] and records.tensors == []
    assert attached.probe.losses()["unsupported"][0] == 3 * 2
    assert sum("one request per batch row" in line for line in caplog.messages) == 1


def test_forward_passes_outside_of_requests_get_their_own(tiny, attach):
    model = tiny("llama")
    attached = attach(model, "resid_pre")
    _generate(model, torch.randint(3, 97, (2, 5)))
    _generate(model, torch.randint(3, 97, (1, 4)))
    records = attached.finish()
    ids = [request["request_id"] for request in records.requests]
    assert len(set(ids)) == 3 and all(name.startswith("anon-") for name in ids)
    assert {end["key"]: end["tokens"] for end in records.ends} == {1: 7, 2: 7, 3: 6}
    assert [step.rows[0][0] for step in records.steps] == [1, 1, 1, 3, 3, 3]


def test_a_cache_continues_an_anonymous_request(tiny, attach):
    model = tiny("llama")
    cache = DynamicCache(config=model.config)
    attached = attach(model, "resid_pre")
    with torch.no_grad():
        model(input_ids=torch.tensor([[5, 6, 7]]), past_key_values=cache)
        model(input_ids=torch.tensor([[8, 9]]), past_key_values=cache)
    records = attached.finish()
    assert [step.rows[0][:3] for step in records.steps] == [(1, 0, 3), (1, 3, 5)]
    assert len(records.requests) == 1


def test_two_threads_do_not_mix_their_steps(tiny, attach):
    from concurrent.futures import ThreadPoolExecutor

    model = tiny("llama")
    prompts = [torch.randint(3, 97, (1, 4 + index)) for index in range(4)]
    attached = attach(model, "token_ids,resid_pre", payload_mb=64)

    def run(index: int):
        with ring2.request(f"thread-{index}"):
            return [_generate(model, prompts[index], eos_token_id=None) for _ in range(4)][0]

    with ThreadPoolExecutor(4) as pool:
        outputs = list(pool.map(run, range(4)))
    records = attached.finish()
    assert attached.probe.losses() == {}
    for request in records.requests:
        index = int(request["request_id"].split("-")[1])
        ids = records.stitched("token_ids", -1, request["key"])
        assert torch.equal(ids, outputs[index][0, :-1].repeat(4))
