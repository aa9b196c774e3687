"""Trust ends where a question or its documents are unlike those of training, in any one of five kinds."""

from dataclasses import replace

import numpy as np
import pytest

from ragkit.reranking.features import NAMES, describe
from ragkit.reranking.guard import BLOCKS, ENDS, NEAR, READ, SAME, USUAL, Domain
from ragkit.reranking.reranker import Reranker
from ragkit.reranking.table import Table
from tests.simulated_rankings import simulated
from tests.test_table import tabled
from tests.words_encoder import WordsEncoder


@pytest.fixture(scope="module")
def table():
    return tabled(simulated(60))


@pytest.fixture(scope="module")
def new():
    return tabled(simulated(40, seed=4))


def test_lists_of_training_are_trusted(table):
    trust = Domain.fit(table).trust(table)
    assert np.mean(trust == 1) == pytest.approx(USUAL, abs=0.02) and trust.mean() > 0.9


@pytest.mark.parametrize("count, least", [(15, 0.78), (50, 0.87)])
def test_new_lists_of_the_same_kind_are_trusted(count, least):
    """Of 48 such worlds the mean is 0.826 ± 0.015 and 0.900 ± 0.009."""
    trust = [
        Domain.fit(tabled(simulated(count, seed=10 + n))).trust(tabled(simulated(40, seed=100 + n))).mean()
        for n in range(16)
    ]
    assert np.mean(trust) > least


@pytest.mark.parametrize("size", [8, 12, 20, 40])
def test_longer_lists_are_the_same_kind(table, size):
    assert Domain.fit(table).trust(tabled(simulated(40, size, seed=2))).mean() > 0.9


def moved(lists, names, by: float):
    features = lists.features.copy()
    features[:, [NAMES.index(name) for name in names]] += by
    return replace(lists, features=features)


def another(kind: str, lists):
    """The same lists, of another kind in one respect only."""
    if kind == "question":  # three times as long
        return replace(lists, queries=[f"{query[:-1]} {query[:-1]} {query}" for query in lists.queries])
    if kind == "topic":
        return replace(lists, vectors=-lists.vectors, asked=-lists.asked)
    # Twice as long; by a spread or two of the similarity and of BM25; by a sign in a hundred words.
    return moved(lists, READ[kind], {"length": 0.7, "match": 0.7, "style": 0.7}[kind])


@pytest.mark.parametrize("kind", BLOCKS)
def test_any_one_kind_alone_ends_the_trust(table, new, kind):
    domain = Domain.fit(table)
    assert domain.trust(new).mean() > 0.85
    assert domain.trust(another(kind, new)).max() == 0


@pytest.mark.parametrize("kind", BLOCKS)
def test_no_kind_is_read_in_the_place_of_another(table, new, kind):
    """With the other kinds' limits out of reach, its own shift is seen, and no other's."""
    domain = Domain.fit(table)
    only = replace(domain, limits=np.where(np.array(list(BLOCKS)) == kind, domain.limits, 1e9))
    assert only.trust(another(kind, new)).max() == 0
    for other in BLOCKS:
        if other != kind:
            seen = only.distance(another(other, new))
            np.testing.assert_allclose(seen, only.distance(new), rtol=1e-9, atol=1e-7)


def test_trust_falls_with_the_distance(table, new):
    """From 1 at the limit to 0 at ENDS of it; a distance in spreads is relative to the limits."""
    domain = Domain.fit(table)
    one = new.take(np.array([0]))
    limits = domain.distance(one)[0] * domain.limit / np.array([0.5, 1.0, (1 + ENDS) / 2, ENDS, 9.0])
    found = [replace(domain, limit=limit) for limit in limits]
    np.testing.assert_allclose([d.distance(one)[0] for d in found], [0.5, 1, (1 + ENDS) / 2, ENDS, 9])
    np.testing.assert_allclose([d.trust(one)[0] for d in found], [1, 1, 0.5, 0, 0], atol=1e-12)
    wider = replace(domain, limits=2 * domain.limits)
    np.testing.assert_allclose(wider.distance(one), domain.distance(one) / 2)


