"""Statistics over several tensors of a request against NumPy float64, on every dtype."""

import ctypes

import numpy as np
import pytest
from numpy.testing import assert_allclose

import ring2_native as native

FLOATS = [native.FLOAT32, native.FLOAT16, native.BFLOAT16, native.FLOAT64]
ATTN_OUT, RESID_MID, MLP_OUT, RESID_FINAL = 2, 3, 13, 14
PREFILL, DECODE = 0, 1


class Track:
    """A track, and the arrays that it was given: they must outlive it."""

    def __init__(self):
        self.handle = ctypes.c_void_p()
        assert native.LIBRARY.ring2_track_create(ctypes.byref(self.handle)) == 0
        self.arrays = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        native.LIBRARY.ring2_track_destroy(self.handle)

    def measure(self, values, dtype, hook, start=0, phase=PREFILL, **fields):
        encoded = np.asarray(values) if dtype == native.INT32 else native.encode(values, dtype)
        self.arrays.append(encoded)
        measured = native.measure(
            encoded, dtype, hook=hook, token_start=start, track=self.handle, phase=phase,
            token_end=start + len(encoded), **fields,
        )
        return measured.values(), native.decode(encoded, dtype)


def unit(rows):
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def mean_cosine(rows):
    cosines = unit(rows) @ unit(rows).T
    count = len(rows)
    return (cosines.sum() - np.trace(cosines)) / (count * (count - 1))


def rank_residual(rows):
    return np.linalg.norm(rows - rows.mean(axis=0)) / np.linalg.norm(rows)


def participation_ratio(rows):
    eigenvalues = np.linalg.eigvalsh(np.cov(rows, ddof=0, rowvar=False))
    return eigenvalues.sum() ** 2 / (eigenvalues**2).sum()


