"""The measures, by hand and against scikit-learn; queries, not lists, are what counts."""

import numpy as np
import pytest
from sklearn.metrics import ndcg_score

from ragkit.evaluation.rankings import MEASURES, Gain, compare, gains_of, learning_curve, measure
from ragkit.preferences.judgements import Ranking
from ragkit.retrieval.corpus import Passage


def test_one_list_by_hand():
    """Gains 2, 0, 1 scored 1, 3, 2: the order is 0, 1, 2 by gain. DCG = 0 + 1/log2 3 + 2/log2 4 = 1.631,
    the ideal 2 + 1/log2 3 = 2.631; the best document stands third; no pair of three is right."""
    found = measure([np.array([1.0, 3.0, 2.0])], [np.array([2.0, 0.0, 1.0])], ["q"])
    assert found["nDCG@3"]["q"] == found["nDCG@10"]["q"] == pytest.approx(1.6309 / 2.6309, abs=1e-4)
    assert found["MRR"]["q"] == pytest.approx(1 / 3)
    assert found["pair accuracy"]["q"] == 0 and found["Kendall τ"]["q"] == pytest.approx(-1)
    assert set(found) == set(MEASURES)


def test_ndcg_is_scikit_learns():
    rng = np.random.default_rng(0)
    for size in (2, 5, 12):
        scores, gains = rng.normal(size=size), rng.integers(0, 4, size).astype(float)
        if gains.min() == gains.max():
            continue
        found = measure([scores], [gains], ["q"])
        for k in (3, 10):
            expected = ndcg_score([gains - gains.min()], [scores], k=k)
            assert found[f"nDCG@{k}"]["q"] == pytest.approx(expected, abs=1e-6)


def test_fractional_gains_rank_by_level():
    """Utilities such as 0.3 and 4.5 count as levels 0, 1, 2 …: trec_eval knows whole grades."""
    found = measure([np.array([1.0, 2.0, 3.0])], [np.array([4.5, 0.3, 0.3])], ["q"])
    same = measure([np.array([1.0, 2.0, 3.0])], [np.array([1.0, 0.0, 0.0])], ["q"])
    assert found == same


def test_equal_scores_count_half_and_unjudged_documents_not_at_all():
    found = measure([np.array([1.0, 1.0, 9.0])], [np.array([1.0, 0.0, np.nan])], ["q"])
    assert found["pair accuracy"]["q"] == 0.5 and found["Kendall τ"]["q"] == 0 and found["MRR"]["q"] == 1


def test_lists_that_say_nothing_are_left_out():
    lists = [np.array([1.0, 2.0])] * 3
    gains = [np.array([1.0, 1.0]), np.array([np.nan, np.nan]), np.array([0.0, 1.0])]
    found = measure(lists, gains, ["a", "b", "c"])
    assert list(found["MRR"]) == ["c"]


def test_lists_of_one_query_are_one_value():
    scores, gains = np.array([1.0, 2.0]), np.array([1.0, 0.0])
    found = measure([scores, -scores, scores], [gains] * 3, ["a", "a", "b"])
    assert found["pair accuracy"] == {"a": 0.5, "b": 0.0}


def test_compare_is_paired_by_query():
    scores = [np.array([1.0, 2.0])] * 4
    gains = [np.array([1.0, 0.0])] * 4
    found = compare(scores, [-s for s in scores], gains, list("abcd"))
    interval = found.intervals["pair accuracy"]
    assert (interval.mean, interval.low, interval.high, interval.n) == (1.0, 1.0, 1.0, 4)
    assert found.base["MRR"] == 0.5 and found.after["MRR"] == 1.0
    assert "pair accuracy  0.000  1.000  +1.000 [+1.000, +1.000] (n = 4)" in str(found)
    assert compare(scores, scores, gains, ["a"] * 4) == Gain()  # one query has no interval


def test_gains_are_the_tiers_below():
    ranking = Ranking("q", [Passage(str(i), "t") for i in range(4)], [[2], [0, 3]])
    np.testing.assert_array_equal(gains_of(ranking), [0, np.nan, 1, 0])


class Stub:
    """Orders by what it was fitted on: the more rankings, the more it reverses the base."""

    def fit(self, rankings, progress):
        self.count = len(rankings)

    def base(self, query, passages, scores):
        return np.arange(len(passages), dtype=float)

    def score(self, query, passages, scores):
        return self.base(query, passages, scores) * (-1 if self.count >= 3 else 1)


def test_the_learning_curve_has_so_many_draws_of_each_size():
    rankings = [Ranking(f"q{n}", [Passage("a", "a"), Passage("b", "b")], [[0], [1]]) for n in range(6)]
    curve = learning_curve(Stub, rankings[:4], rankings[4:], [2, 4], draws=3)
    assert [len(curve[size]) for size in (2, 4)] == [3, 3]
    assert all(c.intervals["MRR"].mean == 0 for c in curve[2])
    assert all(c.after["pair accuracy"] == 1 for c in curve[4])
    with pytest.raises(ValueError, match="size 5: there are 4 rankings"):
        learning_curve(Stub, rankings[:4], rankings[4:], [5])
