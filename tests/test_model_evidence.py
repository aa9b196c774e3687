"""How much is believed: against scikit-learn, numerical integration, finite differences, and many worlds."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.special import expit
from sklearn.linear_model import LogisticRegression

from ragkit.preferences.judgements import Ranking
from ragkit.reranking import updating
from ragkit.reranking.evidence import (
    ALONE,
    BETAS,
    ODDS,
    SPREADS,
    Evidence,
    Model,
    Told,
    _alone,
    held_out_share,
    most_probable,
    weigh,
)
from ragkit.reranking.features import NAMES
from ragkit.reranking.guard import Domain
from ragkit.reranking.linear import CAPACITIES, Inputs
from ragkit.reranking.objective import Objective
from ragkit.reranking.reranker import Reranker
from ragkit.reranking.selection import train
from ragkit.reranking.table import Table
from ragkit.reranking.updating import Columns, Running
from ragkit.retrieval.corpus import Passage
from tests.benchmarks.shown_place import world
from tests.simulated_rankings import simulated
from tests.test_table import tabled
from tests.words_encoder import WordsEncoder

TASTE = 6  # the feature that `world` likes


@pytest.fixture(scope="module")
def table():
    return world(12, 5, 0)


@pytest.fixture(scope="module")
def values(table):
    return Inputs.fit("features", table)(table)


def log_joint(told: Told, values, beta, precision, w) -> float:
    """log of likelihood and prior, written out."""
    z = beta * told.base + told.shift + beta * told.apart(values @ w)
    likelihood = told.weight @ (told.target * np.log(expit(z)) + (1 - told.target) * np.log(expit(-z)))
    return likelihood + np.sum(np.log(precision / (2 * np.pi)) - precision * w**2) / 2


# What rankings tell


def ranked(size: int, tiers: list[list[int]]) -> Ranking:
    return Ranking("q?", [Passage(str(i), f"text {i}") for i in range(size)], tiers)


@pytest.mark.parametrize(
    "ranking, counts",
    [
        *((ranked(k, [[i] for i in range(k)]), 1.5 * k * (k - 1) / (k + 1)) for k in (2, 3, 5, 10)),
        (ranked(10, [[3], [i for i in range(10) if i != 3]]), 1.8),
        (ranked(10, [[0, 2, 4, 6, 8], [1, 3, 5, 7, 9]]), 5.0),
    ],
)
def test_what_a_list_counts(ranking, counts):
    table = tabled([ranking, *simulated(2)])
    told = Told(table.strict())
    of_list = table.of_list[told.chosen]
    assert told.weight[of_list == 0].sum() == pytest.approx(counts)
    assert told.weight[of_list == 1].sum() == pytest.approx(5.0)  # 1.5 · 5 · 4/6, whatever stands beside it


def test_a_list_ranked_by_chance_varies_as_its_information_says():
    """The definition: the score's variance over random orders is what the weighted curvature expects."""
    rng, x = np.random.default_rng(0), np.random.default_rng(1).normal(size=6)
    scores = []
    for _ in range(2000):
        order = rng.permutation(6)
        table = world(1, 6, 0)
        place = np.argsort(order)
        left, right = np.where(
            place[table.sides[:, 0]] < place[table.sides[:, 1]], table.sides.T, table.sides.T[::-1]
        )
        pairs = replace(table.pairs, chosen_index=left.astype(float), rejected_index=right.astype(float))
        told = Told(replace(table, pairs=pairs), anchored=False)
        scores.append(x @ told.slope(np.zeros(len(left))))
    expected = told.curvature(np.zeros(len(left)), x[:, None])[0, 0]
    assert np.var(scores) == pytest.approx(expected, rel=0.1)


