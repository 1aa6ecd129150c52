"""Folded histograms against NumPy: counts, sums, bucket bounds, and what measuring folds."""

import ctypes

import numpy as np
import pytest
from numpy.testing import assert_allclose

import ring2_native as native

L2, LOGITS_ENTROPY, ATTENTION_ENTROPY, NO_SINK, SINK_MASS = 0, 1, 4, 5, 6


@pytest.fixture
def fold():
    handle = ctypes.c_void_p()
    assert native.LIBRARY.ring2_fold_create(ctypes.byref(handle)) == 0
    yield handle
    native.LIBRARY.ring2_fold_destroy(handle)


def record(fold, samples, key=5):
    values = np.ascontiguousarray(samples, dtype=np.float64)
    return native.LIBRARY.ring2_fold_record(
        fold, L2, 0, 3, 1, values.ctypes.data, values.size, key, 1000
    )


def read(fold):
    points = (native.Point * 16)()
    count = native.LIBRARY.ring2_fold_read(fold, points, 16)
    return {point.signal: point for point in points[:count]}


@pytest.mark.parametrize(
    "samples",
    [
        np.random.default_rng(1).lognormal(0, 1, 5000),
        np.random.default_rng(2).lognormal(0, 6, 5000),
        1 + np.random.default_rng(3).random(5000) * 1e-4,
        2.0 ** np.arange(-29, 30),
        np.full(100, 3.5),
    ],
)
def test_every_sample_lies_within_its_bucket(fold, samples):
    assert record(fold, samples) == 0
    point = read(fold)[L2]
    assert point.count == samples.size
    assert_allclose(point.sum, samples.sum(), rtol=1e-12)
    assert (point.min, point.max) == (samples.min(), samples.max())
    buckets = np.array(point.buckets[: point.bucket_count])
    assert 1 <= point.bucket_count <= native.BUCKETS_MAX
    assert buckets.sum() + point.zero_count == samples.size
    assert point.zero_count == (samples < 1e-9).sum()
    positive = samples[samples >= 1e-9]
    index = np.ceil(np.log2(positive) * 2.0**point.scale).astype(int) - 1 - point.offset
    assert (buckets == np.bincount(index, minlength=point.bucket_count)).all()


def test_what_is_measured_is_folded_once_for_each_row(fold):
    random = np.random.default_rng(4)
    hidden = random.normal(size=(700, 64)).astype(np.float32)
    native.measure(hidden, native.FLOAT32, fold=fold)
    logits = random.normal(size=(3, 500))
    native.measure(logits, native.FLOAT64, hook=native.FINAL_LOGITS, fold=fold)
    pattern = np.tril(np.ones((2, 6, 6)))
    pattern /= pattern.sum(axis=2, keepdims=True)
    native.measure(pattern, native.FLOAT64, hook=native.PATTERN, fold=fold)
    points = (native.Point * 16)()
    count = native.LIBRARY.ring2_fold_read(fold, points, 16)
    found = {(point.signal, point.hook): point for point in points[:count]}
    norms = np.linalg.norm(hidden.astype(np.float64), axis=1)
    norm = found[L2, native.RESID_PRE]
    assert norm.count == 700
    assert_allclose(norm.sum, norms.sum(), rtol=1e-6)
    assert_allclose(norm.exemplar_value, norms.max(), rtol=1e-6)
    assert norm.exemplar_key == 77
    assert found[LOGITS_ENTROPY, native.FINAL_LOGITS].count == 3
    assert found[ATTENTION_ENTROPY, native.PATTERN].count == 10
    assert found[NO_SINK, native.PATTERN].count == 8
    assert found[SINK_MASS, native.PATTERN].count == 10
    assert (L2, native.PATTERN) not in found


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, -1.0])
def test_samples_that_are_no_measurement_are_refused(fold, bad):
    assert record(fold, [1.0, bad]) == -1
    assert "sample 1" in native.last_error()
    assert read(fold) == {}
