"""What a place on the page is worth: the innocent are not accused, the guilty are found."""

from dataclasses import replace

import numpy as np
import pytest

from ragkit.reranking.report import FitReport
from ragkit.reranking.shown_place import shown_first
from ragkit.reranking.table import Table
from tests.benchmarks.shown_place import covered, world
from tests.simulated_rankings import simulated
from tests.test_table import tabled

RUNS = 60


@pytest.mark.parametrize(
    "count, size, annotator",
    [
        (12, 3, {}),
        (12, 3, {"noise": False}),
        (25, 3, {"noise": False, "taste": 6.0}),
        (25, 5, {"taste": 0.0}),
        (25, 5, {"taste": 0.0, "hidden": 3.0, "noise": False}),  # that no model could know
        (25, 5, {"tie": 0.7}),
    ],
)
def test_who_does_not_care_is_not_accused(count, size, annotator):
    found, refused = covered(RUNS, count, size, **annotator)
    _, low, high = found.T
    accused = np.sum((low > 0) | (high < 0))
    assert refused <= 3 and accused <= 5, f"{accused} of {RUNS} were accused"
    assert np.median(high - low) < (4.0 if size == 3 else 1.0)


@pytest.mark.parametrize("count, taste", [(25, 0.0), (50, 0.0), (25, 2.0), (50, 2.0)])
def test_a_place_is_worth_what_it_is_worth(count, taste):
    found, refused = covered(RUNS, count, 5, first=0.8, taste=taste)
    mean, low, high = found.T
    assert np.sum((low <= 0.8) & (0.8 <= high)) >= 55 - refused and refused <= 3
    assert np.mean(low > 0) > 0.9 and np.median(mean) == pytest.approx(0.8, abs=0.25)
    assert np.median(high - low) < 45 / count


def test_pages_upside_down_turn_the_sign():
    table = world(20, 5, 1, first=0.8)
    found, turned = (shown_first(one)[0] for one in (table, replace(table, places=4 - table.places)))
    assert found.low > 0
    np.testing.assert_allclose(found[:3], [-turned.mean, -turned.high, -turned.low], atol=5e-3)


def test_who_always_follows_the_page_has_no_upper_limit():
    found, _ = shown_first(world(12, 5, 0, first=50.0, noise=False))
    assert 0 < found.low < np.inf and found.high == np.inf


@pytest.mark.parametrize("size", [3, 5])
def test_what_the_retriever_ordered_cannot_be_told_apart(size):
    found, reason = shown_first(world(12, size, 0, shuffled=False))
    assert found is None and "retriever's order" in reason
    assert reason in str(FitReport(12, 12, kept_base=True, first_unknown=reason))


@pytest.mark.parametrize("count", [1, 5])
def test_a_few_rankings_are_too_early(count):
    found, reason = shown_first(world(count, 5, 0, first=3.0))
    assert found is None and "too early" in reason and f"{count} of at least 6 queries" in reason


def test_where_any_size_would_do_it_is_too_early():
    assert 10 < covered(RUNS, 6, 3)[1] < RUNS


def test_rankings_without_a_page_and_judgements_of_one_query_count_as_they_should():
    known, unknown = tabled(simulated(20, shown=0.8)), tabled(simulated(20, 4, seed=1))
    unknown.places[:] = np.nan
    assert shown_first(unknown)[0] is None
    assert shown_first(Table.join([known, unknown]))[0].n == 20
    twice = shown_first(Table.join([known, known]))[0]
    once = shown_first(known)[0]
    assert twice.n == 20 and twice.high - twice.low > 0.6 * (once.high - once.low)
