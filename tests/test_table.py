"""Rankings as arrays: sides point at what the pairs say, whatever is joined and taken."""

import numpy as np
import pytest

from ragkit.preferences.judgements import Comparison, Ranking
from ragkit.preferences.pairs import pairs_of
from ragkit.reranking.features import describe
from ragkit.reranking.selection import MOST_PAIRS, thinned
from ragkit.reranking.table import Table
from ragkit.retrieval.corpus import Passage
from tests.simulated_rankings import simulated
from tests.words_encoder import WordsEncoder


def tabled(rankings, prior=None) -> Table:
    encoder = WordsEncoder()
    texts = [[p.full_text for p in ranking.passages] for ranking in rankings]
    return Table.build(rankings, [describe(encoder, r.query, t) for r, t in zip(rankings, texts)], prior)


def ties() -> Ranking:
    """Documents 3 and 1 before 0 and 4, which tie; 2 was not judged."""
    return Ranking(
        "tied?", [Passage(str(i), f"text {i}") for i in range(5)], [[3], [1], [0, 4]], [4, 3, 2, 1, 0]
    )


def check(table: Table, rankings) -> None:
    texts = np.array([p.full_text for ranking in rankings for p in ranking.passages])
    assert texts[table.sides[:, 0]].tolist() == table.pairs.chosen
    assert texts[table.sides[:, 1]].tolist() == table.pairs.rejected
    assert [table.queries[n] for n in table.pair_list] == table.pairs.query
    expected = pairs_of(rankings)
    for name in ("target", "chosen_rank", "rejected_position", "group"):
        np.testing.assert_array_equal(getattr(table.pairs, name), getattr(expected, name))


def test_sides_are_the_documents_of_the_pairs():
    rankings = [*simulated(3), ties(), *simulated(2, 3, seed=1), ties()]
    table = tabled(rankings)
    check(table, rankings)
    assert len(table) == 7 and len(table.base) == 31
    assert table.ranks[15:20].tolist() == [2, 1, -1, 0, 2]
    assert table.places[15:20].tolist() == [4, 3, 2, 1, 0]


def test_pairs_carry_the_indices_of_their_documents():
    """Also where two passages have one text, and where a pair did not come from a ranking."""
    twins = Ranking("q", [Passage(str(i), "the same text") for i in range(4)], [[2], [3], [0]])
    table = tabled([*simulated(1, 3), twins])
    assert sorted(table.sides[3:].tolist()) == [[5, 3], [5, 6], [6, 3]]  # the second list begins at 3
    found = pairs_of([twins, Comparison("q", "one", "two", -2)])
    assert sorted(zip(found.chosen_index[:3], found.rejected_index[:3])) == [(2, 0), (2, 3), (3, 0)]
    assert np.isnan(found.chosen_index[3]) and found.judgement.tolist() == [0, 0, 0, 1]
    shuffled = table.with_pairs(np.random.default_rng(0).permutation(len(table.pairs)))
    ranks = table.ranks[shuffled.sides]
    assert (ranks[:, 0] == shuffled.pairs.chosen_rank).all()
    assert (ranks[:, 1] == shuffled.pairs.rejected_rank).all()


def test_taking_some_is_making_a_table_of_some():
    rankings = [*simulated(4), ties(), *simulated(3, 2, seed=2)]
    table = tabled(rankings)
    for kept in ([0, 4], [1, 2, 3], [7], range(8)):
        some = [rankings[n] for n in kept]
        taken, made = table.take(np.array(kept)), tabled(some)
        check(made, some)
        for name in ("features", "vectors", "base", "ranks", "places", "of_list", "sides", "pair_list"):
            np.testing.assert_array_equal(getattr(taken, name), getattr(made, name))
        assert taken.queries == made.queries


def test_what_training_starts_from_is_s_0_and_the_prior():
    rankings = [*simulated(2), ties()]
    table, without = tabled(rankings, lambda one: np.arange(len(one.texts)) - 1.0), tabled(rankings)
    assert table.prior.tolist() == [-1, 0, 1, 2, 3] * 3 and not without.prior.any()
    np.testing.assert_array_equal(table.before, without.base + table.prior)
    np.testing.assert_array_equal(table.take(np.array([1, 2])).before, table.before[5:])
    np.testing.assert_array_equal(Table.join([table, without]).prior[10:20], [-1, 0, 1, 2, 3, *[0] * 5])


def test_an_unknown_shown_order_is_nan():
    table = tabled([Ranking("q", ties().passages, [[0], [1]])])
    assert np.isnan(table.places).all() and len(table.pairs) == 1


def test_long_lists_are_thinned_alone():
    rankings = [*simulated(2, 14), *simulated(2, 4, seed=1)]
    table = tabled(rankings)
    few = thinned(table, 0)
    assert np.bincount(few.pair_list).tolist() == [MOST_PAIRS, MOST_PAIRS, 6, 6]
    texts = np.array([p.full_text for ranking in rankings for p in ranking.passages])
    assert texts[few.sides[:, 1]].tolist() == few.pairs.rejected
    assert thinned(few, 0) is few


@pytest.mark.parametrize("sizes", [(1,), (1, 5), (5, 1)])
def test_lists_of_one_document_have_no_pairs(sizes):
    rankings = [simulated(1, size, seed=n)[0] for n, size in enumerate(sizes)]
    check(tabled(rankings), rankings)