def test_slope_and_curvature_are_finite_differences(table, values):
    told, beta, rng = Told(table, first=0.2), 0.4, np.random.default_rng(0)
    better, worse = table.sides.T
    np.testing.assert_array_equal(told.base, table.base[better] - table.base[worse])
    np.testing.assert_allclose(told.shift, 0.2 * (table.places[worse] - table.places[better]))
    w = rng.normal(size=values.shape[1])
    logits = lambda w: beta * told.base + told.shift + beta * told.apart(values @ w)  # noqa: E731
    slope = lambda w: beta * values.T @ told.slope(logits(w))  # noqa: E731
    steps = 1e-5 * np.eye(len(w))
    total = lambda w: told.log_likelihood(logits(w))  # noqa: E731
    numeric = [(total(w + e) - total(w - e)) / 2e-5 for e in steps]
    np.testing.assert_allclose(slope(w), numeric, atol=1e-6)
    numeric = np.array([(slope(w + e) - slope(w - e)) / 2e-5 for e in steps])
    np.testing.assert_allclose(-(beta**2) * told.curvature(logits(w), values), numeric, atol=1e-6)
    assert total(w) == pytest.approx(log_joint(told, values, beta, np.full(1, 2 * np.pi), w) + np.pi * w @ w)


# The most probable weights and the evidence


@pytest.mark.parametrize("beta, spread", [(0.1, 1.5), (0.8, 0.3), (0.8, 2.0)])
def test_the_most_probable_weights_are_scikit_learns(table, values, beta, spread):
    """C = 1 / precision in the units of β x, each pair by its weight, and the other way round."""
    told, rng = Told(table, anchored=False), np.random.default_rng(0)
    precision = spread**-2 * rng.uniform(0.5, 2, values.shape[1])
    w, _ = most_probable(told, values, beta, precision, rng.normal(size=len(precision)))
    x = beta * told.apart(values) / np.sqrt(precision)
    peer = LogisticRegression(C=1.0, fit_intercept=False, tol=1e-10, max_iter=5000)
    peer.fit(np.r_[x, -x], np.repeat([1, 0], len(x)), sample_weight=np.r_[told.weight, told.weight] / 2)
    np.testing.assert_allclose(w, peer.coef_[0] / np.sqrt(precision), atol=2e-3)


@pytest.mark.parametrize("features", [[TASTE], [TASTE, 3]])
@pytest.mark.parametrize("count, beta, spread", [(4, 0.3, 0.7), (12, 0.8, 1.5), (12, 0.1, 2.0)])
def test_the_evidence_is_the_integral(features, count, beta, spread):
    table = world(count, 5, 1)
    values, told = Inputs.fit("features", table)(table)[:, features], Told(table, first=0.1)
    precision = np.full(len(features), spread**-2)
    w, evidence = most_probable(told, values, beta, precision, np.zeros(len(features)))
    peak = log_joint(told, values, beta, precision, w)
    axis, step = np.linspace(-6 * spread, 6 * spread, 81, retstep=True)  # beyond it is nothing
    points = np.stack(np.meshgrid(*[axis] * len(w)), -1).reshape(-1, len(w)) + w
    integral = sum(np.exp(log_joint(told, values, beta, precision, x) - peak) for x in points)
    assert np.exp(evidence - peak) == pytest.approx(integral * step ** len(w), rel=0.02)


def test_a_feature_alone_is_the_same_model_with_one_column(table, values):
    told = Told(table, first=0.1)
    models = _alone(told, values)
    assert len(models) == len(BETAS[1:]) * len(ALONE) * len(NAMES)
    assert sorted({model.first for model in models}) == list(range(len(NAMES)))
    for model in models[::7]:
        assert model.end == model.first + 1
        column = values[:, model.first : model.end]
        w, evidence = most_probable(told, column, model.beta, np.full(1, model.spread**-2), np.zeros(1))
        assert model.weights == pytest.approx(w, abs=2e-3) and model.share == pytest.approx(
            evidence, abs=1e-4
        )


