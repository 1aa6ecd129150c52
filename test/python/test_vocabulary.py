"""The texts of token ids: what is sent, that it is whole, and that nothing depends on it."""

import hashlib
import logging
import time

import pytest
import torch

import ring2
from ring2 import _vocabulary

IDS = torch.tensor([[5, 6, 7]])


class Words:
    """A tokenizer of a few words; one of them is half a character, one cannot be decoded."""

    texts = ("a", " b", "\ufffd", '"\\\n', "é", None)
    eos_token_id = 2

    def __len__(self) -> int:
        return len(self.texts)

    def decode(self, ids, skip_special_tokens=False):
        text = self.texts[ids[0]]
        if text is None:
            raise KeyError(ids[0])
        return text

    def convert_ids_to_tokens(self, token):
        return f"<0x{token:02X}>"


SENT = ["a", " b", "<0x02>", '"\\\n', "é", None]


def _until_sent(attached) -> None:
    """Waits for the announcement: the first record after every part."""
    deadline = time.monotonic() + 60
    while "ring2-vocabulary" in [one.name for one in _threads()]:
        assert time.monotonic() < deadline, "the texts were not sent"
        time.sleep(0.01)
    assert attached.probe.active


def _threads():
    import threading

    return threading.enumerate()


def _named(texts) -> str:
    digest = hashlib.sha256()
    for text in texts:
        data = b"" if text is None else text.encode()
        digest.update((b"-" if text is None else b"%d" % len(data)) + b":" + data)
    return digest.hexdigest()


def test_the_texts_of_a_tokenizer_are_sent_and_then_announced(tiny, attach):
    attached = attach(tiny("llama"), "resid_pre", tokenizer=Words(), model_name="tiny")
    _until_sent(attached)
    records = attached.finish()
    assert records.kinds == ["MODEL", "VOCABULARY", "MODEL"]
    assert records.vocabularies == [{
        "model": "tiny", "fingerprint": _named(SENT), "parts": 1, "part": 0, "first_id": 0,
        "texts": SENT,
    }]
    first, second = records.models
    assert second.pop("vocabulary_fingerprint") == _named(SENT)
    assert first == second


def test_a_real_tokenizer_is_sent_whole_in_parts_and_as_it_decodes(tiny, attach, tokenizer):
    attached = attach(tiny("llama"), "resid_pre", tokenizer=tokenizer)
    _until_sent(attached)
    records = attached.finish()
    parts = records.vocabularies
    assert len(parts) == parts[0]["parts"] > 1
    texts = []
    for number, part in enumerate(parts):
        assert (part["part"], part["first_id"]) == (number, len(texts))
        texts.extend(part["texts"])
    assert len(texts) == len(tokenizer)
    assert records.models[-1]["vocabulary_fingerprint"] == parts[0]["fingerprint"] == _named(texts)
    pieces = 0
    for token, text in enumerate(texts):
        decoded = tokenizer.decode([token])
        pieces += "\ufffd" in decoded
        expected = tokenizer.convert_ids_to_tokens(token) if "\ufffd" in decoded else decoded
        assert text == expected
    assert 0 < pieces < len(texts) / 10


def test_without_a_tokenizer_nothing_is_sent(tiny, attach):
    attached = attach(tiny("llama"), "resid_pre")
    assert attached.finish().kinds == ["MODEL"]


@pytest.mark.parametrize("broken", [object(), 7])
def test_a_tokenizer_that_cannot_decode_is_one_log_line(tiny, attach, caplog, broken):
    model = tiny("llama")
    with caplog.at_level(logging.WARNING, "ring2"):
        attached = attach(model, "resid_pre", tokenizer=broken)
        _until_sent(attached)
    assert [one.message for one in caplog.records if "texts of token ids" in one.message]
    with ring2.request("r"), torch.no_grad():
        model(input_ids=IDS)
    assert "TENSOR" in attached.finish().kinds


def test_a_full_ring_makes_the_texts_wait_and_not_the_requests(tiny, attach):
    class Many(Words):
        texts = tuple(f"word {number:06d} " + "x" * 40 for number in range(4000))

    model = tiny("llama")
    attached = attach(model, "resid_pre", tokenizer=Many(), payload_mb=0.25)
    time.sleep(0.5)
    with ring2.request("r"), torch.no_grad():
        model(input_ids=IDS)
    kinds = attached.reader.drain().kinds
    assert "REQUEST_END" in kinds
    assert attached.probe.losses() == {}
    sent = 0
    for _ in range(400):
        sent += sum(len(part["texts"]) for part in attached.reader.drain().vocabularies)
        if "ring2-vocabulary" not in [one.name for one in _threads()]:
            break
        time.sleep(0.05)
    assert kinds.count("VOCABULARY") < 4000 and sent > 0


def test_detaching_ends_the_thread(tiny, attach):
    class Slow(Words):
        texts = ("x",) * 200_000

    attached = attach(tiny("llama"), "resid_pre", tokenizer=Slow())
    attached.probe.detach()
    deadline = time.monotonic() + 30
    while "ring2-vocabulary" in [one.name for one in _threads()]:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert "VOCABULARY" not in attached.reader.drain().kinds


def test_parts_fit_into_records():
    texts = ["\x00" * 5000, None, "é" * 9000, *["y" * 700] * 300]
    parts = list(_vocabulary.split(texts))
    assert [text for _, part in parts for text in part] == texts
    assert [first for first, _ in parts] == [
        sum(len(part) for _, part in parts[:number]) for number in range(len(parts))
    ]
    for _, part in parts:
        assert len(_vocabulary.encode({"texts": part})) <= _vocabulary.TEXT_BYTES_MAX
