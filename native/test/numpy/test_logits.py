"""Softmax statistics of logits against NumPy float64."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

import reference
import ring2_native as native

FLOATS = [native.FLOAT32, native.FLOAT16, native.BFLOAT16, native.FLOAT64]
WIDTHS = [1, 2, 3, 7, 63, 64, 65, 1000, 4095, 4096, 4097, 8200, 49152, 152064]


def measure_logits(encoded, dtype):
    return native.measure(encoded, dtype, hook=native.FINAL_LOGITS)


def assert_same(measured, decoded):
    expected, invalid, skipped = reference.logits(decoded)
    moments, _ = reference.moments(decoded)
    values = measured.values()
    assert measured.invalid_rows == invalid
    assert measured.skipped_rows == skipped
    assert values.keys() == expected.keys() | moments.keys()
    for name, value in expected.items():
        relative = 1e-5 if name == "varentropy_mean" else 2e-7
        assert_allclose(values[name], value, rtol=relative, atol=1e-5, err_msg=name)
    for name, value in moments.items():
        absolute = 1e-5 if name == "mean" else 0
        assert_allclose(values[name], value, rtol=1e-5, atol=absolute, err_msg=name)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("width", WIDTHS)
def test_logits_equal_numpy(width, dtype):
    random = np.random.default_rng(width)
    for spread, shift in ((0.1, 0), (2, -3), (12, 20)):
        encoded = native.encode(random.normal(shift, spread, (3, width)), dtype)
        measured = measure_logits(encoded, dtype)
        decoded = native.decode(encoded, dtype)
        assert_same(measured, decoded)
        assert measured.top1_id == decoded[-1].argmax()


@pytest.mark.parametrize("dtype", FLOATS)
def test_forbidden_tokens_have_probability_zero(dtype):
    random = np.random.default_rng(9)
    values = random.normal(0, 3, (4, 9000))
    values[:, random.random(9000) < 0.7] = -np.inf
    values[2, 1:] = -np.inf
    values[2, 0] = 4
    values[3] = -np.inf
    encoded = native.encode(values, dtype)
    measured = measure_logits(encoded, dtype)
    assert_same(measured, native.decode(encoded, dtype))
    assert measured.neg_inf_count == (values == -np.inf).sum()
    assert measured.top1_id == 0


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("dtype", FLOATS)
def test_a_row_with_nan_or_infinity_gives_no_softmax_value(dtype, bad):
    values = np.random.default_rng(10).normal(0, 3, (3, 10000))
    values[1, 9999] = bad
    encoded = native.encode(values, dtype)
    measured = measure_logits(encoded, dtype)
    assert measured.invalid_rows == 1
    assert measured.nan_count + measured.pos_inf_count == 1
    assert_same(measured, native.decode(encoded, dtype))
    only = measure_logits(encoded[1:2], dtype)
    assert "entropy_mean" not in only.values()
    assert only.invalid_rows == 1


@pytest.mark.parametrize("dtype", FLOATS)
def test_a_constant_added_to_all_logits_changes_no_probability(dtype):
    values = np.random.default_rng(11).integers(-40, 40, (2, 5000)) / 8
    near = measure_logits(native.encode(values, dtype), dtype).values()
    far = measure_logits(native.encode(values + 16, dtype), dtype).values()
    if dtype != native.BFLOAT16:  # whose 8 bits do not hold the shifted values
        for name in (
            "entropy_mean",
            "varentropy_mean",
            "top1_probability_mean",
            "margin_mean",
            "margin_probability_mean",
        ):
            assert_allclose(far[name], near[name], atol=2e-6)
        assert_allclose(far["lse_mean"], near["lse_mean"] + 16, atol=1e-5)


@pytest.mark.parametrize("dtype", FLOATS)
def test_equal_largest_logits_give_margin_zero_and_the_lowest_id(dtype):
    values = np.random.default_rng(12).normal(size=(1, 20000))
    values[0, [701, 5000, 19999]] = 9
    measured = measure_logits(native.encode(values, dtype), dtype)
    assert measured.values()["margin_mean"] == 0
    assert measured.top1_id == 701


@pytest.mark.parametrize("dtype", [native.FLOAT32, native.BFLOAT16])
def test_logits_near_the_largest_number_stay_finite(dtype):
    values = np.zeros((2, 300))
    values[0, 10], values[0, 11], values[1, :] = 3.3e38, -3.3e38, -3.3e38
    values[1, 7] = 3.3e38
    encoded = native.encode(values, dtype)
    measured = measure_logits(encoded, dtype).values()
    assert measured["entropy_mean"] == 0
    assert measured["varentropy_mean"] == 0
    assert measured["top1_probability_mean"] == 1
    assert measured["margin_probability_mean"] == 1
    assert np.isfinite(list(measured.values())).all()