@pytest.mark.parametrize("taste, least, most", [(0.9, 0.2, 0.8), (2.0, 0.99, 1.0)])
def test_shares_are_the_models_probabilities(taste, least, most):
    """By Bayes' rule from the evidence of each model, one by one."""
    table = world(14, 5, 0, taste=taste)
    values = Inputs.fit("features", table)(table)
    told = Told(table)
    each = lambda x, beta, spread: most_probable(  # noqa: E731
        told, x, beta, np.full(x.shape[1], spread**-2), np.zeros(x.shape[1])
    )[1]
    together = [each(values, beta, spread) for beta in BETAS for spread in SPREADS]
    alone = [model.share for model in _alone(told, values)]
    none = [told.log_likelihood(beta * told.base) for beta in (0.003, *BETAS)]
    mean = lambda x: np.mean(np.exp(np.array(x) - none[0]))  # noqa: E731
    families = mean(together) / 2 + mean(alone) / 2
    share = families / (families + ODDS * mean(none))
    found = weigh(values, table, ["features"], Objective())
    assert (
        share - 0.1 < found.share <= share + 1e-6 and least < found.share <= most
    )  # small ones are left out
    best = max(found.models, key=lambda model: model.share)
    total = (families + ODDS * mean(none)) * 2
    evidence = each(values[:, best.first : best.end], best.beta, best.spread)
    family = len(together) if best.end - best.first > 1 else len(alone)
    assert best.share == pytest.approx(np.exp(evidence - none[0]) / family / total, rel=1e-3)
    np.testing.assert_allclose(
        found.weights(len(NAMES)),
        sum(m.share * np.pad(m.weights, (m.first, len(NAMES) - m.end)) for m in found.models),
    )
    assert not Evidence((), 0.0).weights(4).any() and Evidence((), 0.0).share == 0


def test_lists_that_say_the_same_again_double_the_information(table, values):
    told, twice = Told(table), Told(Table.join([table, table]))
    z = np.random.default_rng(0).normal(size=len(told.chosen))
    assert twice.log_likelihood(np.r_[z, z]) == pytest.approx(2 * told.log_likelihood(z))
    curvature = twice.curvature(np.r_[z, z], np.r_[values, values])
    np.testing.assert_allclose(curvature, 2 * told.curvature(z, values), atol=1e-9)
    precision = np.full(values.shape[1], 2.0)
    once = most_probable(told, values, 0.3, precision, np.zeros(len(precision)))[0]
    double = most_probable(twice, np.r_[values, values], 0.3, 2 * precision, np.zeros(len(precision)))[0]
    np.testing.assert_allclose(once, double, atol=1e-6)


@pytest.mark.parametrize("capacities", [["features"], CAPACITIES])
def test_neither_the_order_of_lists_nor_that_of_documents_matters(capacities):
    rankings, rng = simulated(12), np.random.default_rng(0)
    turned = []
    for n in rng.permutation(12):
        order = rng.permutation(5)  # new index → old one
        new = np.argsort(order)
        tiers = [[int(new[i]) for i in tier] for tier in rankings[n].tiers]
        shown = [int(new[i]) for i in rankings[n].shown_order]
        passages = [rankings[n].passages[i] for i in order]
        turned.append(replace(rankings[n], passages=passages, tiers=tiers, shown_order=shown))
    (one, first), (two, second) = (
        train(tabled(x), Objective(first=True), capacities) for x in (rankings, turned)
    )
    new = tabled(simulated(5, seed=3))
    np.testing.assert_allclose(one(new), two(new), atol=1e-3)
    assert first.share == pytest.approx(second.share, abs=1e-3) and first.share > 0.5
    assert first.first == pytest.approx(second.first, abs=1e-3)


def test_the_reference_leaves_s_0_out_and_the_offset_holds_the_prior(table, values):
    far = replace(table, prior=np.random.default_rng(0).normal(size=len(table.base)))
    reference = Objective(anchor="reference")
    same = [weigh(values, one, ["features"], reference).weights(19) for one in (table, far)]
    np.testing.assert_array_equal(*same)
    moved = replace(table, base=table.base + far.prior)
    alike = [weigh(values, one, ["features"], Objective()).weights(19) for one in (far, moved)]
    np.testing.assert_allclose(*alike, atol=1e-9)
    assert np.abs(alike[0] - same[0]).max() > 0.01


