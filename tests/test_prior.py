"""What people's rankings have in common, for a start; with weights of the tests' own, not those in use."""

import numpy as np
import pytest

import ragkit.reranking.prior as prior
import ragkit.reranking.reranker as module
from ragkit.evaluation.rankings import compare_on
from ragkit.reranking.features import NAMES
from ragkit.reranking.guard import bounded
from ragkit.reranking.prior import FARTHEST, FLOOR, people, people_parts, standardised
from ragkit.reranking.reranker import Reranker
from ragkit.retrieval.corpus import Hit
from tests.simulated_rankings import simulated
from tests.test_table import tabled
from tests.words_encoder import WordsEncoder

ENCODER = WordsEncoder()
FORMULAS, LENGTH = NAMES.index("formulas"), NAMES.index("length")


@pytest.fixture(autouse=True)
def weights(monkeypatch):
    """People like formulas, and what BM25 finds."""
    weights = np.zeros(len(NAMES))
    weights[[FORMULAS, NAMES.index("BM25")]] = 1.0, 0.3
    monkeypatch.setattr(prior, "WEIGHTS", weights)
    monkeypatch.setattr(prior, "SPREADS", np.full(len(NAMES), 0.1))
    return weights


@pytest.fixture
def table():
    return tabled([*simulated(6), *simulated(2, 3, seed=1), *simulated(1, 1, seed=2)])


def test_features_are_relative_to_their_own_list(table):
    """In its mean and, but for a floor, its spread: written out list by list."""
    found = standardised(table)
    for n in range(len(table)):
        own = table.features[table.of_list == n]
        expected = (own - own.mean(0)) / (own.std(0) + FLOOR * 0.1)
        np.testing.assert_allclose(found[table.of_list == n], np.clip(expected, -FARTHEST, FARTHEST))
    assert not found[-1].any()  # of one document alone nothing is said


def test_shift_and_scale_of_a_collection_are_nothing(table, monkeypatch):
    """Scale up to the floor: where spreads are a thousand times its size, to a thousandth."""
    before = standardised(table)
    scales = np.random.default_rng(0).uniform(0.5, 2, len(NAMES))
    lists = table.of_list[:, None]
    table.features[:] = table.features + np.arange(len(NAMES)) * (1 + lists)
    np.testing.assert_allclose(standardised(table), before, atol=1e-9)
    monkeypatch.setattr(prior, "SPREADS", np.full(len(NAMES), 1e-4))
    before = standardised(table)
    table.features[:] = table.features * scales * (1 + lists)
    np.testing.assert_allclose(standardised(table), before, atol=0.01)


def test_small_differences_and_odd_documents_do_not_decide(monkeypatch):
    table = tabled(simulated(1, 20))
    table.features[:] = 1.0
    table.features[0, FORMULAS] += 1e-4  # far below the usual spread, though the only difference
    assert np.abs(standardised(table)).max() < 0.01
    table.features[0, FORMULAS] += 1e6
    assert standardised(table)[0, FORMULAS] == FARTHEST


def test_before_any_fit_the_prior_speaks_and_it_is_bounded():
    ranking = simulated(1, 8)[0]
    described = Reranker(ENCODER).describe(ranking.query, ranking.passages)
    for max_kl in (0.1, 50.0):
        reranker = Reranker(ENCODER, prior="people", max_kl=max_kl)
        base = reranker.base(ranking.query, ranking.passages)
        found = reranker.score(ranking.query, ranking.passages)
        np.testing.assert_allclose(found, bounded(people(described), base, max_kl))
        assert np.abs(found - base).max() > 0.05
        hits = [Hit(passage, 0.5, n) for n, passage in enumerate(ranking.passages, 1)]
        reranked = [hit.passage for hit in reranker.rerank(ranking.query, hits)]
        assert reranked == [ranking.passages[i] for i in np.argsort(-found, kind="stable")]
    test = simulated(30)
    assert compare_on(reranker, test).intervals["pair accuracy"].low > 0
    none = compare_on(Reranker(ENCODER, max_kl=50.0), test)
    assert none.intervals["pair accuracy"].mean == 0  # it starts as the retriever unless asked


def test_a_fit_that_keeps_the_retriever_keeps_the_prior_too():
    ranking, test = simulated(1)[0], simulated(1, 6, seed=9)[0]
    for rankings in ([], [ranking], simulated(12, taste=0.0)):
        reranker = Reranker(ENCODER, "features", prior="people", max_kl=9.0)
        before = reranker.score(test.query, test.passages)
        reranker.fit(rankings, progress=False)
        if reranker.fitted.residual is None:
            np.testing.assert_array_equal(reranker.score(test.query, test.passages), before)
        else:
            np.testing.assert_allclose(reranker.score(test.query, test.passages), before, atol=0.5)


