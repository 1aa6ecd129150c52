"""Router and expert-weight entropies against NumPy float64."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

import reference
import ring2_native as native

FLOATS = [native.FLOAT32, native.FLOAT16, native.BFLOAT16, native.FLOAT64]
LOGITS, WEIGHTS = 21, 23


def assert_moments(measured, decoded):
    expected, _ = reference.moments(decoded)
    for name, value in expected.items():
        assert_allclose(measured.values()[name], value, rtol=1e-5, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("experts", [2, 3, 8, 60, 64, 128, 256, 5000])
def test_router_entropy_equals_numpy(experts, dtype):
    random = np.random.default_rng(experts)
    for spread in (0.01, 1, 8):
        encoded = native.encode(random.normal(0, spread, (19, experts)), dtype)
        measured = native.measure(encoded, dtype, hook=LOGITS)
        decoded = native.decode(encoded, dtype)
        weights = np.exp(decoded - decoded.max(axis=1, keepdims=True))
        h = reference.entropy(weights / weights.sum(axis=1, keepdims=True)) / np.log(experts)
        assert_allclose(measured.values()["router_entropy_mean"], h.mean(), atol=1e-5)
        assert_moments(measured, decoded)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("chosen", [2, 4, 6, 8])
def test_expert_entropy_equals_numpy_whatever_the_weights_add_up_to(chosen, dtype):
    random = np.random.default_rng(chosen)
    for total in (1, 2.5, 0.1):
        values = random.random((33, chosen))
        values[3, 0] = 0
        values *= total / values.sum(axis=1, keepdims=True)
        encoded = native.encode(values, dtype)
        decoded = native.decode(encoded, dtype)
        h = reference.entropy(decoded / decoded.sum(axis=1, keepdims=True)) / np.log(chosen)
        measured = native.measure(encoded, dtype, hook=WEIGHTS)
        assert_allclose(measured.values()["expert_entropy_mean"], h.mean(), atol=1e-5)
        assert_moments(measured, decoded)


@pytest.mark.parametrize("dtype", FLOATS)
def test_rows_with_nan_give_no_entropy_and_masked_experts_have_no_share(dtype):
    logits = np.zeros((4, 8))
    logits[0, 3], logits[1, 4], logits[2, 2:] = np.nan, np.inf, -np.inf
    measured = native.measure(native.encode(logits, dtype), dtype, hook=LOGITS)
    assert measured.invalid_rows == 2
    assert_allclose(measured.values()["router_entropy_mean"], (1 / 3 + 1) / 2, atol=1e-6)
    weights = np.full((5, 4), 0.25)
    weights[0, 1], weights[1, 2], weights[2, 3], weights[3] = np.nan, np.inf, -0.25, 0
    measured = native.measure(native.encode(weights, dtype), dtype, hook=WEIGHTS)
    assert (measured.invalid_rows, measured.skipped_rows) == (3, 1)
    assert_allclose(measured.values()["expert_entropy_mean"], 1, atol=1e-6)


def test_one_choice_or_another_group_has_no_entropy():
    ones = np.ones((5, 1), dtype=np.float32)
    for hook in (LOGITS, WEIGHTS):
        assert not any("entropy" in name for name in native.measure(ones, 1, hook=hook).values())
        two = np.ones((5, 2), dtype=np.float32)
        without = native.measure(two, 1, hook=hook, groups=127 - 32).values()
        assert not any("entropy" in name for name in without)
        assert any("entropy" in name for name in native.measure(two, 1, hook=hook).values())


@pytest.mark.parametrize("dtype", FLOATS)
def test_strided_rows_equal_their_dense_copies(dtype):
    whole = native.encode(np.random.default_rng(5).random((20, 6, 40)), dtype)
    for hook in (LOGITS, WEIGHTS):
        for part in (whole[:, 2, :8], whole[::3, 1:3, 5:20]):
            strided = native.measure(part, dtype, hook=hook).values()
            dense = native.measure(part.copy(), dtype, hook=hook).values()
            name = "router_entropy_mean" if hook == LOGITS else "expert_entropy_mean"
            assert strided[name] == dense[name]