@pytest.mark.parametrize("exact", [True, False], ids=["curvature anew", "curvature kept"])
def test_a_model_goes_on_to_the_optimum(table, values, exact, monkeypatch):
    """One step of Newton's method for each ranking: after the last, it is the optimum of all."""
    monkeypatch.setattr(updating, "GROWN", 0 if exact else 1)
    inputs, known = Inputs.fit("features", table), table.take(np.arange(6))
    start = weigh(inputs(known), known, ["features"], Objective())
    running, evidence = Running.of(known, known, inputs, start, anchored=True), start
    for n in range(6, len(table)):
        new = table.take(np.array([n]))
        running, evidence = running.more(new, new, inputs, evidence, anchored=True)
    assert evidence.share == start.share
    np.testing.assert_array_equal(running.documents["values"], values)
    assert running.domain().limit == pytest.approx(Domain.fit(table).limit)
    for before, model in zip(start.models, evidence.models):
        some = values[:, model.first : model.end]
        precision = np.full(some.shape[1], model.spread**-2)
        best, _ = most_probable(Told(table), some, model.beta, precision, np.zeros(len(precision)))
        assert np.abs(model.weights - best).max() < 0.1 * np.abs(before.weights - best).max() + 2e-3


def posterior(told, values, model, w) -> float:
    """The log-likelihood of weights `w`, and the prior's part."""
    z = model.beta * (told.base + told.apart(values @ w)) + told.shift
    return told.log_likelihood(z) - w @ w / (2 * model.spread**2)


@pytest.mark.parametrize("too_long", [1, 2, 30, 1000])
def test_a_step_gains_whatever_the_curvature(table, values, too_long):
    """By a curvature that is too small, steps are too long: they are shortened until they gain."""
    told, model = Told(table), Model(0, values.shape[1], 0.8, 1.5, 1.0, np.zeros(values.shape[1]))
    curvature = updating._curvature(told, values, model) / too_long
    found = updating._step(told, values, model, curvature)
    assert posterior(told, values, model, found) > posterior(told, values, model, model.weights)


def test_near_the_optimum_no_likelihood_is_summed_up(table, values, monkeypatch):
    told, size = Told(table), values.shape[1]
    best, _ = most_probable(told, values, 0.8, np.full(size, 1.5**-2), np.zeros(size))
    model = Model(0, size, 0.8, 1.5, 1.0, best + 0.01)
    curvature = updating._curvature(told, values, model)
    monkeypatch.setattr(Told, "log_likelihood", None)
    found = updating._step(told, values, model, curvature)
    assert np.abs(found - best).max() < 0.1 * 0.01


def test_columns_that_grow_apart_keep_their_own():
    first = Columns({"x": np.arange(3)})
    one = first.more({"x": np.array([10])})
    two = first.more({"x": np.array([20, 21])})  # from where `one` has gone on
    for n in range(200):
        two = two.more({"x": np.array([n])})
    assert first["x"].tolist() == [0, 1, 2] and one["x"].tolist() == [0, 1, 2, 10]
    assert two["x"].tolist() == [0, 1, 2, 20, 21, *range(200)]
    assert one.more({"x": np.arange(500)})["x"].tolist() == [0, 1, 2, 10, *range(500)]


# How it shrinks


def believed(count: int, taste: float, seed: int, capacities=("features",)) -> tuple[float, float, float]:
    """The share, how far scores move (their standard deviation within new lists), and what is gained of the
    taste: pairs of new lists that s_0 + r has right, less those that s_0 has."""
    table, new = world(count, 5, seed, taste=taste), world(60, 5, 1000 + seed, taste=taste)
    residual, evidence = train(table, Objective(), capacities, seed)
    right = [np.mean(scores[new.sides] @ [1.0, -1.0] > 0) for scores in (new.base + residual(new), new.base)]
    return evidence.share, float(np.std(residual(new))), right[0] - right[1]


def means(count: int, taste: float, runs: int = 8) -> np.ndarray:
    return np.mean([believed(count, taste, seed) for seed in range(runs)], axis=0)


def test_belief_grows_with_the_taste_and_with_the_rankings():
    """From next to nothing to nearly all, by degrees and not by a switch."""
    by_taste = np.array([means(12, taste) for taste in (0.0, 0.4, 0.8, 1.1, 1.6, 4.0)])
    by_count = np.array([means(count, 0.8) for count in (2, 5, 12, 25, 60)])
    for found in (by_taste, by_count):
        share, moved, _ = found.T
        assert share[0] < 0.15 and share[-1] > 0.95
        assert (np.diff(share) > -0.03).all() and (np.diff(moved) > -0.05).all()
        assert np.sum((share > 0.1) & (share < 0.9)) >= 2
    assert by_taste[-1, 2] > 0.2 and by_count[-1, 2] > 0.1