def stream(random, tokens, width, common=1.0):
    """Rows with a common part and a few large channels, as residual streams have."""
    rows = random.normal(size=(tokens, width)) + common * random.normal(size=width)
    rows[:, :: max(1, width // 3)] *= 20
    return rows


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("shape", [(1, 1), (3, 7), (9, 64), (17, 577), (2, 4097), (70, 130)])
def test_layer_to_layer(shape, dtype):
    random = np.random.default_rng(shape[1])
    with Track() as track:
        before = None
        for layer in range(4):
            hook = RESID_FINAL if layer == 3 else native.RESID_PRE
            rows = stream(random, *shape) * (layer + 1)
            values, rows = track.measure(rows, dtype, hook, layer=-1 if layer == 3 else layer)
            if layer == 0:
                assert "layer_cosine_mean" not in values
            else:
                cosines = (unit(rows) * unit(before)).sum(axis=1)
                growth = np.linalg.norm(rows, axis=1) / np.linalg.norm(before, axis=1)
                expected = np.exp(np.log(growth).mean())
                assert_allclose(values["layer_cosine_mean"], cosines.mean(), atol=2e-6)
                assert_allclose(values["layer_cosine_min"], cosines.min(), atol=2e-6)
                assert_allclose(values["layer_growth_mean"], expected, rtol=1e-5)
            before = rows


@pytest.mark.parametrize("dtype", FLOATS)
def test_contribution(dtype):
    random = np.random.default_rng(8)
    with Track() as track:
        for branch, base in ((ATTN_OUT, native.RESID_PRE), (MLP_OUT, RESID_MID)):
            _, streams = track.measure(stream(random, 21, 333), dtype, base)
            values, outputs = track.measure(random.normal(size=(21, 333)), dtype, branch)
            ratios = np.linalg.norm(outputs, axis=1) / np.linalg.norm(streams, axis=1)
            assert_allclose(values["contribution_mean"], ratios.mean(), rtol=1e-5)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("common", [0, 1, 100])
@pytest.mark.parametrize("shape", [(3, 5), (33, 64), (65, 576), (130, 1000)])
def test_likeness_of_a_prompt(shape, common, dtype):
    random = np.random.default_rng(shape[0])
    with Track() as track:
        values, rows = track.measure(stream(random, *shape, common), dtype, native.RESID_PRE)
    assert_allclose(values["token_cosine_mean"], mean_cosine(rows[1:]), atol=2e-6)
    assert_allclose(values["rank_residual"], rank_residual(rows[1:]), rtol=2e-5)
    assert ("participation_ratio" in values) == (shape[0] >= 65)
    if shape[0] >= 65:
        expected = participation_ratio(rows[-64:])
        assert_allclose(values["participation_ratio"], expected, rtol=1e-4)


@pytest.mark.parametrize("dtype", FLOATS)
def test_likeness_of_generated_tokens(dtype):
    random = np.random.default_rng(3)
    seen = []
    with Track() as track:
        for token in range(64):
            values, row = track.measure(
                stream(random, 1, 200), dtype, RESID_FINAL, start=token + 9, phase=DECODE,
                step=token,
            )
            seen.append(row[0])
            assert ("token_cosine_mean" in values) == (token % 32 == 31)
            if token % 32 == 31:
                rows = np.array(seen[-32:])
                assert_allclose(values["token_cosine_mean"], mean_cosine(rows), atol=2e-6)
                assert_allclose(values["rank_residual"], rank_residual(rows), atol=1e-5)


def log_softmax(logits):
    largest = logits.max(axis=1, keepdims=True)
    return logits - largest - np.log(np.exp(logits - largest).sum(axis=1, keepdims=True))


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("vocabulary", [3, 1000, 9000])
def test_surprisal(vocabulary, dtype):
    random = np.random.default_rng(vocabulary)
    tokens = random.integers(0, vocabulary, 12).astype(np.int32)
    with Track() as track:
        track.measure(tokens[:11], native.INT32, native.TOKEN_IDS)
        logits = random.normal(0, 4, (11, vocabulary))
        values, logits = track.measure(logits, dtype, native.FINAL_LOGITS)
        surprisals = -log_softmax(logits)[np.arange(11), tokens[1:]]
        assert_allclose(values["surprisal_mean"], surprisals[:10].mean(), atol=2e-5)
        values, _ = track.measure(
            tokens[11:], native.INT32, native.TOKEN_IDS, start=11, phase=DECODE, step=1
        )
        assert_allclose(values["surprisal_mean"], surprisals[10], atol=2e-5)


def repetition(tokens):
    fours = [tuple(tokens[i : i + 4]) for i in range(len(tokens) - 3)]
    return 1 - len(set(fours)) / len(fours)


def loop_period(tokens):
    for period in range(1, 65):
        length = max(3 * period, 8)
        tail = tokens[-length:]
        if len(tail) == length and (tail[period:] == tail[:-period]).all():
            return period
    return 0


@pytest.mark.parametrize("symbols", [1, 2, 3, 20, 5000])
def test_repetition_and_loops(symbols):
    random = np.random.default_rng(symbols)
    tokens = random.integers(0, symbols, 300)
    period = random.integers(0, 50000, 37)
    tokens = np.concatenate([tokens, np.tile(period, 4), tokens[:50]]).astype(np.int32)
    with Track() as track:
        for at, token in enumerate(tokens):
            values, _ = track.measure(
                np.array([token], dtype=np.int32), native.INT32, native.TOKEN_IDS,
                start=20 + at, phase=DECODE, step=at, prompt_tokens=20,
            )
            so_far = tokens[: at + 1]
            assert values["tokens_tracked"] == at + 1
            assert ("repetition" in values) == (at >= 3)
            assert ("loop_period" in values) == (at >= 7)
            if at >= 3:
                assert_allclose(values["repetition"], repetition(so_far), atol=1e-12)
            if at >= 7:
                assert values["loop_period"] == loop_period(so_far)
