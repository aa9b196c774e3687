"""Trust ends where documents are unlike those of training."""

from types import SimpleNamespace

import numpy as np
import pytest

from ragkit.reranking.guard import BLOCKS, ENDS, LEAST, USUAL, Domain
from tests.simulated_rankings import simulated
from tests.test_table import tabled


@pytest.fixture(scope="module")
def table():
    return tabled(simulated(60))


def test_lists_of_the_same_kind_are_trusted(table):
    domain = Domain.fit(table)
    assert np.mean(domain.trust(table) == 1) == pytest.approx(USUAL, abs=0.02)
    assert domain.trust(tabled(simulated(60, seed=1))).mean() > 0.9
    assert domain.trust(tabled(simulated(40, 12, seed=2))).mean() > 0.9  # longer lists, the same kind
    assert domain.trust(tabled(simulated(60, 2, seed=3))).mean() > 0.9  # shorter ones


def test_lists_of_another_kind_are_not(table):
    other = tabled(simulated(10, seed=4))
    other.features[:, 4] += 3  # twenty times as long
    assert Domain.fit(table).trust(other).max() == 0


def test_trust_falls_with_the_distance(table):
    fitted = Domain.fit(table)
    near = Domain(np.zeros(1), np.array([1 - LEAST**2]), np.zeros(1), fitted.limit)  # of one feature
    distances = np.array([0.5, 1.0, (1 + ENDS) / 2, ENDS, 9.0]) * fitted.limit
    lists = SimpleNamespace(features=distances[:, None], of_list=np.arange(5))
    np.testing.assert_allclose(near.distance(lists), distances)
    np.testing.assert_allclose(near.trust(lists), [1, 1, 0.5, 0, 0], atol=1e-12)


def test_one_list_alone_is_what_it_is_in_a_table(table):
    from ragkit.reranking.features import describe
    from tests.words_encoder import WordsEncoder

    domain, ranking = Domain.fit(table), simulated(60)[7]
    described = describe(WordsEncoder(), ranking.query, [p.full_text for p in ranking.passages])
    assert domain.trust(described) == pytest.approx(domain.trust(table)[7])


def test_one_list_of_one_document_is_a_domain_too():
    one = tabled(simulated(1, 1))
    assert Domain.fit(one).trust(one).tolist() == [1.0]


def test_it_says_which_kind_is_far(table):
    domain, other = Domain.fit(table), tabled(simulated(10, seed=4))
    before = domain.by_kind(other)
    other.features[:, 4] += 3  # the length
    far = domain.by_kind(other)
    length = list(BLOCKS).index("length")
    assert far[:, length].min() > 1 and (domain.distance(other) == far[:, length]).all()
    assert (np.delete(far, length, 1) == np.delete(before, length, 1)).all()