@pytest.mark.parametrize("count", [3, 4, 12])
def test_limits_are_of_distances_with_a_list_left_out(count):
    """Against fitting without it: mean and spread of the others, for each list in turn."""
    table = tabled(simulated(count, seed=6))
    whole, sizes = Domain.fit(table), np.cumsum([0, *BLOCKS.values()])
    every = np.arange(count)
    # Signs are read from a domain at 0 with spread 1, the centre held.
    signs = np.stack([_signs_of(whole, table.take(np.array([n]))) for n in every])
    distances = np.empty((count, len(BLOCKS)))
    for n in every:
        others = signs[every != n]
        spread = floored(np.sqrt(others.var(0, ddof=1) * count / (count - 1)) + 0.05)
        z = (signs[n] - others.mean(0)) / spread
        distances[n] = [np.sqrt(np.mean(z[a:b] ** 2)) for a, b in zip(sizes, sizes[1:])]
    limits = np.maximum(np.quantile(distances, 0.9, axis=0), NEAR)
    np.testing.assert_allclose(whole.limits, limits, rtol=1e-6, atol=1e-12)
    assert whole.limit == pytest.approx(np.quantile((distances / limits).max(1), USUAL), rel=1e-5)
    np.testing.assert_allclose(whole.mean, signs.mean(0), atol=1e-9)
    spread = floored(np.sqrt(signs.var(0, ddof=1) * (count + 1) / count) + 0.05)
    np.testing.assert_allclose(whole.spread, spread, atol=1e-9)


def floored(spread: np.ndarray) -> np.ndarray:
    """The first signs are the question's."""
    return np.where(np.arange(len(spread)) < BLOCKS["question"], np.maximum(spread, SAME), spread)


def test_questions_that_were_all_alike_leave_room_for_the_next(table):
    """Always four words and a question mark: five words are near, fifteen are not."""
    alike = Domain.fit(replace(table, queries=["who was it then?"] * len(table)))
    five, many = (
        replace(table, queries=[q] * len(table)) for q in ("who was it by then?", "who " * 15 + "?")
    )
    assert alike.trust(five).mean() > 0.8 and alike.trust(many).max() == 0
    same = table.take(np.array([0]))
    assert Domain.fit(Table.join([same] * 6)).trust(same) == [1.0]  # six times the same list


def _signs_of(domain: Domain, one) -> np.ndarray:
    """(B,), read back from distances: one sign at a time, of a domain that looks at nothing else."""
    size, found = len(domain.mean), np.empty(len(domain.mean))
    block = np.repeat(list(BLOCKS.values()), list(BLOCKS.values()))
    far = 1e3  # a mean below any sign, so that distances are signed
    for b in range(size):
        spread = np.full(size, np.inf)
        spread[b] = 1.0
        alone = replace(domain, mean=np.full(size, -far), spread=spread, limits=np.ones(5), limit=1.0)
        found[b] = alone.distance(one)[0] * np.sqrt(block[b]) - far
    return found


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_few_lists_are_a_domain_too(count, new):
    for size in (1, 5):
        few = tabled(simulated(count, size))
        domain = Domain.fit(few)
        assert domain.trust(few).tolist() == [1.0] * count
        trust = domain.trust(new)
        assert np.isfinite(trust).all() and (count == 3 or trust.min() == 1)  # nothing can be left out


def test_one_list_alone_is_what_it_is_in_a_table(table, new):
    domain, rankings = Domain.fit(table), simulated(40, seed=4)
    for n in range(0, 40, 5):
        texts = [p.full_text for p in rankings[n].passages]
        described = describe(WordsEncoder(), rankings[n].query, texts)
        assert domain.distance(described) == pytest.approx(domain.distance(new)[n], rel=1e-6)


def test_a_domain_is_saved_and_loaded_the_same(tmp_path, table, new):
    reranker = Reranker(WordsEncoder(), "features")
    reranker.fit(simulated(60), progress=False)
    reranker.save(tmp_path)
    again = Reranker.load(tmp_path, WordsEncoder()).fitted.domain
    for lists in (table, new, another("style", new)):
        np.testing.assert_array_equal(again.trust(lists), reranker.fitted.domain.trust(lists))


def test_what_is_of_another_kind_keeps_the_retrievers_order():
    """Through the door: the same documents after a question of another form."""
    reranker = Reranker(WordsEncoder(), "features")
    reranker.fit(simulated(40), progress=False)
    ranking = simulated(1, seed=4)[0]
    long = f"{ranking.query[:-1]} {' '.join(['and'] * 30)}?"
    scores = [reranker.score(long, ranking.passages), reranker.base(long, ranking.passages)]
    np.testing.assert_array_equal(*scores)
    assert (
        np.ptp(
            reranker.score(ranking.query, ranking.passages) - reranker.base(ranking.query, ranking.passages)
        )
        > 0.1
    )


def test_it_says_which_kind_is_far(table, new):
    domain = Domain.fit(table)
    before, length = domain.by_kind(new), list(BLOCKS).index("length")
    other = another("length", new)
    far = domain.by_kind(other)
    assert far[:, length].min() > 1 and (domain.distance(other) == far[:, length]).all()
    np.testing.assert_allclose(np.delete(far, length, 1), np.delete(before, length, 1))
