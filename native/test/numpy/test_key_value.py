"""Outliers among tokens and channels of keys and values against NumPy float64."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

import ring2_native as native

FLOATS = [native.FLOAT32, native.FLOAT16, native.BFLOAT16, native.FLOAT64]
K, V = 7, 8
NAMES = {"token_outlier", "channel_outlier", "first_token_ratio"}


def lower_median(values):
    return np.sort(values)[(values.size - 1) // 2]


def expected_of(decoded, token_start=0):
    """[tokens, heads, head_dim]; elements that are not finite are left out."""
    finite = np.isfinite(decoded)
    kept = np.where(finite, decoded, 0)
    tokens, channels, first = [], [], []
    for head in range(decoded.shape[1]):
        used = finite[:, head].any(axis=1)
        norms = np.sqrt((kept[:, head] ** 2).sum(axis=1))
        if used.sum() >= 8 and lower_median(norms[used]) > 0:
            tokens.append(norms[used].max() / lower_median(norms[used]))
            if token_start == 0 and used[0]:
                first.append(norms[0] / lower_median(norms[used]))
        seen = finite[:, head].sum(axis=0)
        rms = np.sqrt((kept[:, head] ** 2).sum(axis=0) / np.maximum(seen, 1))[seen >= 8]
        if rms.size >= 2 and lower_median(rms) > 0:
            channels.append(rms.max() / lower_median(rms))
    result = {}
    if tokens:
        result["token_outlier"] = max(tokens)
    if channels:
        result["channel_outlier"] = max(channels)
    if first:
        result["first_token_ratio"] = np.mean(first)
    return result


def assert_same(measured, decoded, token_start=0):
    expected = expected_of(decoded, token_start)
    values = {name: value for name, value in measured.values().items() if name in NAMES}
    assert values.keys() == expected.keys()
    for name, value in expected.items():
        assert_allclose(values[name], value, rtol=1e-5, err_msg=name)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("shape", [(8, 1, 1), (8, 2, 2), (9, 3, 64), (64, 8, 65), (65, 1, 128),
                                   (300, 2, 33), (1000, 3, 64)])
def test_keys_and_values_equal_numpy(shape, dtype):
    random = np.random.default_rng(shape[0])
    values = random.normal(size=shape)
    values[:, :, shape[2] // 3] *= 20
    values[0] *= 0.05
    encoded = native.encode(values, dtype)
    for hook in (K, V):
        for token_start in (0, 64):
            measured = native.measure(encoded, dtype, hook=hook, token_start=token_start)
            assert_same(measured, native.decode(encoded, dtype), token_start)
    assert "first_token_ratio" not in measured.values()


def test_short_slices_other_hooks_and_other_shapes_have_none():
    encoded = native.encode(np.random.default_rng(1).normal(size=(8, 2, 16)), native.BFLOAT16)

    def names(array, **fields):
        return native.measure(array, native.BFLOAT16, **fields).values().keys() & NAMES

    assert names(encoded, hook=K) == NAMES
    assert not names(encoded[:7], hook=K)
    assert not names(encoded, hook=6)
    assert not names(encoded, hook=K, groups=63)
    assert not names(encoded, hook=K, flags=2)
    assert not names(encoded.reshape(8, 32), hook=K)


@pytest.mark.parametrize("dtype", FLOATS)
def test_what_is_not_finite_is_left_out(dtype):
    random = np.random.default_rng(2)
    values = random.normal(size=(200, 3, 40))
    kinds = random.integers(0, 50, values.shape)
    values[kinds == 0], values[kinds == 1] = np.nan, np.inf
    values[7, 1] = np.nan
    values[0, 2] = -np.inf
    values[:195, 2, 11] = np.nan
    encoded = native.encode(values, dtype)
    assert_same(native.measure(encoded, dtype, hook=K), native.decode(encoded, dtype))


@pytest.mark.parametrize("scale", [1e-30, 1e25, 1e36])
def test_squares_outside_float32_neither_overflow_nor_vanish(scale):
    values = np.random.default_rng(3).normal(size=(100, 2, 64)) * scale
    values[:, :, 5] *= 10
    encoded = native.encode(values, native.BFLOAT16)
    assert_same(native.measure(encoded, native.BFLOAT16, hook=V),
                native.decode(encoded, native.BFLOAT16))


@pytest.mark.parametrize("dtype", FLOATS)
def test_zeros_give_no_ratio(dtype):
    encoded = native.encode(np.zeros((20, 2, 16)), dtype)
    assert not native.measure(encoded, dtype, hook=K).values().keys() & NAMES


@pytest.mark.parametrize("dtype", FLOATS)
def test_strided_slices_equal_their_dense_copies(dtype):
    whole = native.encode(np.random.default_rng(4).normal(size=(90, 5, 70)), dtype)
    for part in (whole[10:50, 1:4], whole[:, :, :64], whole[::2, ::2, 3:40]):
        for array in (part, part.copy()):
            assert_same(native.measure(array, dtype, hook=K), native.decode(part, dtype))
