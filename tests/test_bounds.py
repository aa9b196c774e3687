"""The bound on how far a ranking moves, against SciPy's entropy."""

import numpy as np
import pytest
from scipy.special import softmax
from scipy.stats import entropy

from ragkit.reranking.guard import bounded, kl_from_base

pytest.importorskip("hypothesis")
from hypothesis import given, settings
from hypothesis import strategies as st

logits = st.lists(st.floats(-20, 20), min_size=1, max_size=8)


def outside(scores, base) -> float:
    return float(entropy(softmax(scores), softmax(base)))


@settings(max_examples=60, deadline=None)
@given(logits, st.integers(0, 99))
def test_kl_is_scipys(base, seed):
    base = np.array(base)
    residual = np.random.default_rng(seed).normal(size=len(base))
    assert kl_from_base(residual, base) == pytest.approx(outside(base + residual, base), abs=1e-9)


@settings(max_examples=60, deadline=None)
@given(logits, st.floats(0, 3), st.integers(0, 99))
def test_the_bound_holds_and_is_reached(base, most, seed):
    base = np.array(base)
    residual = 10 * np.random.default_rng(seed).normal(size=len(base))
    scores = bounded(residual, base, most)
    assert outside(scores, base) <= most + 1e-6
    if outside(base + residual, base) <= most:
        np.testing.assert_array_equal(scores, base + residual)
    elif outside(base + residual, base) > most + 1e-6:
        assert outside(scores, base) == pytest.approx(most, abs=1e-3)
        share = (scores - base) @ residual / (residual @ residual)
        np.testing.assert_allclose(scores, base + share * residual, atol=1e-9)


def test_lists_are_bounded_one_by_one():
    rng = np.random.default_rng(0)
    base, of_list = rng.normal(size=9), np.array([0, 0, 0, 1, 2, 2, 2, 2, 2])
    residuals = 4 * rng.normal(size=(9, 3))
    found = bounded(residuals, base, 0.3, of_list)
    for n in range(3):
        rows = of_list == n
        for column in range(3):
            alone = bounded(residuals[rows, column], base[rows], 0.3)
            np.testing.assert_allclose(found[rows, column], alone, atol=1e-12)


def test_a_bound_of_0_is_the_retriever():
    base = np.array([3.0, 1.0, 2.0])
    np.testing.assert_allclose(bounded(np.array([0.0, 9.0, 0.0]), base, 0.0), base, atol=1e-5)


def test_huge_residuals_stay_finite():
    scores = bounded(np.array([1e6, -1e6, 0.0]), np.zeros(3), 0.5)
    assert np.isfinite(scores).all() and scores.argmax() == 0
