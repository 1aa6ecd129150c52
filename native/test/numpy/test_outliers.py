"""Kurtosis, median of |x|, outliers, massive activations and small values against NumPy float64."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

import ring2_native as native

FLOATS = [native.FLOAT32, native.FLOAT16, native.BFLOAT16, native.FLOAT64]
SHAPES = [(1, 1), (1, 2), (1, 576), (3, 7), (5, 63), (2, 65), (17, 576), (3, 4095), (2, 4097),
          (90, 4096), (700, 257), (1, 152064)]
NAMES = {"kurtosis_mean", "kurtosis_max", "abs_median", "outlier_ratio", "massive_count",
         "near_zero_share", "zero_share", "l2_no_first_mean"}


def kurtosis(row):
    """Pearson's m4 / m2^2 of what is finite in a row; NaN when all of it is equal."""
    values = row[np.isfinite(row)]
    if values.size == 0 or (values == values[0]).all():
        return np.nan
    values = values / np.abs(values).max()
    centred = values - values.mean()
    return (centred**4).mean() / (centred**2).mean() ** 2


def lower_median(values):
    return np.sort(values.ravel())[(values.size - 1) // 2]


def expected_of(decoded, token_start=0):
    finite = np.isfinite(decoded)
    kept = np.where(finite, decoded, 0)
    rows = finite.any(axis=1)
    if not rows.any():
        return {}
    magnitudes = np.abs(decoded[finite])
    median = lower_median(magnitudes)
    norms = np.sqrt((kept**2).sum(axis=1))
    rms = np.sqrt((kept**2).sum(axis=1) / np.maximum(finite.sum(axis=1), 1))
    threshold = max(100, 1000 * median)
    result = {
        "abs_median": median,
        "massive_count": (magnitudes > threshold).sum(),
        "zero_share": (magnitudes == 0).mean(),
        "near_zero_share": (finite & (np.abs(kept) <= 1e-3 * rms[:, None])).sum() / finite.sum(),
    }
    if median > 0:
        result["outlier_ratio"] = magnitudes.max() / median
    shapes = np.array([kurtosis(row) for row in decoded])
    if np.isfinite(shapes).any():
        result["kurtosis_mean"] = np.nanmean(shapes)
        result["kurtosis_max"] = np.nanmax(shapes)
    later = rows & (token_start + np.arange(len(decoded)) >= 1)
    if later.any():
        result["l2_no_first_mean"] = norms[later].mean()
    return result


def assert_same(measured, decoded, token_start=0):
    expected = expected_of(decoded, token_start)
    values = {name: value for name, value in measured.values().items() if name in NAMES}
    assert values.keys() == expected.keys()
    for name, value in expected.items():
        exact = name in ("abs_median", "massive_count", "zero_share")
        # An element may lie on the bound of "near zero" to within rounding of the row's RMS.
        absolute = 2 / decoded.size if name == "near_zero_share" else 0
        relative = 0 if exact else 2e-5
        assert_allclose(values[name], value, rtol=relative, atol=absolute, err_msg=name)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("shape", SHAPES)
def test_outliers_equal_numpy(shape, dtype):
    random = np.random.default_rng(shape[0] * shape[1])
    for mean, heavy in ((0, 0), (0.5, 0.02), (-3, 0.001)):
        values = random.normal(mean, 1, shape)
        values[random.random(shape) < heavy] *= 300
        values[random.random(shape) < 0.1] *= 1e-4
        values[random.random(shape) < 0.02] = 0
        encoded = native.encode(values, dtype)
        for token_start in (0, 5):
            measured = native.measure(encoded, dtype, token_start=token_start)
            assert_same(measured, native.decode(encoded, dtype), token_start)


@pytest.mark.parametrize("hook", [0, 2, 3, 13, 14, 15])
def test_the_residual_stream_and_what_is_added_to_it_have_outliers(hook):
    encoded = native.encode(np.random.default_rng(1).normal(size=(3, 64)), native.BFLOAT16)
    measured = native.measure(encoded, native.BFLOAT16, hook=hook)
    assert_same(measured, native.decode(encoded, native.BFLOAT16))
    for other in ({"hook": 20}, {"hook": hook, "groups": 126}, {"hook": hook, "flags": 2}):
        assert not native.measure(encoded, native.BFLOAT16, **other).values().keys() & NAMES


@pytest.mark.parametrize("dtype", FLOATS)
def test_a_massive_activation_stands_out_and_is_counted(dtype):
    values = np.random.default_rng(2).normal(0, 0.05, (40, 512))
    values[0, 400], values[0, 77], values[9, 3] = 2000, -900, 90
    encoded = native.encode(values, dtype)
    measured = native.measure(encoded, dtype)
    assert measured.values()["massive_count"] == 2
    assert measured.values()["outlier_ratio"] > 1e4
    assert measured.values()["kurtosis_max"] > 300
    assert_same(measured, native.decode(encoded, dtype))


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("shape", [(40, 333), (300, 700)])
def test_elements_that_are_not_finite_are_left_out(dtype, shape):
    random = np.random.default_rng(3)
    values = random.normal(size=shape)
    kinds = random.integers(0, 40, shape)
    values[kinds == 0], values[kinds == 1], values[kinds == 2] = np.nan, np.inf, -np.inf
    values[7] = np.nan
    values[8, 5] = 5000
    encoded = native.encode(values, dtype)
    assert_same(native.measure(encoded, dtype), native.decode(encoded, dtype))


@pytest.mark.parametrize("scale", [1e-38, 1e-30, 1e-20, 1e18, 1e20, 1e37])
@pytest.mark.parametrize("dtype", [native.FLOAT32, native.BFLOAT16, native.FLOAT64])
def test_fourth_powers_outside_float32_neither_overflow_nor_vanish(dtype, scale):
    values = np.random.default_rng(4).normal(size=(6, 500)) * scale
    values[2] *= 1e-4
    encoded = native.encode(values, dtype)
    assert_same(native.measure(encoded, dtype), native.decode(encoded, dtype))


@pytest.mark.parametrize("dtype", FLOATS)
def test_a_tiny_row_beside_a_large_one_keeps_its_shape(dtype):
    values = np.random.default_rng(5).normal(size=(2, 64))
    values[1] *= 3e-5 if dtype == native.FLOAT16 else 1e-33
    encoded = native.encode(values, dtype)
    assert_same(native.measure(encoded, dtype), native.decode(encoded, dtype))


@pytest.mark.parametrize("dtype", FLOATS)
def test_a_mean_far_from_zero_does_not_cancel_the_kurtosis(dtype):
    values = 100 + np.random.default_rng(6).normal(size=(3, 5000))
    if dtype != native.BFLOAT16:  # in which these are a few values only
        encoded = native.encode(values, dtype)
        assert_same(native.measure(encoded, dtype), native.decode(encoded, dtype))


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("value", [0, 1, -0.3, 1000])
def test_equal_elements_have_no_kurtosis(dtype, value):
    encoded = native.encode(np.full((3, 777), value), dtype)
    measured = native.measure(encoded, dtype)
    assert "kurtosis_mean" not in measured.values()
    assert_same(measured, native.decode(encoded, dtype))
    if value == 0:
        assert measured.values()["near_zero_share"] == measured.values()["zero_share"] == 1
        assert "outlier_ratio" not in measured.values()


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("kind", ["two values", "one large column", "steps", "subnormal"])
def test_the_median_is_exact_for_values_of_any_distribution(dtype, kind):
    random = np.random.default_rng(7)
    shape = (260, 515)  # large enough to be sampled
    values = {
        "two values": np.where(random.random(shape) < 0.5, 1, 3),
        "one large column": np.where(np.arange(515) == 17, 1e4, random.normal(size=shape)),
        "steps": np.exp(random.integers(-5, 5, shape)) * random.choice([-1, 1], shape),
        "subnormal": random.random(shape) * (1e-7 if dtype == native.FLOAT16 else 1e-39),
    }[kind]
    for part in (values, values[:, :200], values[:9]):
        encoded = native.encode(part, dtype)
        decoded = native.decode(encoded, dtype)
        measured = native.measure(encoded, dtype)
        assert measured.values()["abs_median"] == lower_median(np.abs(decoded))


@pytest.mark.parametrize("dtype", FLOATS)
def test_a_sample_that_misleads_costs_time_and_not_the_median(dtype):
    values = np.ones((512, 512))
    values[: 512 // 2] = np.linspace(2, 3, 256 * 512).reshape(256, 512)
    values[-1, -1] = 2.25
    encoded = native.encode(values, dtype)
    expected = lower_median(native.decode(encoded, dtype))
    assert native.measure(encoded, dtype).values()["abs_median"] == expected


@pytest.mark.parametrize("dtype", FLOATS)
def test_strided_slices_equal_their_dense_copies(dtype):
    whole = native.encode(np.random.default_rng(8).normal(size=(600, 700)), dtype)
    for part in (whole[3:9, :65], whole[::2, 1:], whole[:1, 5:]):
        for array in (part, part.copy()):
            assert_same(native.measure(array, dtype), native.decode(part, dtype))
