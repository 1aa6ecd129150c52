"""Attention pattern statistics against NumPy float64."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

import reference
import ring2_native as native

FLOATS = [native.FLOAT32, native.FLOAT16, native.BFLOAT16, native.FLOAT64]
SHAPES = [(1, 1, 1), (2, 1, 7), (3, 5, 5), (2, 63, 63), (3, 64, 64), (2, 65, 65), (2, 3, 130),
          (1, 2, 4097), (1, 1, 9001), (4, 100, 100)]


def causal_pattern(random, shape, spread):
    """Softmax over the visible keys; queries end at the last key. Returns it and token_start."""
    heads, queries, keys = shape
    start = keys - queries
    scores = random.normal(0, spread, shape)
    scores[:, :, 0] += random.normal(2, 2, (heads, 1))
    visible = np.arange(keys)[None, :] <= start + np.arange(queries)[:, None]
    scores = np.where(visible, scores, -np.inf)
    weights = np.exp(scores - scores.max(axis=2, keepdims=True))
    return weights / weights.sum(axis=2, keepdims=True), start


def assert_same(measured, decoded, start, **decode):
    expected, skipped = reference.attention(decoded, start)
    expected |= reference.attention_shape(decoded, start, **decode)
    values = measured.values()
    assert measured.skipped_rows == skipped
    assert values.keys() == expected.keys()
    for name, value in expected.items():
        assert_allclose(values[name], value, rtol=0, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("shape", SHAPES)
def test_attention_equals_numpy(shape, dtype):
    random = np.random.default_rng(shape[2])
    for spread in (0.2, 2, 6):
        pattern, start = causal_pattern(random, shape, spread)
        encoded = native.encode(pattern, dtype)
        measured = native.measure(encoded, dtype, hook=native.PATTERN, token_start=start)
        assert_same(measured, native.decode(encoded, dtype), start)


@pytest.mark.parametrize("dtype", FLOATS)
def test_a_strided_pattern_without_its_left_padding_equals_its_copy(dtype):
    random = np.random.default_rng(20)
    pattern, _ = causal_pattern(random, (3, 70, 70), 2)
    batch = np.zeros((3, 75, 80))
    batch[:, 5:, 5:75] = pattern
    encoded = native.encode(batch, dtype)[:, 5:, 5:75]
    measured = native.measure(encoded, dtype, hook=native.PATTERN, action=native.ACTION_TENSOR)
    assert_same(measured, native.decode(encoded, dtype), 0)
    assert measured.crc32c == native.crc32c(encoded.tobytes())
    assert "sink_score" in measured.values()


@pytest.mark.parametrize("dtype", FLOATS)
def test_rows_without_mass_are_skipped(dtype):
    pattern, _ = causal_pattern(np.random.default_rng(21), (2, 80, 80), 1)
    pattern[1, 9] = 0
    encoded = native.encode(pattern, dtype)
    measured = native.measure(encoded, dtype, hook=native.PATTERN)
    assert measured.skipped_rows == 1
    assert_same(measured, native.decode(encoded, dtype), 0)
    nothing = native.measure(np.zeros_like(encoded), dtype, hook=native.PATTERN)
    assert nothing.values() == {}
    assert nothing.skipped_rows == 160


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, -0.25])
@pytest.mark.parametrize("where", [0, 3, 40, 79])
@pytest.mark.parametrize("dtype", FLOATS)
def test_a_row_with_something_that_is_no_probability_is_invalid(dtype, bad, where):
    pattern, _ = causal_pattern(np.random.default_rng(22), (1, 80, 80), 1)
    pattern[0, 50, where] = bad
    measured = native.measure(native.encode(pattern, dtype), dtype, hook=native.PATTERN)
    assert measured.invalid_rows == 1
    assert measured.nan_count == np.isnan(bad)
    assert measured.pos_inf_count == (bad == np.inf)
    assert measured.neg_inf_count == (bad == -np.inf)
    others = np.delete(np.arange(80), 50)
    h = reference.entropy(native.decode(native.encode(pattern[:, others], dtype), dtype))
    assert_allclose(measured.values()["entropy_mean"], h.mean(), atol=3e-3)
    assert "sink_score" not in measured.values()


def test_mass_on_keys_past_the_visible_ones_still_counts():
    pattern = np.full((1, 4, 40), 1 / 40, dtype=np.float32)
    measured = native.measure(pattern, native.FLOAT32, hook=native.PATTERN)
    assert_allclose(measured.values()["entropy_mean"], np.log(40), atol=1e-5)


def test_negative_zero_is_a_probability():
    pattern = np.array([[[0.5, -0.0, 0.5]]], dtype=np.float32)
    measured = native.measure(pattern, native.FLOAT32, hook=native.PATTERN, token_start=2)
    assert measured.invalid_rows == 0
    assert_allclose(measured.values()["entropy_mean"], np.log(2), atol=1e-6)


def test_without_a_step_a_pattern_is_only_counted():
    pattern = np.full((2, 3, 4, 4), 0.25, dtype=np.float32)
    pattern[0, 0, 0, 1] = np.nan
    measured = native.measure(pattern, native.FLOAT32, hook=native.PATTERN, flags=2)
    assert measured.values() == {}
    assert measured.nan_count == 1


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("prompt_tokens", [-1, 0, 1, 7, 90, 128, 129, 130, 5000])
def test_lookback_of_decode_steps_equals_numpy(dtype, prompt_tokens):
    random = np.random.default_rng(23)
    for shape in ((3, 1, 130), (2, 4, 129), (1, 1, 9000)):
        pattern, start = causal_pattern(random, shape, 3)
        encoded = native.encode(pattern, dtype)
        decode = {"hook": native.PATTERN, "token_start": start, "phase": native.DECODE}
        measured = native.measure(encoded, dtype, prompt_tokens=prompt_tokens, **decode)
        assert_same(measured, native.decode(encoded, dtype), start, decode=True,
                    prompt_tokens=prompt_tokens)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("queries", [2, 3, 31, 64, 200, 300])
def test_the_key_with_most_mass_is_found_wherever_it_is(dtype, queries):
    random = np.random.default_rng(queries)
    pattern, _ = causal_pattern(random, (3, queries, queries), 1)
    place = queries // 3
    pattern[1, place:, :] *= 0.2
    pattern[1, place:, place] += 0.8
    encoded = native.encode(pattern, dtype)
    measured = native.measure(encoded, dtype, hook=native.PATTERN)
    expected = reference.top_key(native.decode(encoded, dtype))
    assert_allclose(measured.values()["top_key_mass"], expected, atol=1e-5)


def test_a_prefill_has_no_lookback_and_later_chunks_no_top_key():
    pattern, start = causal_pattern(np.random.default_rng(24), (2, 20, 60), 1)
    encoded = native.encode(pattern, native.FLOAT32)
    chunk = {"hook": native.PATTERN, "token_start": start, "prompt_tokens": 10}
    prefill = native.measure(encoded, native.FLOAT32, **chunk).values()
    assert "lookback_ratio" not in prefill
    assert "top_key_mass" not in prefill
    decode = native.measure(encoded, native.FLOAT32, phase=native.DECODE, **chunk).values()
    assert "lookback_ratio" in decode


def test_mass_on_keys_that_a_query_cannot_see_is_no_key_s_mass():
    pattern = np.full((1, 40, 40), 1 / 40)
    measured = native.measure(pattern, native.FLOAT64, hook=native.PATTERN).values()
    assert_allclose(measured["top_key_mass"], 1 / 40, atol=1e-7)
    pattern[0, :, 10] = np.where(np.arange(40) < 10, 1, 1 / 40)
    again = native.measure(pattern, native.FLOAT64, hook=native.PATTERN).values()
    assert_allclose(again["top_key_mass"], 1 / 40, atol=1e-7)


def test_with_fewer_keys_than_tokens_no_key_is_called_self_or_previous():
    pattern = np.full((1, 2, 8), 1 / 8)
    values = native.measure(pattern, native.FLOAT64, hook=native.PATTERN, token_start=20).values()
    assert "entropy_mean" in values
    for name in ("self_mass", "previous_token_mass", "recency_mass", "sink_mass_4"):
        assert name not in values


def test_rows_that_do_not_add_up_are_told_by_how_much():
    pattern, _ = causal_pattern(np.random.default_rng(25), (2, 30, 30), 1)
    pattern[1, 7] *= 0.75
    measured = native.measure(pattern, native.FLOAT64, hook=native.PATTERN).values()
    assert_allclose(measured["row_sum_error"], 0.25, atol=1e-6)


def test_a_head_that_looks_at_one_key_beside_the_sink_counts_as_collapsed():
    pattern = np.zeros((4, 40, 40))
    pattern[:, :, 0] = 0.5
    pattern[:3, np.arange(40), np.arange(40)] += 0.5
    pattern[3] = np.tril(np.ones((40, 40))) / np.arange(1, 41)[:, None]
    values = native.measure(pattern, native.FLOAT64, hook=native.PATTERN).values()
    assert values["collapsed_head_share"] == 0.75
    assert values["head_entropy_min"] == 0


@pytest.mark.parametrize("dtype", FLOATS)
def test_one_invalid_row_takes_the_top_key_from_its_head_alone(dtype):
    pattern, _ = causal_pattern(np.random.default_rng(26), (2, 80, 80), 1)
    encoded = native.encode(pattern, dtype)
    bad = pattern.copy()
    bad[0, 50, 3] = np.nan
    measured = native.measure(native.encode(bad, dtype), dtype, hook=native.PATTERN)
    expected = reference.top_key(native.decode(encoded, dtype)[1:])
    assert_allclose(measured.values()["top_key_mass"], expected, atol=1e-5)


def test_without_its_group_nothing_of_it_is_measured():
    pattern, _ = causal_pattern(np.random.default_rng(27), (2, 80, 80), 1)
    measured = native.measure(pattern, native.FLOAT64, hook=native.PATTERN, groups=127 & ~2)
    expected, _ = reference.attention(pattern, 0)
    assert measured.values().keys() == expected.keys()