def test_what_the_prior_knows_is_not_learned_again(weights):
    """Once much was ranked, prior and residual come to what the residual alone comes to without a prior."""
    weights[FORMULAS] = 3.0
    new, learned, given = tabled(simulated(20, seed=3)), {}, people(tabled(simulated(20, seed=3)))
    for start in (None, "people"):
        reranker = Reranker(ENCODER, "features", prior=start)
        reranker.fit(simulated(60), progress=False)
        learned[start] = reranker.fitted.residual(new)
        table = reranker.fitted.table
        assert (np.std(table.before - table.base) > 0.5) == (start is not None)
    assert np.std(given + learned["people"] - learned[None]) < 0.4 * np.std(given)


def test_many_rankings_of_ones_own_win_against_it(weights):
    weights[FORMULAS] = -2.0
    test, reranker = simulated(40, seed=1), Reranker(ENCODER, "features", prior="people", max_kl=9.0)
    right = [compare_on(reranker, test).after["pair accuracy"]]
    for count in (8, 60):
        reranker.fit(simulated(count), progress=False)
        right.append(compare_on(reranker, test).after["pair accuracy"])
    own = Reranker(ENCODER, "features", max_kl=9.0)
    own.fit(simulated(60), progress=False)
    alone = compare_on(own, test).after["pair accuracy"]
    assert right[0] < 0.4 < right[-1] and right[0] <= right[1] <= right[2] + 0.02
    assert right[-1] == pytest.approx(alone, abs=0.1)


def test_an_explanation_adds_up_with_prior_residual_and_trust():
    ranking = simulated(3, 6, seed=8)[1]
    hits = [Hit(passage, 0.5, n) for n, passage in enumerate(ranking.passages, 1)]
    reranker = Reranker(ENCODER, "auto", prior="people")
    for _ in range(2):  # before a fit, and after
        told = reranker.explain(ranking.query, hits)
        scores = reranker.score(ranking.query, ranking.passages)
        np.testing.assert_allclose(told.scores - told.scores.mean(), scores - scores.mean(), atol=1e-9)
        assert set(NAMES) <= set(told.parts) and "formulas" in told.largest(2)
        reranker.fit(simulated(30), progress=False)
    described, fitted = reranker.describe(ranking.query, ranking.passages), reranker.fitted
    trust = fitted.domain.trust(described)
    assert 0 < trust[0] <= 1
    formulas = people_parts(described)["formulas"] + trust * fitted.residual.parts(described)["formulas"]
    np.testing.assert_allclose(told.parts["formulas"], told.share * formulas)
    np.testing.assert_allclose(sum(people_parts(described).values()), people(described))


@pytest.mark.parametrize("rankings", [[], simulated(24)])
def test_it_is_saved_with_the_prior(tmp_path, rankings):
    reranker = Reranker(ENCODER, "features", prior="people")
    reranker.fit(rankings, progress=False)
    reranker.save(tmp_path)
    again = Reranker.load(tmp_path, ENCODER)
    assert again.prior == "people" and again.fingerprint == reranker.fingerprint
    for ranking in simulated(5, seed=2):
        scores = [one.score(ranking.query, ranking.passages) for one in (again, reranker)]
        np.testing.assert_array_equal(*scores)
    assert reranker.fingerprint != Reranker(ENCODER, "features").fingerprint


def test_another_prior_is_refused_and_none_is_no_matter(tmp_path, monkeypatch):
    for name, start in (("with", "people"), ("without", None)):
        Reranker(ENCODER, "features", prior=start).save(tmp_path / name)
    fingerprints = [Reranker(ENCODER, prior=start).fingerprint for start in ("people", None)]
    monkeypatch.setattr(module, "PEOPLE", module.PEOPLE | {"formulas": (9.0, 1.0)})
    with pytest.raises(ValueError, match=r"starts from another prior .*: train it again"):
        Reranker.load(tmp_path / "with", ENCODER)
    assert Reranker.load(tmp_path / "without", ENCODER).prior is None
    now = [Reranker(ENCODER, prior=start).fingerprint for start in ("people", None)]
    assert now[0] != fingerprints[0] and now[1] == fingerprints[1]


def test_an_unknown_prior_is_named():
    with pytest.raises(ValueError, match="prior='nobody': \"people\", or None to start as the retriever"):
        Reranker(ENCODER, prior="nobody")


def test_the_numbers_in_use_are_of_every_feature():
    assert list(prior.PEOPLE) == list(NAMES)
    numbers = np.array(list(prior.PEOPLE.values()))
    assert np.isfinite(numbers).all() and (numbers[:, 1] > 0).all()
