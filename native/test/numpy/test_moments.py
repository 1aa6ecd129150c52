"""Row norms and moments against NumPy float64, on odd shapes and every dtype."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

import reference
import ring2_native as native

FLOATS = [native.FLOAT32, native.FLOAT16, native.BFLOAT16, native.FLOAT64]
SHAPES = [(1, 1), (3, 7), (5, 63), (4, 64), (2, 65), (17, 576), (3, 4095), (2, 4096), (2, 4097),
          (7, 3, 64), (2, 3, 5, 33), (11,), (1, 152064)]


def assert_same(values, expected, absolute_mean):
    assert values.keys() == expected.keys()
    for name, value in expected.items():
        absolute = absolute_mean if name == "mean" else 0
        assert_allclose(values[name], value, rtol=1e-5, atol=absolute, err_msg=name)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("shape", SHAPES)
def test_moments_equal_numpy(shape, dtype):
    random = np.random.default_rng(abs(hash((shape, dtype))) % 2**32)
    encoded = native.encode(random.normal(0.3, 2, shape), dtype)
    expected, skipped = reference.moments(native.decode(encoded, dtype))
    measured = native.measure(encoded, dtype, groups=0)
    assert measured.elements == encoded.size
    assert measured.skipped_rows == skipped == 0
    assert_same(measured.values(), expected, 1e-6)


@pytest.mark.parametrize("dtype", FLOATS)
def test_elements_that_are_not_finite_are_counted_and_left_out(dtype):
    random = np.random.default_rng(5)
    values = random.normal(size=(40, 333))
    kinds = random.integers(0, 40, values.shape)
    values[kinds == 0] = np.nan
    values[kinds == 1] = np.inf
    values[kinds == 2] = -np.inf
    values[7] = np.nan
    encoded = native.encode(values, dtype)
    measured = native.measure(encoded, dtype, groups=0)
    expected, skipped = reference.moments(native.decode(encoded, dtype))
    assert measured.nan_count == np.isnan(values).sum()
    assert measured.pos_inf_count == (values == np.inf).sum()
    assert measured.neg_inf_count == (values == -np.inf).sum()
    assert measured.skipped_rows == skipped == 1
    assert_same(measured.values(), expected, 1e-6)


@pytest.mark.parametrize("scale", [1e-38, 1e-30, 1e-20, 1e18, 1e20, 1e37])
@pytest.mark.parametrize("dtype", [native.FLOAT32, native.BFLOAT16])
def test_squares_outside_float32_neither_overflow_nor_vanish(dtype, scale):
    values = np.random.default_rng(1).normal(size=(6, 500)) * scale
    values[2] *= 1e-4
    encoded = native.encode(values, dtype)
    expected, _ = reference.moments(native.decode(encoded, dtype))
    assert_same(native.measure(encoded, dtype, groups=0).values(), expected, scale * 1e-6)


def test_a_tiny_row_beside_a_large_one_keeps_its_norm():
    values = np.ones((2, 64), dtype=np.float32)
    values[0] = 1e-25
    measured = native.measure(values, native.FLOAT32, groups=0)
    assert_allclose(measured.values()["l2_mean"], (8 + 8e-25) / 2, rtol=1e-6)
    small = native.measure(np.stack([values[0], values[0]]), native.FLOAT32, groups=0)
    assert_allclose(small.values()["l2_max"], 8e-25, rtol=1e-6)


@pytest.mark.parametrize("dtype", FLOATS)
def test_variance_survives_a_mean_far_from_zero(dtype):
    values = 100 + np.random.default_rng(2).normal(size=(3, 5000))
    encoded = native.encode(values, dtype)
    expected, _ = reference.moments(native.decode(encoded, dtype))
    assert_same(native.measure(encoded, dtype, groups=0).values(), expected, 0)


@pytest.mark.parametrize("dtype", FLOATS)
def test_strided_slices_equal_their_dense_copies(dtype):
    whole = native.encode(np.random.default_rng(3).normal(size=(4, 9, 3, 70)), dtype)
    for part in (whole[1:3, 2:7, :, :65], whole[:, ::2], whole[2, :, 1, 3:]):
        kept = {"groups": 0, "action": native.ACTION_TENSOR}
        strided = native.measure(part, dtype, **kept)
        dense = native.measure(np.ascontiguousarray(part), dtype, **kept)
        expected, _ = reference.moments(native.decode(part, dtype))
        assert_same(strided.values(), expected, 1e-6)
        assert_same(dense.values(), expected, 1e-6)
        assert strided.crc32c == dense.crc32c == native.crc32c(part.tobytes())
        assert strided.flags & native.HAS_CRC


@pytest.mark.parametrize("dtype", [native.FLOAT32, native.FLOAT16, native.BFLOAT16])
def test_masked_scores_stay_out_of_the_moments(dtype):
    values = np.random.default_rng(4).normal(size=(2, 50, 50))
    lowest = {native.FLOAT32: -3.4e38, native.FLOAT16: -65504.0, native.BFLOAT16: -3.38e38}[dtype]
    masked = np.broadcast_to(np.triu(np.ones((50, 50)), 1) > 0, values.shape)
    values[masked] = lowest
    values[0, 3, 20:] = -np.inf
    encoded = native.encode(values, dtype)
    measured = native.measure(encoded, dtype, hook=native.ATTN_SCORES)
    visible = np.where(masked, np.nan, native.decode(encoded, dtype))
    expected, _ = reference.moments(visible)
    assert measured.nan_count == 0
    assert measured.neg_inf_count == 30
    assert_same(measured.values(), expected, 1e-6)


def test_integers_have_elements_and_a_checksum_and_no_values():
    ids = np.arange(37, dtype=np.int32)
    measured = native.measure(ids, native.INT32, hook=native.TOKEN_IDS, action=native.ACTION_TENSOR)
    assert measured.elements == 37
    assert measured.values() == {}
    assert measured.crc32c == native.crc32c(ids.tobytes())


def test_an_empty_tensor_has_no_values():
    measured = native.measure(np.empty((0, 5), dtype=np.float32), native.FLOAT32)
    assert measured.elements == 0
    assert measured.values() == {}
