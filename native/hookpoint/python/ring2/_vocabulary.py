"""The texts of a model's token ids, sent once per attachment by a thread of its own.

What it costs is some seconds of one thread, in small steps. It never holds up a request: a part is
written only while nothing else waits and the ring has room for several of its size. Whatever goes
wrong is one log line, and texts are then not known.
"""

import hashlib
import logging
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol

from . import _native
from ._requests import encode

logger = logging.getLogger("ring2")

TEXTS_AT_ONCE = 256
# Leaves room for the other fields of a record below BODY_BYTES_MAX.
TEXT_BYTES_MAX = _native.BODY_BYTES_MAX - 4096
# Room for as many records of a part's size must be left, so that requests find some too.
ROOM_FACTOR = 4
RETRY_SECONDS = 0.25
PAUSE_SECONDS = 0.002
REPLACEMENT = "\ufffd"

Text = str | None


class Outlet(Protocol):
    """Where records go: a producer."""

    @property
    def alive(self) -> bool: ...

    def offer(self, kind: int, body: dict[str, object], room: int) -> bool: ...


def start(producer: Outlet, info: dict[str, object], tokenizer: Any) -> threading.Thread | None:
    """Begins to send the tokenizer's texts; None without a tokenizer."""
    if tokenizer is None:
        return None
    thread = threading.Thread(
        target=_run, args=(producer, info, tokenizer), name="ring2-vocabulary", daemon=True
    )
    thread.start()
    return thread


def _run(producer: Outlet, info: dict[str, object], tokenizer: Any) -> None:
    try:
        texts = list(_all_texts(producer, tokenizer))
        if producer.alive:
            _send(producer, info, texts)
    except Exception as error:  # noqa: BLE001  whatever a tokenizer may raise
        logger.warning("ring2: the texts of token ids are not sent: %s", error)


def _send(producer: Outlet, info: dict[str, object], texts: Sequence[Text]) -> None:
    name = fingerprint(texts)
    parts = list(split(texts))
    for number, (first, part) in enumerate(parts):
        body: dict[str, object] = {
            "model": info["name"], "fingerprint": name, "parts": len(parts), "part": number,
            "first_id": first, "texts": part,
        }
        if not _offer(producer, _native.KIND_VOCABULARY, body):
            return
    # Announced last: a request that names a vocabulary can count on its parts.
    _offer(producer, _native.KIND_MODEL, {**info, "vocabulary_fingerprint": name})


def _offer(producer: Outlet, kind: int, body: dict[str, object]) -> bool:
    while not producer.offer(kind, body, ROOM_FACTOR):
        if not producer.alive:
            return False
        time.sleep(RETRY_SECONDS)
    return True


def _all_texts(producer: Outlet, tokenizer: Any) -> Iterator[Text]:
    count = _size(tokenizer)
    for first in range(0, count, TEXTS_AT_ONCE):
        if not producer.alive:
            return
        for token in range(first, min(count, first + TEXTS_AT_ONCE)):
            yield text_of(tokenizer, token)
        time.sleep(PAUSE_SECONDS)


def _size(tokenizer: Any) -> int:
    # Transformers' tokenizers count by len(), the tokenizers package's by a method.
    if hasattr(tokenizer, "get_vocab_size"):
        return int(tokenizer.get_vocab_size(with_added_tokens=True))
    return len(tokenizer)


def text_of(tokenizer: Any, token: int) -> Text:
    """What the id alone decodes to.

    Bytes that are only part of a character decode to U+FFFD, which says nothing: such an id has its
    piece as the tokenizer writes it. An id that cannot be decoded has no text.
    """
    try:
        text = tokenizer.decode([token], skip_special_tokens=False)
    except (IndexError, KeyError, OverflowError, TypeError, ValueError):
        return None
    if REPLACEMENT in text:
        piece = _piece(tokenizer, token)
        text = piece if piece is not None else text
    # JSON in UTF-8 cannot hold half of a surrogate pair.
    return text.encode("utf-8", "replace").decode("utf-8")


def _piece(tokenizer: Any, token: int) -> str | None:
    by_id = getattr(tokenizer, "convert_ids_to_tokens", None)
    by_id = by_id or getattr(tokenizer, "id_to_token", None)
    piece = by_id(token) if by_id is not None else None
    return piece if isinstance(piece, str) else None


def fingerprint(texts: Iterable[Text]) -> str:
    """SHA-256 over every text behind its length in bytes; see VOCABULARY in native/README.md."""
    digest = hashlib.sha256()
    for text in texts:
        if text is None:
            digest.update(b"-:")
        else:
            data = text.encode("utf-8")
            digest.update(b"%d:" % len(data) + data)
    return digest.hexdigest()


def split(texts: Sequence[Text]) -> Iterator[tuple[int, list[Text]]]:
    """Runs of texts, each with its first id, whose JSON fits into a record."""
    first, run, size = 0, [], 0
    for token, text in enumerate(texts):
        added = len(encode({"": text}))
        if run and size + added > TEXT_BYTES_MAX:
            yield first, run
            first, run, size = token, [], 0
        run.append(text)
        size += added
    if run:
        yield first, run
