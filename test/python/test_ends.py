"""Rows of a batch that end early: which ids end them is what that generation says."""

import copy
import inspect

import pytest
import torch
from transformers import GenerationConfig, StoppingCriteria

import ring2

PROMPT = 4
NEW = 6
OPTIONS = {"max_new_tokens": NEW, "do_sample": False}


@pytest.fixture
def endless(tiny):
    """A model that knows no end, two prompts, and what it generates for them."""
    model = tiny("llama", eos_token_id=None, initializer_range=0.5)
    ids = torch.randint(3, 97, (2, PROMPT))
    return model, ids, model.generate(input_ids=ids, pad_token_id=0, **OPTIONS)


def _captured(model, ids, attach, **options):
    """The token ids captured of each row, and what was generated."""
    attached = attach(model, "token_ids")
    with ring2.batch([ring2.RequestInfo("a"), ring2.RequestInfo("b")]):
        out = model.generate(input_ids=ids, **OPTIONS, **options)
    records = attached.finish()
    return [records.stitched("token_ids", -1, key).tolist() for key in (1, 2)], out


def _end_of_first_row(free) -> int:
    """An id that the first row generates before its last tokens, and the second one never."""
    generated = free[0, PROMPT : PROMPT + 3].tolist()
    return next(token for token in generated if token not in free[1].tolist())


@pytest.mark.parametrize("form", ["argument", "list", "tensor", "generation_config", "positional"])
def test_an_end_that_only_generate_is_given_ends_its_row(form, endless, attach):
    model, ids, free = endless
    end = _end_of_first_row(free)
    config = GenerationConfig(eos_token_id=end, pad_token_id=0)
    options = {
        "argument": {"eos_token_id": end, "pad_token_id": 0},
        "list": {"eos_token_id": [96, end], "pad_token_id": 0},
        "tensor": {"eos_token_id": torch.tensor([end]), "pad_token_id": 0},
        "generation_config": {"generation_config": config},
    }
    if form == "positional":
        attached = attach(model, "token_ids")
        with ring2.batch([ring2.RequestInfo("a"), ring2.RequestInfo("b")]):
            model.generate(ids, config, **OPTIONS)
        records = attached.finish()
        rows = [records.stitched("token_ids", -1, key).tolist() for key in (1, 2)]
    else:
        rows, _ = _captured(model, ids, attach, **options[form])
    ended = free[0].tolist()
    assert rows[0] == ended[: ended.index(end, PROMPT)]
    assert rows[1] == free[1, :-1].tolist()


def test_an_end_that_is_not_in_force_cuts_no_row(endless, attach):
    model, ids, free = endless
    model.config.eos_token_id = _end_of_first_row(free)
    model.generation_config.eos_token_id = 96 if 96 not in free else 95
    rows, out = _captured(model, ids, attach, pad_token_id=0)
    assert torch.equal(out, free)
    assert rows == free[:, :-1].tolist()


def test_an_end_that_a_call_takes_away_cuts_no_row(endless, attach):
    model, ids, free = endless
    model.generation_config.eos_token_id = _end_of_first_row(free)
    rows, out = _captured(model, ids, attach, pad_token_id=0, eos_token_id=None)
    assert torch.equal(out, free)
    assert rows == free[:, :-1].tolist()


def test_a_padding_token_that_is_generated_cuts_no_row(endless, attach):
    model, ids, free = endless
    unused = next(token for token in range(3, 97) if token not in free)
    rows, out = _captured(
        model, ids, attach, pad_token_id=_end_of_first_row(free), eos_token_id=unused
    )
    assert torch.equal(out, free)
    assert rows == free[:, :-1].tolist()


class _StopsFirstRow(StoppingCriteria):
    def __call__(self, input_ids, scores, **kwargs):
        return torch.tensor([input_ids.shape[1] >= PROMPT + 2, False])


def test_a_row_that_a_criterion_stops_is_captured_without_its_padding(endless, attach):
    model, ids, free = endless
    unused = [token for token in range(3, 97) if token not in free]
    rows, _ = _captured(
        model, ids, attach, eos_token_id=unused[0], pad_token_id=unused[1],
        stopping_criteria=[_StopsFirstRow()],
    )
    assert rows == [free[0, : PROMPT + 2].tolist(), free[1, :-1].tolist()]


def test_generate_is_the_models_own_again_after_detach(endless, attach):
    model, ids, free = endless
    before = inspect.signature(model.generate)
    attached = attach(model, "token_ids")
    assert inspect.signature(model.generate) == before
    other = copy.deepcopy(model)
    for parameter in model.parameters():
        parameter.data.zero_()
    assert torch.equal(other.generate(input_ids=ids, pad_token_id=0, **OPTIONS), free)
    attached.finish()
    assert "generate" not in model.__dict__


def test_a_generate_that_was_replaced_before_is_kept(endless, attach):
    model, ids, free = endless
    calls = []
    plain = model.generate

    def replaced(*args, **kwargs):
        calls.append(kwargs)
        return plain(*args, **kwargs)

    model.generate = replaced
    rows, _ = _captured(model, ids, attach, pad_token_id=0)
    assert len(calls) == 1 and rows == free[:, :-1].tolist()
    assert model.generate is replaced