def test_one_more_ranking_is_no_jump():
    """Along one log, the residual's change from a ranking to the next is small beside what it comes to."""
    table, new = world(40, 5, 3, taste=1.0), world(30, 5, 99)
    scores = [train(table.take(np.arange(n)), Objective(), ["features"])[0](new) for n in range(4, 41)]
    steps = [np.std(b - a) for a, b in zip(scores, scores[1:])]
    assert np.std(scores[-1]) > 0.5 and max(steps) < 0.5 * np.std(scores[-1])


@pytest.mark.parametrize("count", [4, 15, 50])
def test_noise_moves_little(count):
    """Of 64 such logs the mean share is 0.004, and scores move by 0.011 logits; here, six standard errors
    of a mean of 16 are let through."""
    share, moved, gain = np.array([believed(count, 0.0, seed, CAPACITIES) for seed in range(16)]).T
    assert share.mean() < 0.02 and share.max() < 0.15
    assert moved.mean() < 0.05 and abs(gain.mean()) < 0.005


# Nothing breaks


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("capacities", [["features"], ["embeddings"], CAPACITIES])
@pytest.mark.parametrize(
    "rankings",
    [
        *(simulated(count) for count in range(1, 6)),
        [simulated(1, 1 + n % 2, seed=n)[0] for n in range(8)],  # lists of one and of two
        [replace(ranked(4, [[0], [1, 2, 3]]), passages=[Passage(str(i), "lamp") for i in range(4)])] * 6,
        [replace(r, tiers=[[0, 1, 2, 3, 4]]) for r in simulated(6)],
        [replace(r, tiers=[[7], [i for i in range(60) if i != 7]]) for r in simulated(3, 60)],  # 5133 ties
        [*simulated(3), *simulated(1, 60, seed=9)],  # an order of sixty
        simulated(2, 60, taste=50.0),
    ],
)
def test_odd_tables_give_finite_weights(rankings, capacities):
    table, new = tabled(rankings), tabled(simulated(3, seed=8))
    for objective in (Objective(first=True), Objective("plackett_luce"), Objective(anchor="reference")):
        residual, evidence = train(table, objective, capacities)
        assert 0 <= evidence.share <= 1 + 1e-9 and np.isfinite(residual(new)).all()


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "rankings",
    [
        simulated(5),
        [replace(r, tiers=[[0, 1, 2, 3, 4]]) for r in simulated(6)] + simulated(7)[6:],  # a fold of ties only
        [simulated(1, 1 + n % 2, seed=n)[0] for n in range(12)],
        [*simulated(4), *simulated(1, 60, seed=9)],
    ],
)
def test_odd_logs_are_fitted_and_updated(rankings):
    reranker = Reranker(WordsEncoder(), "auto")
    report = reranker.fit(rankings, progress=False)
    assert str(report) and report.verdict
    reranker.update(simulated(8, seed=2)[7])
    assert np.isfinite(reranker.score("lamp?", simulated(1)[0].passages)).all()


def test_scores_of_lists_not_seen_are_believed_by_bayes_rule():
    """The share of a cross-encoder: likelihoods averaged over β, ten to one for the retriever before."""
    table = tabled(simulated(20, seed=3))
    table = table.strict()
    told = Told(table)

    def likelihood(scores):
        return np.mean([np.exp(told.log_likelihood(beta * told.apart(scores))) for beta in BETAS])

    for right in (-1.0, 0.0, 0.5, 1.0):  # how far they go with the order that was given
        scores = table.base + right * (5.0 - table.ranks)
        found, none = likelihood(scores), likelihood(table.base)
        assert held_out_share(scores, table) == pytest.approx(found / (found + ODDS * none))
    assert held_out_share(table.base, table) == pytest.approx(1 / (1 + ODDS))
    assert held_out_share(table.base - 5.0 * table.ranks, table) > 0.99
